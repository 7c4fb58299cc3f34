//! Decodes incoming frames. Most frames are events: they are filtered while they are decoded.

use std::borrow::Cow;
use std::time::Instant;

use greenroom::domain::event_filter::{EventFilter, FilteredEvent, ForwardedEvent};
use serde::Deserialize;

use crate::protocol::FromBridge;

/// A decoded frame.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming<'a> {
    /// An event to be forwarded.
    Event(ForwardedEvent<'a>),
    /// A redundant event, or a frame of a later protocol version.
    Ignored,
    /// Running tasks are to be reconciled.
    Reconcile,
    /// Any other frame.
    Other(FromBridge),
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
}

/// The first bytes of an event frame of the plugin.
const EVENT: &str = r#"{"type":"event","event":"#;

/// Decodes one frame.
pub(crate) fn read<'a>(text: &'a str, filter: &mut EventFilter) -> Incoming<'a> {
    let is_event = || {
        let head = serde_json::from_str::<Head<'_>>(text);
        head.is_ok_and(|head| head.kind.as_deref() == Some("event"))
    };
    if text.starts_with(EVENT) || is_event() {
        match filter.filter(text.as_bytes(), Instant::now()) {
            FilteredEvent::Forwarded(event) => return Incoming::Event(event),
            FilteredEvent::Dropped => return Incoming::Ignored,
            // `FromBridge::read` reports the problem.
            FilteredEvent::Unreadable => {}
        }
    }
    match FromBridge::read(text) {
        // An event without a type is ignored.
        FromBridge::Event(_) | FromBridge::Unknown(_) => Incoming::Ignored,
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
        Ignored,
        Reconcile,
        Malformed,
    }

    #[test]
    fn events_are_filtered_and_other_frames_are_read() {
        let mut filter = EventFilter::for_wrapped(Duration::from_secs(60));
        let mut read = |frame: Value| match read(&frame.to_string(), &mut filter) {
            Incoming::Event(event) => Read::Event(event.value()),
            Incoming::Ignored => Read::Ignored,
            Incoming::Reconcile => Read::Reconcile,
            Incoming::Other(FromBridge::Malformed(_)) => Read::Malformed,
            Incoming::Other(other) => panic!("{other:?}"),
        };
        let event = |kind: &str| json!({"type": kind, "properties": {"sessionID": "ses_1"}});
        let frame = |event: &Value| json!({"event": event, "type": "event"});
        let delta = event("message.part.delta");
        assert_eq!(read(frame(&delta)), Read::Event(Some(delta.clone())));
        assert_eq!(read(frame(&delta)), Read::Ignored);
        let idle = event("session.idle");
        assert_eq!(read(frame(&idle)), Read::Event(Some(idle.clone())));
        assert_eq!(read(frame(&delta)), Read::Event(Some(delta)));
        assert_eq!(read(frame(&event("catalog.updated"))), Read::Ignored);
        assert_eq!(read(json!({"type": "later"})), Read::Ignored);
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
