//! The result of the configuration: the [`greenroom::Config`] of the actor system and the settings of the host.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use greenroom::Config;
use greenroom_bridge::Token;

/// The address of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl Listen {
    /// The default address.
    pub const DEFAULT: Self = Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7717));

    /// Parses `address:port` or `localhost:port`.
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

    /// Returns true for a loopback address.
    pub fn is_loopback(self) -> bool {
        self.0.ip().is_loopback()
    }
}

/// Returns true if a URL has a valid host. Host names have at most 253 bytes.
pub(crate) fn has_host(url: &reqwest::Url) -> bool {
    url.host_str()
        .is_some_and(|host| !host.is_empty() && host.len() <= 253)
}

/// The source of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// The agent server's event stream.
    Stream,
    /// Only bridges.
    Bridge,
    /// Both.
    Both,
}

/// The settings of the agent server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpencodeSettings {
    /// The URL; none if agent servers connect only by bridges.
    pub url: Option<String>,
    /// The user name.
    pub username: String,
    /// The name of the variable with the password.
    pub password_env: String,
    /// The password in that variable.
    pub password: Option<String>,
    /// The source of events.
    pub events: Events,
}

/// Whether callers need the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Callers send the secret.
    Token,
    /// Every local caller is served. Only on loopback addresses.
    None,
}

/// The source of the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// Not configured.
    None,
    /// The configuration itself.
    Text(String),
    /// A configured file.
    File(PathBuf),
    /// The default file.
    Default(PathBuf),
}

/// The default path of the journal.
pub const JOURNAL: &str = "~/.local/share/greenroom/journal.db";

/// All settings of the command.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address of the service.
    pub listen: Listen,
    /// True if no address is configured: a free port will do if the default one is taken.
    pub listen_is_default: bool,
    /// Whether callers need the secret.
    pub auth: Auth,
    /// The secret of the service.
    pub token: Option<Token>,
    /// True if bridges of other users are served.
    pub any_uid: bool,
    /// The journal file; none disables the journal.
    pub journal: Option<PathBuf>,
    /// The agent server.
    pub opencode: OpencodeSettings,
    /// The configuration of the actor system.
    pub core: Config,
    /// The source of the secret.
    pub token_source: TokenSource,
}

impl Settings {
    /// Returns the URL of the service for callers on this machine.
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
            listen_is_default: false,
            auth: Auth::Token,
            token: None,
            any_uid: false,
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
