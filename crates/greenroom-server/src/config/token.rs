//! The secret of the service and its default file, which the service creates at its first start. The commands, the MCP
//! server and opencode's plugin read the same file.

use std::path::{Path, PathBuf};

use greenroom_bridge::Token;
use uuid::Uuid;

use super::file;
use super::layers::Environment;
use super::loader::printable_name;
use super::settings::{Auth, Settings, TokenSource};
use super::value::MAX_TEXT_BYTES;
use crate::secret_file::{self, SecretFileError};

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is no home folder for the default file.
    #[error("there is no home folder for the token")]
    NoHome,
    /// The default file cannot be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The default file has no valid secret.
    #[error("{0}")]
    Content(String),
}

impl TokenError {
    /// Returns what a person can do about the error.
    pub fn hint(&self) -> String {
        match self {
            Self::NoHome => "set HOME, or name a file with `token_file`".to_owned(),
            Self::File(error) => error.hint(),
            Self::Content(_) => {
                "put the secret alone into the file, or remove it to have it made again".to_owned()
            }
        }
    }
}

/// Reads the secret of a service from its default file; none if the file does not exist.
///
/// # Errors
/// [`TokenError`] if the file could have been written or read by another user, or has no valid secret.
pub fn default_token(environment: &Environment) -> Result<Option<Token>, TokenError> {
    match environment.token_file() {
        Some(path) => read_private(&path),
        None => Ok(None),
    }
}

/// Reads the secret that a client sends from the default file. Unlike the service, a client accepts a file that others can
/// read: the service refuses that file at its start.
///
/// # Errors
/// As [`default_token`].
pub fn client_token(environment: &Environment) -> Result<Option<Token>, TokenError> {
    let token = default_token(environment);
    let Err(TokenError::File(SecretFileError::OpenToOthers {
        access: "read",
        path,
        ..
    })) = &token
    else {
        return token;
    };
    read_token(path).map(Some).map_err(TokenError::Content)
}

fn read_private(path: &Path) -> Result<Option<Token>, TokenError> {
    let Some(text) = secret_file::read(path)? else {
        return Ok(None);
    };
    parse(&text, path).map(Some).map_err(TokenError::Content)
}

/// Gives the settings of a service a secret: creates the default file if no secret is configured and authentication is
/// on. Of two services that start at once, both use the file of the first.
///
/// # Errors
/// [`TokenError`] if the file cannot be created or is not private.
pub fn ensure(settings: &mut Settings, environment: &Environment) -> Result<(), TokenError> {
    if settings.auth == Auth::None || settings.token.is_some() {
        return Ok(());
    }
    let path = environment.token_file().ok_or(TokenError::NoHome)?;
    settings.token = Some(create(&path)?);
    settings.token_source = TokenSource::Default(path);
    Ok(())
}

/// Creates a file with a new secret, or reads the secret of an existing one.
///
/// # Errors
/// As [`ensure`].
pub fn create(path: &Path) -> Result<Token, TokenError> {
    // Once more if the file is removed between the two calls.
    for _ in 0..2 {
        if let Some(token) = read_private(path)? {
            return Ok(token);
        }
        if secret_file::create(path, &format!("{}\n", random()))? {
            tracing::info!(path = %path.display(), "token created");
        }
    }
    read_private(path)?
        .ok_or_else(|| TokenError::Content(format!("{}: it is removed", path.display())))
}

/// Replaces the secret in the default file. A running service reads the new one within a second or two.
///
/// # Errors
/// As [`ensure`].
pub fn rotate(environment: &Environment) -> Result<PathBuf, TokenError> {
    let path = environment.token_file().ok_or(TokenError::NoHome)?;
    secret_file::replace(&path, &format!("{}\n", random()))?;
    Ok(path)
}

/// Returns a new secret of 244 random bits, as 64 hexadecimal digits.
pub fn random() -> String {
    let [one, other] = [Uuid::new_v4(), Uuid::new_v4()];
    format!("{}{}", one.simple(), other.simple())
}

/// Reads a secret from a configured file, without the line end.
///
/// # Errors
/// A sentence: the file cannot be read, could have been written by another user, is empty, or has more than one line.
pub fn read_token(path: &Path) -> Result<Token, String> {
    let name = printable_name(&path.display().to_string());
    match secret_file::check_named(path) {
        // The read reports a missing file.
        Ok(()) | Err(SecretFileError::Io { .. }) => {}
        Err(error) => return Err(format!("{error}; {}", error.hint())),
    }
    let text = file::read_bounded(path, MAX_TEXT_BYTES as u64)
        .map_err(|error| format!("{name} cannot be read: {error}"))?
        .ok_or_else(|| format!("{name} is larger than {MAX_TEXT_BYTES} bytes"))?;
    parse(&text, path)
}

/// Reads the secret of a running service again; none if it does not come from a file.
///
/// # Errors
/// A sentence with the problem of the file.
pub fn read_again(source: &TokenSource) -> Result<Option<String>, String> {
    let token = match source {
        TokenSource::None | TokenSource::Text(_) => return Ok(None),
        TokenSource::File(path) => read_token(path)?,
        TokenSource::Default(path) => read_private(path)
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("{} is missing", path.display()))?,
    };
    Ok(Some(token.reveal().to_string()))
}

fn parse(text: &str, path: &Path) -> Result<Token, String> {
    let name = printable_name(&path.display().to_string());
    if text.trim().chars().any(char::is_control) {
        return Err(format!("{name} holds more than one line of text"));
    }
    Token::new(text).ok_or_else(|| format!("{name} is empty"))
}
