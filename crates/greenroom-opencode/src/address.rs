//! Where an opencode server is, and with which credentials. Made by whoever reads the configuration or starts a server;
//! read by [`crate::OpencodeServer`] and [`crate::wait_until_healthy`].

use std::fmt;

use reqwest::Url;

/// Where an opencode server is and how to talk to it.
#[derive(Clone)]
pub struct ServerAddress {
    /// For instance `http://127.0.0.1:4096`; a path in it is kept as a prefix.
    pub url: String,
    /// The name for Basic auth; opencode's own default is `opencode`.
    pub username: String,
    /// What the server was started with as `OPENCODE_SERVER_PASSWORD`; without one no credentials are sent.
    pub password: Option<String>,
    /// Where sessions and toasts belong that name no directory.
    pub directory: String,
}

impl ServerAddress {
    /// An address without a password.
    pub fn new(url: impl Into<String>, directory: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            username: "opencode".to_owned(),
            password: None,
            directory: directory.into(),
        }
    }

    /// The same with a password.
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
    /// It is no `http://` URL.
    #[error(
        "`{url}` is no usable address of opencode: {problem}; it looks like http://127.0.0.1:4096"
    )]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The HTTP client could not be made.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// The URL of an address, if it can be used.
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
