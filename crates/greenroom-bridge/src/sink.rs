//! Where the bridge's events go: the actor system, or a test's list; and who wants to know which bridge names what.

use async_trait::async_trait;
use greenroom::domain::ids::SessionId;
use greenroom::domain::sift::Passed;
use greenroom::{EventLink, Greenroom};

use crate::registry::{BridgeInfo, BridgeKey};

/// What takes the events of bridges.
#[async_trait]
pub trait EventSink: Send + Sync + 'static {
    /// Takes one event of the agent server. The socket is not read while this waits.
    async fn event(&self, event: Passed<'_>);

    /// Tells whether events flow.
    fn link(&self, link: EventLink);

    /// A bridge has named a session, in an event or by a call of a tool; told before that is passed on.
    fn named(&self, _by: &BridgeKey, _session: &SessionId) {}

    /// A bridge has said hello; told before anything of it is passed on.
    fn arrived(&self, _bridge: &BridgeInfo) {}

    /// A bridge is not connected any more.
    fn left(&self, _bridge: &BridgeInfo) {}
}

#[async_trait]
impl EventSink for Greenroom {
    async fn event(&self, event: Passed<'_>) {
        if let Some(event) = event.heard.event() {
            self.happened(event).await;
        }
    }

    fn link(&self, link: EventLink) {
        self.event_link(link);
    }
}
