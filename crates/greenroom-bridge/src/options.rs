//! The settings that a host gives its bridge: event sink, tool dispatcher, secret, limits. Sockets read them.

use std::sync::Arc;
use std::time::Duration;

use crate::dispatcher::ToolDispatcher;
use crate::handshakes::Handshakes;
use crate::registry::BridgeRegistry;
use crate::sink::EventSink;
use crate::token::Token;

/// The settings of a bridge. Clones share everything, so that each worker mounts the same bridge.
#[derive(Clone)]
pub struct BridgeOptions {
    /// The receiver of events.
    pub sink: Arc<dyn EventSink>,
    /// The receiver of tool calls; without one every tool call is refused.
    pub tools: Option<Arc<dyn ToolDispatcher>>,
    /// The secret that a bridge must send, in its hello or as a bearer header.
    pub token: Option<Token>,
    /// The user id that the process of a bridge must have; none to serve every user. A bridge that names no user id is
    /// served.
    pub uid: Option<u32>,
    /// The id of this service process; another one after a restart.
    pub instance: String,
    /// True if bridges are the only source of events: without any bridge, the sink is notified of a broken link.
    pub only_source: bool,
    /// Time limits and sizes.
    pub limits: BridgeLimits,
    /// The connected bridges.
    pub bridges: BridgeRegistry,
    /// The sockets without a hello.
    pub(crate) handshakes: Handshakes,
}

/// Time limits and sizes of bridges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeLimits {
    /// The most connected bridges.
    pub bridges: usize,
    /// The most sockets that have not sent their hello; a further one closes the oldest.
    pub handshakes: usize,
    /// The time limit of the hello.
    pub hello_timeout: Duration,
    /// The time between two pings.
    pub ping_interval: Duration,
    /// A bridge that sends no frame for this time is disconnected.
    pub idle_timeout: Duration,
    /// The most bytes of one frame, and of one message of several frames.
    pub frame: usize,
    /// The time limit of one write; a bridge that does not read is disconnected.
    pub write_timeout: Duration,
    /// How long unsent requests wait for the reconnect of a disconnected bridge.
    pub reconnect_grace: Duration,
}

impl Default for BridgeLimits {
    fn default() -> Self {
        Self {
            bridges: 256,
            handshakes: 64,
            hello_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(45),
            frame: 4 * 1024 * 1024,
            write_timeout: Duration::from_secs(10),
            reconnect_grace: Duration::from_secs(5),
        }
    }
}

impl BridgeOptions {
    /// Returns options without a secret and with the default limits.
    pub fn new(sink: Arc<dyn EventSink>, instance: impl Into<String>) -> Self {
        Self {
            sink,
            tools: None,
            token: None,
            uid: None,
            instance: instance.into(),
            only_source: false,
            limits: BridgeLimits::default(),
            bridges: BridgeRegistry::default(),
            handshakes: Handshakes::default(),
        }
    }
}

impl std::fmt::Debug for BridgeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BridgeOptions")
            .field("instance", &self.instance)
            .field("limits", &self.limits)
            .field("bridges", &self.bridges.len())
            .finish_non_exhaustive()
    }
}
