//! The errors of the configuration. Each names the origin of the value, its key, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::secret_file::SecretFileError;

/// The origin of a value; later variants override earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key, from 1, if known.
        line: Option<usize>,
    },
    /// An environment variable.
    Env(String),
    /// A command line flag, as given.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Why the configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named, or that exists, cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file is larger than the limit.
    #[error("{}: larger than {most} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        most: u64,
    },
    /// A file is not TOML.
    #[error("{origin}: {problem}")]
    InvalidToml {
        /// The file and the line.
        origin: Origin,
        /// The message of the parser.
        problem: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown key `{key}`")]
    UnknownKey {
        /// The position of the key.
        origin: Origin,
        /// The key, as given.
        key: String,
        /// The most similar known key.
        nearest: Option<&'static str>,
    },
    /// `--set` without a `=`.
    #[error("{origin}: no value")]
    MissingValue {
        /// The flag.
        origin: Origin,
    },
    /// A key has an invalid value.
    #[error("{origin}: `{key}`: {problem}")]
    Invalid {
        /// The position of the value.
        origin: Origin,
        /// The key, with its entry.
        key: String,
        /// The problem, and the expected value.
        problem: String,
    },
    /// The file of a project sets what only its user may set.
    #[error("{origin}: `{key}`: {problem}")]
    Refused {
        /// The position of the key.
        origin: Origin,
        /// The key, with its entry.
        key: String,
        /// The rule.
        problem: String,
    },
    /// The default file of the secret is not private.
    #[error("{0}")]
    SecretFile(SecretFileError),
    /// A network address without a secret.
    #[error(
        "{origin}: `listen`: {address} can be reached from other machines, which needs a token"
    )]
    TokenNeeded {
        /// The origin of the address.
        origin: Origin,
        /// The address.
        address: String,
    },
}

impl ConfigError {
    /// Returns the file and the line of the error, if it has a position in a file.
    pub fn position(&self) -> Option<(&Path, Option<usize>)> {
        match self {
            Self::Unreadable { path, .. } | Self::TooLarge { path, .. } => Some((path, None)),
            Self::SecretFile(_) => None,
            Self::InvalidToml { origin, .. }
            | Self::UnknownKey { origin, .. }
            | Self::MissingValue { origin }
            | Self::Refused { origin, .. }
            | Self::Invalid { origin, .. }
            | Self::TokenNeeded { origin, .. } => match origin {
                Origin::File { path, line } => Some((path, *line)),
                Origin::Env(_) | Origin::Flag(_) => None,
            },
        }
    }

    /// Returns the key that the error is about, if any.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::UnknownKey { key, .. }
            | Self::Refused { key, .. }
            | Self::Invalid { key, .. } => Some(key),
            Self::TokenNeeded { .. } => Some("listen"),
            Self::Unreadable { .. }
            | Self::TooLarge { .. }
            | Self::InvalidToml { .. }
            | Self::SecretFile(_)
            | Self::MissingValue { .. } => None,
        }
    }

    /// Returns what a person can do about the error.
    pub fn hint(&self) -> String {
        match self {
            Self::Unreadable { .. } => {
                "check the path and its permissions, or leave the file out".to_owned()
            }
            Self::TooLarge { .. } => "name a configuration file, or leave it out".to_owned(),
            Self::InvalidToml { .. } => {
                "correct the line; `key = \"value\"` is how a text is written".to_owned()
            }
            Self::UnknownKey {
                nearest: Some(nearest),
                ..
            } => format!("did you mean `{nearest}`?"),
            Self::UnknownKey { .. } => {
                "remove it; docs/configuration.md lists every key".to_owned()
            }
            Self::MissingValue { .. } => {
                "write `--set key=value`, for instance `--set limits.default=3`".to_owned()
            }
            Self::Invalid {
                origin: Origin::File { path, line: None },
                key,
                ..
            } if key == "token_file" => {
                let file = path.display();
                format!("put the secret alone into {file}, remove it, or set `token_file`")
            }
            Self::Invalid { key, .. } => {
                format!("correct the value of `{key}`, or remove it to use the default")
            }
            Self::Refused { .. } => {
                "put it into ~/.config/greenroom/config.toml; `greenroom config trust` accepts the project's file as it is now".to_owned()
            }
            Self::SecretFile(error) => error.hint(),
            Self::TokenNeeded { .. } => {
                "make a token with `greenroom token`, set `token` or `token_file`, or listen on 127.0.0.1".to_owned()
            }
        }
    }
}
