//! The address and credentials of an opencode server. Created from the configuration or by a started server; read by
//! [`crate::OpencodeServer`] and [`crate::wait_until_healthy`].

use std::fmt;

use reqwest::Url;

/// The address and credentials of an opencode server.
#[derive(Clone)]
pub struct ServerAddress {
    /// The URL, for instance `http://127.0.0.1:4096`; a path is kept as a prefix.
    pub url: String,
    /// The user name for Basic auth; opencode's default is `opencode`.
    pub username: String,
    /// The server's `OPENCODE_SERVER_PASSWORD`; without one no credentials are sent.
    pub password: Option<String>,
    /// The directory of sessions and toasts that name none.
    pub directory: String,
}

impl ServerAddress {
    /// Returns an address without a password.
    pub fn new(url: impl Into<String>, directory: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            username: "opencode".to_owned(),
            password: None,
            directory: directory.into(),
        }
    }

    /// Sets the password; an empty one counts as none.
    #[must_use]
    pub fn with_password(mut self, password: Option<String>) -> Self {
        self.password = password.filter(|password| !password.is_empty());
        self
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerAddress")
            .field("url", &self.url)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("directory", &self.directory)
            .finish()
    }
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The URL is not a valid `http://` URL.
    #[error(
        "`{url}` is not a usable address of opencode: {problem}; an example is http://127.0.0.1:4096"
    )]
    Url {
        /// The given text.
        url: String,
        /// The problem.
        problem: String,
    },
    /// The HTTP client could not be created.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// Parses the URL of an address.
pub(crate) fn parse_url(text: &str) -> Result<Url, AddressError> {
    let bad = |problem: String| AddressError::Url {
        url: text.to_owned(),
        problem,
    };
    let url = Url::parse(text.trim()).map_err(|error| bad(error.to_string()))?;
    if url.scheme() != "http" {
        return Err(bad(format!("{}:// is not supported", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad(
            "name and password have settings of their own".to_owned()
        ));
    }
    Ok(url)
}
