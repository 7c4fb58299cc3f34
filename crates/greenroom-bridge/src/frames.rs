//! Reads the frames of a bridge as they come in. Events are by far the most of them: they are sifted as they are read.

use std::borrow::Cow;
use std::time::Instant;

use greenroom::domain::sift::{Passed, Sift, Sifted};
use serde::Deserialize;

use crate::protocol::FromBridge;

/// What a frame asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming<'a> {
    /// An event that is passed on.
    Event(Passed<'a>),
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

/// How the plugin begins the frames of events.
const EVENT: &str = r#"{"type":"event","event":"#;

/// Reads one frame.
pub(crate) fn read<'a>(text: &'a str, sift: &mut Sift) -> Incoming<'a> {
    let is_event = || {
        let head = serde_json::from_str::<Head<'_>>(text);
        head.is_ok_and(|head| head.kind.as_deref() == Some("event"))
    };
    if text.starts_with(EVENT) || is_event() {
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

    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, PartialEq)]
    enum Read {
        Event(Option<Value>),
        Nothing,
        Reconcile,
        Malformed,
    }

    #[test]
    fn events_are_sifted_and_everything_else_is_read() {
        let mut sift = Sift::of_wrapped(Duration::from_secs(60));
        let mut read = |frame: Value| match read(&frame.to_string(), &mut sift) {
            Incoming::Event(event) => Read::Event(event.value()),
            Incoming::Nothing => Read::Nothing,
            Incoming::Reconcile => Read::Reconcile,
            Incoming::Other(FromBridge::Malformed(_)) => Read::Malformed,
            Incoming::Other(other) => panic!("{other:?}"),
        };
        let event = |kind: &str| json!({"type": kind, "properties": {"sessionID": "ses_1"}});
        let frame = |event: &Value| json!({"event": event, "type": "event"});
        let delta = event("message.part.delta");
        assert_eq!(read(frame(&delta)), Read::Event(Some(delta.clone())));
        assert_eq!(read(frame(&delta)), Read::Nothing);
        let idle = event("session.idle");
        assert_eq!(read(frame(&idle)), Read::Event(Some(idle.clone())));
        assert_eq!(read(frame(&delta)), Read::Event(Some(delta)));
        assert_eq!(read(frame(&event("catalog.updated"))), Read::Nothing);
        assert_eq!(read(json!({"type": "later"})), Read::Nothing);
        assert_eq!(read(json!({"type": "reconcile"})), Read::Reconcile);
        for broken in [
            json!({"type": "event"}),
            json!({"type": "event", "event": []}),
            json!(7),
        ] {
            assert_eq!(read(broken.clone()), Read::Malformed, "{broken}");
        }
    }
}
