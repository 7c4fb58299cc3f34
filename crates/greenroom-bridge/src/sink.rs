//! The receiver of the bridge's events: the actor system, or a list in a test. It is also notified of connections and of
//! the sessions that bridges name.

use async_trait::async_trait;
use greenroom::domain::event_filter::ForwardedEvent;
use greenroom::domain::ids::SessionId;
use greenroom::{EventLink, Greenroom};

use crate::dispatcher::ToolContext;
use crate::registry::{BridgeInfo, BridgeKey};

/// Receives the events of bridges.
#[async_trait]
pub trait EventSink: Send + Sync + 'static {
    /// Receives one event of a bridge. The socket is not read until this returns.
    async fn event(&self, by: &BridgeKey, event: ForwardedEvent<'_>);

    /// Called when the event link is connected or broken.
    fn link(&self, link: EventLink);

    /// Called when a bridge names a session, before the event that names it is processed. Returns false if another bridge
    /// owns the session: then the event is ignored.
    fn session_named(&self, _by: &BridgeKey, _session: &SessionId) -> bool {
        true
    }

    /// Called when a bridge sends a tool call, before the call is carried out. Bounded by the implementation; frames of the
    /// bridge are read meanwhile. Returns false if another bridge owns the calling session: then the call is refused.
    async fn tool_called(&self, by: &BridgeKey, caller: &ToolContext) -> bool {
        self.session_named(by, &caller.session_id)
    }

    /// Called when a bridge has connected, before any of its frames is processed.
    fn bridge_connected(&self, _bridge: &BridgeInfo) {}

    /// Called when a bridge has disconnected.
    fn bridge_disconnected(&self, _bridge: &BridgeInfo) {}

    /// Called when an instance of the bridge's directory has ended: it is being disposed, or its bridge has disconnected.
    /// Called before the events that the bridge sends afterwards.
    fn instance_ended(&self, _bridge: &BridgeInfo) {}
}

#[async_trait]
impl EventSink for Greenroom {
    async fn event(&self, by: &BridgeKey, event: ForwardedEvent<'_>) {
        if let Some(disposed) = &event.decoded.disposed {
            Greenroom::instance_ended(self, by.instance(disposed.directory.as_deref()));
        }
        if let Some(event) = event.decoded.event() {
            self.ingest_event(event).await;
        }
    }

    fn link(&self, link: EventLink) {
        self.event_link(link);
    }

    fn instance_ended(&self, bridge: &BridgeInfo) {
        let ended = bridge.key().instance(Some(&bridge.directory));
        Greenroom::instance_ended(self, ended);
    }
}
