//! What comes out of the configuration: the actor system's [`greenroom::Config`] and what the host needs besides.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use greenroom::Config;
use greenroom_bridge::Token;

/// Where the service listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl Listen {
    /// The address of a service that nobody has configured.
    pub const DEFAULT: Self = Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7717));

    /// Reads `address:port`, or `localhost:port`.
    pub fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let numeric = text
            .strip_prefix("localhost:")
            .map(|port| format!("127.0.0.1:{port}"));
        numeric
            .as_deref()
            .unwrap_or(text)
            .parse()
            .map(Self)
            .map_err(|_| {
                format!("expected an address and a port such as \"127.0.0.1:7717\", found {text:?}")
            })
    }

    /// True if only this machine can reach it.
    pub fn is_loopback(self) -> bool {
        self.0.ip().is_loopback()
    }
}

/// True if an address names a host that can be one: no name is longer than 253 bytes.
pub(crate) fn has_host(url: &reqwest::Url) -> bool {
    url.host_str()
        .is_some_and(|host| !host.is_empty() && host.len() <= 253)
}

/// Where events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// The agent server's event stream.
    Stream,
    /// Bridges alone.
    Bridge,
    /// Both.
    Both,
}

/// The agent server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpencodeSettings {
    /// Where it listens; none if it comes by bridges alone.
    pub url: Option<String>,
    /// The user it knows.
    pub username: String,
    /// The variable that holds its password.
    pub password_env: String,
    /// The password found there.
    pub password: Option<String>,
    /// Where events come from.
    pub events: Events,
}

/// Where the secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenSource {
    None,
    Text(String),
    File(PathBuf),
}

/// Where tasks are kept unless another place is configured.
pub const JOURNAL: &str = "~/.local/share/greenroom/journal.db";

/// Everything the command needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the service listens.
    pub listen: Listen,
    /// The secret of the service.
    pub token: Option<Token>,
    /// The journal file; none keeps nothing.
    pub journal: Option<PathBuf>,
    /// The agent server.
    pub opencode: OpencodeSettings,
    /// The actor system's own.
    pub core: Config,
    pub(crate) token_source: TokenSource,
}

impl Settings {
    /// Where a caller on this machine finds the service.
    pub fn url(&self) -> String {
        let mut address = self.listen.0;
        if address.port() == 0 {
            address.set_port(Listen::DEFAULT.0.port());
        }
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}")
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Listen::DEFAULT,
            token: None,
            journal: Some(PathBuf::from(JOURNAL)),
            opencode: OpencodeSettings {
                url: Some("http://127.0.0.1:4096".to_owned()),
                username: "opencode".to_owned(),
                password_env: "OPENCODE_SERVER_PASSWORD".to_owned(),
                password: None,
                events: Events::Both,
            },
            core: Config {
                directory: ".".into(),
                ..Config::default()
            },
            token_source: TokenSource::None,
        }
    }
}
