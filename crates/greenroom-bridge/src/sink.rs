//! Where the bridge's events go: the actor system, or a test's list.

use async_trait::async_trait;
use greenroom::{EventLink, Greenroom};
use serde_json::Value;

/// What takes the events of bridges.
#[async_trait]
pub trait EventSink: Send + Sync + 'static {
    /// Takes one event of the agent server as it is. The socket is not read while this waits.
    async fn event(&self, event: &Value);

    /// Tells whether events flow.
    fn link(&self, link: EventLink);
}

#[async_trait]
impl EventSink for Greenroom {
    async fn event(&self, event: &Value) {
        Greenroom::event(self, event).await;
    }

    fn link(&self, link: EventLink) {
        self.event_link(link);
    }
}
