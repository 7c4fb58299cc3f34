//! Selects the server events to forward, while decoding them. Most events are irrelevant, and streaming deltas, which
//! only are a sign of life, are rate-limited. Each reader of a connection (the event stream, a bridge) owns one filter.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::decoded_event::{DecodedEvent, Object, Properties, RawEvent, Text};
use super::lenient_json;
use crate::maps::Map;

/// The longest id of a session, in bytes. Events with a longer one are dropped.
const MAX_ID_BYTES: usize = 256;
/// The number of sessions whose last delta is remembered. Beyond it old ones are evicted early, which forwards an
/// additional delta.
const MAX_SESSIONS: usize = 1024;

/// Prefixes of event types that can concern a session or an instance. All others (plugins, catalogues, installation, `sync` twins) are
/// irrelevant.
const RELEVANT_PREFIXES: [&str; 7] = [
    "session.",
    "message.",
    "todo.",
    "permission.",
    "question.",
    "server.instance.disposed",
    "global.disposed",
];
/// Prefixes of event types among them that can be large and are never a sign of life.
const IGNORED_PREFIXES: [&str; 2] = ["session.diff", "session.next."];

/// An event with or without its wrapping.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, alias = "event")]
    payload: Option<Object<RawEvent<'a>>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    properties: Option<Object<Properties<'a>>>,
}

/// An event to forward.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardedEvent<'a> {
    /// The decoded event.
    pub decoded: DecodedEvent,
    text: &'a [u8],
    wrapped: bool,
}

impl ForwardedEvent<'_> {
    /// Returns the complete event, `{id?, type, properties}`, without its wrapping; none if the text is not valid JSON.
    pub fn value(&self) -> Option<Value> {
        unwrapped(self.text, self.wrapped)
    }
}

/// The result of filtering one event.
#[derive(Debug, Clone, PartialEq)]
pub enum FilteredEvent<'a> {
    /// The event is forwarded.
    Forwarded(ForwardedEvent<'a>),
    /// The event is irrelevant, or a delta within the window.
    Dropped,
    /// The text is not a valid event.
    Unreadable,
}

/// The filter, with the times of the last forwarded deltas.
#[derive(Debug)]
pub struct EventFilter {
    window: Duration,
    wrapped: bool,
    last_delta: Map<String, Instant>,
}

impl EventFilter {
    /// Creates a filter that forwards at most one delta per session and `window`. Events may be wrapped, as `payload`
    /// or `event`.
    pub fn new(window: Duration) -> Self {
        Self {
            window,
            wrapped: false,
            last_delta: Map::default(),
        }
    }

    /// Creates a filter for a source that wraps every event. An unwrapped event is unreadable.
    pub fn for_wrapped(window: Duration) -> Self {
        Self {
            wrapped: true,
            ..Self::new(window)
        }
    }

    /// Filters one event in JSON.
    pub fn filter<'a>(&mut self, text: &'a [u8], now: Instant) -> FilteredEvent<'a> {
        let wrapped = self.wrapped;
        let forwarded = |decoded| {
            FilteredEvent::Forwarded(ForwardedEvent {
                decoded,
                text,
                wrapped,
            })
        };
        if let Ok(Object(envelope)) = serde_json::from_slice::<Object<Envelope<'_>>>(text) {
            let raw = match envelope.payload {
                Some(Object(raw)) => raw,
                None if wrapped => return FilteredEvent::Unreadable,
                None => RawEvent {
                    kind: envelope.kind,
                    properties: envelope.properties,
                },
            };
            let properties = raw.properties.as_ref();
            let session = properties.and_then(|properties| properties.0.session.as_deref());
            let kind = raw.kind.as_deref();
            if !kind.is_some_and(|kind| self.is_wanted(kind, session, now)) {
                return FilteredEvent::Dropped;
            }
            if let Some(decoded) = raw.decoded() {
                return forwarded(decoded);
            }
            return match unwrapped(text, wrapped) {
                Some(event) => forwarded(DecodedEvent::read(&event)),
                None => FilteredEvent::Unreadable,
            };
        }
        // An unusual shape: the type alone decides, and the tolerant reader decodes it.
        let Some(event) = unwrapped(text, wrapped) else {
            return FilteredEvent::Unreadable;
        };
        match event.get("type").and_then(Value::as_str) {
            Some(kind) if is_relevant(kind) => forwarded(DecodedEvent::read(&event)),
            Some(_) => FilteredEvent::Dropped,
            None => FilteredEvent::Unreadable,
        }
    }

    fn is_wanted(&mut self, kind: &str, session: Option<&str>, now: Instant) -> bool {
        if !is_relevant(kind) {
            return false;
        }
        let Some(session) = session else { return true };
        // Longer than any id of opencode: the filter keeps ids.
        if session.len() > MAX_ID_BYTES {
            return false;
        }
        if kind != "message.part.delta" {
            // A delta after an idle shows that the session is busy again, so the next delta after any other event is
            // forwarded.
            self.last_delta.remove(session);
            return true;
        }
        if self
            .last_delta
            .get(session)
            .is_some_and(|last| now.duration_since(*last) < self.window)
        {
            return false;
        }
        if self.last_delta.len() >= MAX_SESSIONS {
            let window = self.window;
            self.last_delta
                .retain(|_, last| now.duration_since(*last) < window);
            if self.last_delta.len() >= MAX_SESSIONS {
                self.last_delta.clear();
            }
        }
        self.last_delta.insert(session.to_owned(), now);
        true
    }
}

fn unwrapped(text: &[u8], wrapped: bool) -> Option<Value> {
    let mut event: Value = lenient_json::read(text).ok()?;
    let inner = ["payload", "event"]
        .iter()
        .find_map(|wrapping| event.get_mut(*wrapping).map(Value::take));
    let event = match inner {
        Some(inner) => inner,
        None if wrapped => return None,
        None => event,
    };
    event.is_object().then_some(event)
}

fn is_relevant(kind: &str) -> bool {
    RELEVANT_PREFIXES
        .iter()
        .any(|prefix| kind.starts_with(prefix))
        && !IGNORED_PREFIXES
            .iter()
            .any(|ignored| kind.starts_with(ignored))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter() -> (EventFilter, Instant) {
        (EventFilter::new(Duration::from_millis(200)), Instant::now())
    }

    fn wrapped(payload: Value) -> Vec<u8> {
        json!({"directory": "/d", "project": "p", "payload": payload})
            .to_string()
            .into_bytes()
    }

    fn event(kind: &str, session: &str) -> Value {
        json!({"id": "evt_1", "type": kind, "properties": {"sessionID": session, "field": "text"}})
    }

    fn is_forwarded(filtered: FilteredEvent<'_>) -> bool {
        matches!(filtered, FilteredEvent::Forwarded(_))
    }

    /// Returns the complete forwarded event, and checks its decoded form.
    fn forwarded_value(filtered: FilteredEvent<'_>) -> Option<Value> {
        let FilteredEvent::Forwarded(forwarded) = filtered else {
            return None;
        };
        let value = forwarded.value()?;
        assert_eq!(forwarded.decoded, DecodedEvent::read(&value));
        Some(value)
    }

    #[test]
    fn unwrapped_events_are_unreadable_where_wrapping_is_required() {
        let mut filter = EventFilter::for_wrapped(Duration::from_millis(100));
        let now = Instant::now();
        let idle = event("session.idle", "ses_1");
        let frame = json!({"type": "event", "event": idle}).to_string();
        assert_eq!(
            forwarded_value(filter.filter(frame.as_bytes(), now)),
            Some(idle.clone())
        );
        let noise = json!({"type": "event", "event": event("plugin.added", "ses_1")}).to_string();
        assert_eq!(filter.filter(noise.as_bytes(), now), FilteredEvent::Dropped);
        for none in [
            json!({"type": "event"}),
            json!({"type": "event", "event": 7}),
            idle,
        ] {
            let none = none.to_string();
            assert_eq!(
                filter.filter(none.as_bytes(), now),
                FilteredEvent::Unreadable,
                "{none}"
            );
        }
    }

    #[test]
    fn wrapping_is_removed() {
        let (mut filter, now) = filter();
        let idle = event("session.idle", "ses_1");
        for data in [wrapped(idle.clone()), idle.to_string().into_bytes()] {
            assert_eq!(
                forwarded_value(filter.filter(&data, now)),
                Some(idle.clone())
            );
        }
    }

    #[test]
    fn irrelevant_and_invalid_events_are_dropped() {
        let (mut filter, now) = filter();
        let twin = json!({"type": "sync", "syncEvent": {"type": "session.created.1", "data": {}}});
        assert_eq!(filter.filter(&wrapped(twin), now), FilteredEvent::Dropped);
        for kind in [
            "plugin.added",
            "catalog.updated",
            "server.heartbeat",
            "session.diff",
            "session.next.step",
            "",
        ] {
            assert_eq!(
                filter.filter(&wrapped(event(kind, "ses_1")), now),
                FilteredEvent::Dropped,
                "{kind}"
            );
        }
        for nonsense in [
            "",
            "[]",
            "7",
            "{",
            "null",
            r#"{"payload":null}"#,
            r#"{"payload":7}"#,
            r#"{"type":[]}"#,
        ] {
            assert!(
                !is_forwarded(filter.filter(nonsense.as_bytes(), now)),
                "{nonsense}"
            );
        }
    }

    #[test]
    fn unusual_shape_is_decoded_by_tolerant_reader() {
        let (mut filter, now) = filter();
        let flat =
            json!({"type": "message.part.updated", "properties": {"sessionID": 7, "part": {}}});
        assert_eq!(
            forwarded_value(filter.filter(&wrapped(flat.clone()), now)),
            Some(flat)
        );
        let bare = json!({"type": "session.error", "properties": {"error": {}}});
        assert_eq!(
            forwarded_value(filter.filter(&wrapped(bare.clone()), now)),
            Some(bare)
        );
    }

    #[test]
    fn deltas_are_limited_per_session() {
        let (mut filter, start) = filter();
        let mut at = |millis, session| {
            let delta = wrapped(event("message.part.delta", session));
            is_forwarded(filter.filter(&delta, start + Duration::from_millis(millis)))
        };
        assert!(at(0, "ses_1"));
        assert!(!at(10, "ses_1"));
        assert!(at(10, "ses_2"));
        assert!(!at(199, "ses_1"));
        assert!(at(200, "ses_1"));
        assert!(!at(399, "ses_1"));
    }

    #[test]
    fn first_delta_after_idle_is_forwarded() {
        let (mut filter, now) = filter();
        let delta = wrapped(event("message.part.delta", "ses_1"));
        assert!(is_forwarded(filter.filter(&delta, now)));
        assert!(is_forwarded(
            filter.filter(&wrapped(event("session.idle", "ses_1")), now)
        ));
        assert!(
            is_forwarded(filter.filter(&delta, now)),
            "the session works again, which the idle must not hide"
        );
    }

    #[test]
    fn remembered_sessions_are_bounded() {
        let (mut filter, now) = filter();
        for number in 0..5000 {
            assert!(is_forwarded(filter.filter(
                &wrapped(event("message.part.delta", &format!("ses_{number}"))),
                now
            )));
            assert!(filter.last_delta.len() <= MAX_SESSIONS);
        }
    }
}
