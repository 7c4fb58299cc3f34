//! Events on their way to the actor system. What they tell of sessions is noted first: whose they are, and whether they
//! work. Bridges and the event stream hand them in here.

use async_trait::async_trait;
use greenroom::domain::heard::Heard;
use greenroom::domain::ids::SessionId;
use greenroom::domain::session_event::Happening;
use greenroom::domain::sift::Passed;
use greenroom::{EventLink, Greenroom};
use greenroom_bridge::{BridgeInfo, BridgeKey};

use super::routes::RoutedServer;
use super::sessions::Owner;

/// No session has a longer id; what is longer is not remembered, or a hostile bridge could fill the memory.
const LONGEST_ID: usize = 256;

/// The actor system, with the router before it. A cheap clone.
#[derive(Debug, Clone)]
pub struct RoutedEvents {
    greenroom: Greenroom,
    routed: RoutedServer,
}

impl RoutedEvents {
    /// Events for that system, whose calls that router routes.
    pub fn new(greenroom: Greenroom, routed: RoutedServer) -> Self {
        Self { greenroom, routed }
    }

    /// Notes whether the session that the event names works, and passes it on.
    async fn take(&self, heard: Heard) {
        if let Some(session) = &heard.session {
            if let Some(works) = heard.works {
                self.routed.0.sessions().works(session, works);
            }
            if heard.what == Some(Happening::Deleted) {
                self.routed.0.sessions().forget(session);
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
        self.take(event.heard).await;
    }

    fn link(&self, link: EventLink) {
        self.greenroom.event_link(link);
    }

    fn named(&self, by: &BridgeKey, session: &SessionId) {
        if session.as_str().len() > LONGEST_ID {
            return;
        }
        let owner = Owner::Bridge(by.clone());
        self.routed.0.sessions().name(session, &owner);
    }

    fn arrived(&self, bridge: &BridgeInfo) {
        self.routed.0.arrived(bridge);
    }

    fn left(&self, bridge: &BridgeInfo) {
        self.routed.0.left(bridge);
    }
}

impl greenroom_opencode::EventSink for RoutedEvents {
    async fn event(&self, event: Passed<'_>) {
        self.take(event.heard).await;
    }

    fn link(&self, link: EventLink) {
        self.greenroom.event_link(link);
    }
}
