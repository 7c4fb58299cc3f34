//! What a host gives its bridge: where events go, the secret, times and sizes. Sockets read it, and count themselves here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::desk::ToolDesk;
use crate::registry::Bridges;
use crate::sink::EventSink;
use crate::token::Token;

/// What a host gives its bridge. Clones share everything, so each worker mounts the same bridge.
#[derive(Clone)]
pub struct BridgeOptions {
    /// Where events go.
    pub sink: Arc<dyn EventSink>,
    /// Who answers tools; without one their callers are told that there are none.
    pub tools: Option<Arc<dyn ToolDesk>>,
    /// The secret a bridge must bring, in its hello or as a bearer header.
    pub token: Option<Token>,
    /// Which service this is; another text after a restart.
    pub instance: String,
    /// True if events come from bridges alone: without any, the sink is told that the link is broken.
    pub only_source: bool,
    /// Times and sizes.
    pub limits: BridgeLimits,
    /// Those connected.
    pub bridges: Bridges,
    /// Sockets open, those that have not said hello too.
    pub(crate) sockets: Arc<AtomicUsize>,
}

/// Times and sizes of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeLimits {
    /// Bridges at a time; twice as many sockets, those that have not said hello included.
    pub bridges: usize,
    /// How long the hello may take.
    pub hello_within: Duration,
    /// How often a bridge is pinged.
    pub ping_every: Duration,
    /// A bridge that has said nothing for so long is closed.
    pub silence: Duration,
    /// Bytes of one frame, and of one message made of several.
    pub frame: usize,
    /// How long one write to a bridge may take: one that reads nothing any more is cut off.
    pub write_within: Duration,
    /// How long requests that can still be made wait for a bridge that is gone to come back.
    pub linger: Duration,
}

impl Default for BridgeLimits {
    fn default() -> Self {
        Self {
            bridges: 256,
            hello_within: Duration::from_secs(10),
            ping_every: Duration::from_secs(15),
            silence: Duration::from_secs(45),
            frame: 4 * 1024 * 1024,
            write_within: Duration::from_secs(10),
            linger: Duration::from_secs(5),
        }
    }
}

impl BridgeOptions {
    /// A bridge without a secret and with the usual limits.
    pub fn new(sink: Arc<dyn EventSink>, instance: impl Into<String>) -> Self {
        Self {
            sink,
            tools: None,
            token: None,
            instance: instance.into(),
            only_source: false,
            limits: BridgeLimits::default(),
            bridges: Bridges::default(),
            sockets: Arc::default(),
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

/// One open socket, counted until dropped.
pub(crate) struct SocketCount(Arc<AtomicUsize>);

impl SocketCount {
    pub(crate) fn enter(count: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < limit).then_some(open + 1)
            })
            .ok()
            .map(|_| Self(count.clone()))
    }
}

impl Drop for SocketCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
