//! Receives the events of bridges and of the event stream, records owners and states of sessions, and passes the events
//! to the actor system.

use async_trait::async_trait;
use greenroom::domain::decoded_event::DecodedEvent;
use greenroom::domain::event_filter::ForwardedEvent;
use greenroom::domain::ids::SessionId;
use greenroom::domain::instance::Instance;
use greenroom::domain::session_event::SessionEventKind;
use greenroom::{EventLink, Greenroom};
use greenroom_bridge::{BridgeInfo, BridgeKey, ToolContext};

use super::routes::RoutedServer;

/// Maximum length of a session id. Longer ids are ignored, so that a hostile bridge cannot fill the memory.
const MAX_ID_BYTES: usize = 256;

/// Sends events to the actor system and session state to the router. A cheap clone.
#[derive(Debug, Clone)]
pub struct RoutedEvents {
    greenroom: Greenroom,
    routed: RoutedServer,
}

impl RoutedEvents {
    /// Creates a sink for an actor system and the router of its calls.
    pub fn new(greenroom: Greenroom, routed: RoutedServer) -> Self {
        Self { greenroom, routed }
    }

    /// Records the session state in an event and passes the event to the actor system.
    async fn ingest(&self, by: Option<&BridgeKey>, event: DecodedEvent) {
        if let Some(session) = &event.session {
            if let Some(works) = event.works {
                self.routed.0.sessions().set_working(session, works);
            }
            if event.kind == Some(SessionEventKind::Deleted) {
                self.routed.0.sessions().remove(session);
            }
        }
        if let Some(disposed) = &event.disposed {
            let directory = disposed.directory.as_deref();
            self.greenroom.instance_ended(match by {
                Some(bridge) => bridge.instance(directory),
                None => Instance::in_directory(directory),
            });
        }
        if let Some(event) = event.event() {
            self.greenroom.ingest_event(event).await;
        }
    }
}

#[async_trait]
impl greenroom_bridge::EventSink for RoutedEvents {
    async fn event(&self, by: &BridgeKey, event: ForwardedEvent<'_>) {
        self.ingest(Some(by), event.decoded).await;
    }

    fn link(&self, link: EventLink) {
        self.greenroom.event_link(link);
    }

    fn session_named(&self, by: &BridgeKey, session: &SessionId) -> bool {
        session.as_str().len() <= MAX_ID_BYTES && self.routed.0.name_session(by, session)
    }

    async fn tool_called(&self, by: &BridgeKey, caller: &ToolContext) -> bool {
        caller.session_id.as_str().len() <= MAX_ID_BYTES
            && self.routed.0.tool_called(by, caller).await
    }

    fn bridge_connected(&self, bridge: &BridgeInfo) {
        self.routed.0.bridge_connected(bridge);
    }

    fn bridge_disconnected(&self, bridge: &BridgeInfo) {
        self.routed.0.bridge_disconnected(bridge);
    }

    fn instance_ended(&self, bridge: &BridgeInfo) {
        self.routed.0.instance_ended(bridge);
        let ended = bridge.key().instance(Some(&bridge.directory));
        self.greenroom.instance_ended(ended);
    }
}

impl greenroom_opencode::EventSink for RoutedEvents {
    async fn event(&self, event: ForwardedEvent<'_>) {
        self.ingest(None, event.decoded).await;
    }

    fn link(&self, link: EventLink) {
        self.greenroom.event_link(link);
    }
}
