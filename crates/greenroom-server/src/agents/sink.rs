//! Events on their way to the actor system. What they tell of sessions is noted first: whose they are, and whether they
//! work. Bridges and the event stream hand them in here.

use async_trait::async_trait;
use greenroom::domain::ids::SessionId;
use greenroom::domain::session_event::session_named;
use greenroom::{EventLink, Greenroom};
use greenroom_bridge::{BridgeInfo, BridgeKey};
use serde_json::Value;

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

    /// Notes whether the session that the event names works.
    fn note(&self, event: &Value) {
        let Some(kind) = event.get("type").and_then(Value::as_str) else {
            return;
        };
        let status = event
            .pointer("/properties/status/type")
            .and_then(Value::as_str);
        let works = match (kind, status) {
            ("session.idle" | "session.error", _) | ("session.status", Some("idle")) => false,
            ("session.status", Some(_)) => true,
            ("session.deleted", _) => {
                if let Some(session) = session_named(event) {
                    self.routed.0.sessions().forget(&session);
                }
                return;
            }
            _ => return,
        };
        if let Some(session) = session_named(event) {
            self.routed.0.sessions().works(&session, works);
        }
    }
}

#[async_trait]
impl greenroom_bridge::EventSink for RoutedEvents {
    async fn event(&self, event: &Value) {
        self.note(event);
        self.greenroom.event(event).await;
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
    async fn event(&self, event: &Value) {
        self.note(event);
        self.greenroom.event(event).await;
    }

    fn link(&self, link: EventLink) {
        self.greenroom.event_link(link);
    }
}
