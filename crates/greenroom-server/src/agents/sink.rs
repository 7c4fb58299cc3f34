//! Receives the events of bridges and of the event stream, records owners and states of sessions, and passes the events
//! to the actor system.

use async_trait::async_trait;
use greenroom::domain::heard::Heard;
use greenroom::domain::ids::SessionId;
use greenroom::domain::session_event::Happening;
use greenroom::domain::sift::Passed;
use greenroom::{EventLink, Greenroom};
use greenroom_bridge::{BridgeInfo, BridgeKey};

use super::routes::RoutedServer;
use super::sessions::Owner;

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
    async fn ingest(&self, heard: Heard) {
        if let Some(session) = &heard.session {
            if let Some(works) = heard.works {
                self.routed.0.sessions().set_working(session, works);
            }
            if heard.what == Some(Happening::Deleted) {
                self.routed.0.sessions().remove(session);
            }
        }
        if let Some(event) = heard.event() {
            self.greenroom.happened(event).await;
        }
    }
}

#[async_trait]
impl greenroom_bridge::EventSink for RoutedEvents {
    async fn event(&self, event: Passed<'_>) {
        self.ingest(event.heard).await;
    }

    fn link(&self, link: EventLink) {
        self.greenroom.event_link(link);
    }

    fn named(&self, by: &BridgeKey, session: &SessionId) {
        if session.as_str().len() > MAX_ID_BYTES {
            return;
        }
        let owner = Owner::Bridge(by.clone());
        self.routed.0.sessions().set_owner(session, &owner);
    }

    fn arrived(&self, bridge: &BridgeInfo) {
        self.routed.0.bridge_connected(bridge);
    }

    fn left(&self, bridge: &BridgeInfo) {
        self.routed.0.bridge_disconnected(bridge);
    }
}

impl greenroom_opencode::EventSink for RoutedEvents {
    async fn event(&self, event: Passed<'_>) {
        self.ingest(event.heard).await;
    }

    fn link(&self, link: EventLink) {
        self.greenroom.event_link(link);
    }
}
