//! Reads the frames of a bridge as they come in. Events are by far the most of them: they are sifted by their heads, and
//! only those that are passed on are parsed in full.

use std::borrow::Cow;
use std::time::Instant;

use greenroom::domain::sift::{Sift, Sifted};
use serde::Deserialize;
use serde_json::Value;

use crate::protocol::FromBridge;

/// What a frame asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming {
    /// An event that is passed on.
    Event(Value),
    /// An event that says nothing new, or a frame of a later version.
    Nothing,
    /// Everything that runs is to be looked at.
    Reconcile,
    /// Something else.
    Other(FromBridge),
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
}

/// Reads one frame.
pub(crate) fn read(text: &str, sift: &mut Sift) -> Incoming {
    let head = serde_json::from_str::<Head<'_>>(text);
    let is_event = head.is_ok_and(|head| head.kind.as_deref() == Some("event"));
    if is_event {
        match sift.sift(text.as_bytes(), Instant::now()) {
            Sifted::Passed(event) => return Incoming::Event(event),
            Sifted::Dropped => return Incoming::Nothing,
            // What is wrong with it is said below.
            Sifted::Unreadable => {}
        }
    }
    match FromBridge::read(text) {
        // Without a type it says nothing.
        FromBridge::Event(_) | FromBridge::Unknown(_) => Incoming::Nothing,
        FromBridge::Reconcile => Incoming::Reconcile,
        other => Incoming::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_sifted_and_everything_else_is_read() {
        let mut sift = Sift::of_wrapped(Duration::from_secs(60));
        let mut read = |frame: Value| read(&frame.to_string(), &mut sift);
        let event = |kind: &str| json!({"type": kind, "properties": {"sessionID": "ses_1"}});
        let frame = |event: &Value| json!({"event": event, "type": "event"});
        let delta = event("message.part.delta");
        assert_eq!(read(frame(&delta)), Incoming::Event(delta.clone()));
        assert_eq!(read(frame(&delta)), Incoming::Nothing);
        let idle = event("session.idle");
        assert_eq!(read(frame(&idle)), Incoming::Event(idle.clone()));
        assert_eq!(read(frame(&delta)), Incoming::Event(delta));
        assert_eq!(read(frame(&event("catalog.updated"))), Incoming::Nothing);
        assert_eq!(read(json!({"type": "later"})), Incoming::Nothing);
        assert_eq!(read(json!({"type": "reconcile"})), Incoming::Reconcile);
        for broken in [
            json!({"type": "event"}),
            json!({"type": "event", "event": []}),
            json!(7),
        ] {
            let read = read(broken.clone());
            assert!(
                matches!(read, Incoming::Other(FromBridge::Malformed(_))),
                "{broken}: {read:?}"
            );
        }
    }
}
