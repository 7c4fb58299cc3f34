//! What can be wrong with the configuration. Every error names where the value came from, its key, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value comes from; later variants win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key, from 1, where it is known.
        line: Option<usize>,
    },
    /// An environment variable.
    Env(String),
    /// A flag of the command line, as it was written.
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

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named, or is there, cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is larger than any configuration.
    #[error("{}: larger than {most} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        most: u64,
    },
    /// A file is not TOML.
    #[error("{origin}: {problem}")]
    NoToml {
        /// The file and the line.
        origin: Origin,
        /// What the parser says.
        problem: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown key `{key}`")]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The key, as written.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
    /// `--set` without a `=`.
    #[error("{origin}: no value")]
    NoValue {
        /// The flag.
        origin: Origin,
    },
    /// A value that its key does not take.
    #[error("{origin}: `{key}`: {problem}")]
    Invalid {
        /// Where it stands.
        origin: Origin,
        /// The key, with its entry.
        key: String,
        /// What is wrong with the value and what would be right.
        problem: String,
    },
    /// The service would be open to the network without a secret.
    #[error(
        "{origin}: `listen`: {address} can be reached from other machines, which needs a token"
    )]
    TokenNeeded {
        /// Where the address comes from.
        origin: Origin,
        /// The address.
        address: String,
    },
}

impl ConfigError {
    /// The file and the line, where it stands in one.
    pub fn place(&self) -> Option<(&Path, Option<usize>)> {
        match self {
            Self::Unreadable { path, .. } | Self::TooLarge { path, .. } => Some((path, None)),
            Self::NoToml { origin, .. }
            | Self::UnknownKey { origin, .. }
            | Self::NoValue { origin }
            | Self::Invalid { origin, .. }
            | Self::TokenNeeded { origin, .. } => match origin {
                Origin::File { path, line } => Some((path, *line)),
                Origin::Env(_) | Origin::Flag(_) => None,
            },
        }
    }

    /// The key it is about, if it is about one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::UnknownKey { key, .. } | Self::Invalid { key, .. } => Some(key),
            Self::TokenNeeded { .. } => Some("listen"),
            Self::Unreadable { .. }
            | Self::TooLarge { .. }
            | Self::NoToml { .. }
            | Self::NoValue { .. } => None,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unreadable { .. } => {
                "check the path and its permissions, or leave the file out".to_owned()
            }
            Self::TooLarge { .. } => "name a configuration file, or leave it out".to_owned(),
            Self::NoToml { .. } => {
                "correct the line; `key = \"value\"` is how a text is written".to_owned()
            }
            Self::UnknownKey {
                nearest: Some(nearest),
                ..
            } => format!("did you mean `{nearest}`?"),
            Self::UnknownKey { .. } => {
                "remove it; docs/configuration.md lists every key".to_owned()
            }
            Self::NoValue { .. } => {
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
            Self::TokenNeeded { .. } => {
                "set `token` or `token_file`, or listen on 127.0.0.1".to_owned()
            }
        }
    }
}
