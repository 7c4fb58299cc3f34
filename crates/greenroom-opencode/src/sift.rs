//! Decides which events of the stream are passed on. Most of what opencode sends is noise to us; it is dropped before it
//! is parsed in full, and streaming deltas, which only serve as a sign of life, are thinned out. [`crate::events`] owns
//! one per connection.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

/// Sessions whose last delta is remembered; beyond it old ones are forgotten early, which passes a delta too many.
const REMEMBERED: usize = 1024;

/// Types that can concern a session. Anything else (plugins, catalogues, installation, `sync` twins) says nothing to us.
const FAMILIES: [&str; 5] = ["session.", "message.", "todo.", "permission.", "question."];
/// Of those, what can be large and is never a sign of life.
const UNUSED: [&str; 2] = ["session.diff", "session.next."];

/// Just enough of an event to decide by; the rest is skipped without being kept.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    payload: Option<Head<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    properties: Option<HeadProperties<'a>>,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    properties: Option<HeadProperties<'a>>,
}

#[derive(Deserialize)]
struct HeadProperties<'a> {
    #[serde(borrow, rename = "sessionID")]
    session: Option<Cow<'a, str>>,
}

/// What has been passed on lately.
#[derive(Debug)]
pub(crate) struct Sift {
    window: Duration,
    last_delta: HashMap<String, Instant>,
}

impl Sift {
    /// Passes at most one delta per session and `window`.
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            window,
            last_delta: HashMap::new(),
        }
    }

    /// The event, `{id?, type, properties}` without its wrapping, if it is passed on.
    pub(crate) fn sift(&mut self, data: &[u8], now: Instant) -> Option<Value> {
        if let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(data) {
            let (kind, properties) = match envelope.payload {
                Some(head) => (head.kind, head.properties),
                None => (envelope.kind, envelope.properties),
            };
            let session = properties.and_then(|properties| properties.session);
            if !self.wants(kind.as_deref()?, session.as_deref(), now) {
                return None;
            }
            return unwrapped(serde_json::from_slice(data).ok()?);
        }
        // Of a shape the head does not fit: decided by its type alone, the reader of events is tolerant.
        let event = unwrapped(serde_json::from_slice(data).ok()?)?;
        let wanted = event
            .get("type")
            .and_then(Value::as_str)
            .is_some_and(is_relevant);
        wanted.then_some(event)
    }

    fn wants(&mut self, kind: &str, session: Option<&str>, now: Instant) -> bool {
        if !is_relevant(kind) {
            return false;
        }
        let Some(session) = session else { return true };
        if kind != "message.part.delta" {
            // A delta after an idle says that the session works again, so the next one after anything else passes.
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
        if self.last_delta.len() >= REMEMBERED {
            let window = self.window;
            self.last_delta
                .retain(|_, last| now.duration_since(*last) < window);
            if self.last_delta.len() >= REMEMBERED {
                self.last_delta.clear();
            }
        }
        self.last_delta.insert(session.to_owned(), now);
        true
    }
}

fn is_relevant(kind: &str) -> bool {
    FAMILIES.iter().any(|family| kind.starts_with(family))
        && !UNUSED.iter().any(|unused| kind.starts_with(unused))
}

fn unwrapped(mut event: Value) -> Option<Value> {
    match event.get_mut("payload") {
        Some(payload) => Some(payload.take()),
        None => event.is_object().then_some(event),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sift() -> (Sift, Instant) {
        (Sift::new(Duration::from_millis(200)), Instant::now())
    }

    fn wrapped(payload: Value) -> Vec<u8> {
        json!({"directory": "/d", "project": "p", "payload": payload})
            .to_string()
            .into_bytes()
    }

    fn event(kind: &str, session: &str) -> Value {
        json!({"id": "evt_1", "type": kind, "properties": {"sessionID": session, "field": "text"}})
    }

    #[test]
    fn an_event_is_passed_on_without_its_wrapping() {
        let (mut sift, now) = sift();
        let idle = event("session.idle", "ses_1");
        assert_eq!(sift.sift(&wrapped(idle.clone()), now), Some(idle.clone()));
        assert_eq!(sift.sift(idle.to_string().as_bytes(), now), Some(idle));
    }

    #[test]
    fn noise_twins_and_nonsense_are_dropped() {
        let (mut sift, now) = sift();
        let twin = json!({"type": "sync", "syncEvent": {"type": "session.created.1", "data": {}}});
        assert_eq!(sift.sift(&wrapped(twin), now), None);
        for kind in [
            "plugin.added",
            "catalog.updated",
            "server.heartbeat",
            "session.diff",
            "session.next.step",
            "",
        ] {
            assert_eq!(
                sift.sift(&wrapped(event(kind, "ses_1")), now),
                None,
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
            assert_eq!(sift.sift(nonsense.as_bytes(), now), None, "{nonsense}");
        }
    }

    #[test]
    fn an_event_of_another_shape_is_left_to_the_tolerant_reader() {
        let (mut sift, now) = sift();
        let flat =
            json!({"type": "message.part.updated", "properties": {"sessionID": 7, "part": {}}});
        assert_eq!(sift.sift(&wrapped(flat.clone()), now), Some(flat));
        let bare = json!({"type": "session.error", "properties": {"error": {}}});
        assert_eq!(sift.sift(&wrapped(bare.clone()), now), Some(bare));
    }

    #[test]
    fn deltas_are_thinned_out_per_session() {
        let (mut sift, start) = sift();
        let mut at = |millis, session| {
            let delta = wrapped(event("message.part.delta", session));
            sift.sift(&delta, start + Duration::from_millis(millis))
                .is_some()
        };
        assert!(at(0, "ses_1"));
        assert!(!at(10, "ses_1"));
        assert!(at(10, "ses_2"));
        assert!(!at(199, "ses_1"));
        assert!(at(200, "ses_1"));
        assert!(!at(399, "ses_1"));
    }

    #[test]
    fn a_delta_right_after_idle_is_passed_on() {
        let (mut sift, now) = sift();
        let delta = wrapped(event("message.part.delta", "ses_1"));
        assert!(sift.sift(&delta, now).is_some());
        assert!(
            sift.sift(&wrapped(event("session.idle", "ses_1")), now)
                .is_some()
        );
        assert!(
            sift.sift(&delta, now).is_some(),
            "the session works again, which the idle must not hide"
        );
    }

    #[test]
    fn what_is_remembered_of_deltas_is_bounded() {
        let (mut sift, now) = sift();
        for number in 0..5000 {
            assert!(
                sift.sift(
                    &wrapped(event("message.part.delta", &format!("ses_{number}"))),
                    now
                )
                .is_some()
            );
            assert!(sift.last_delta.len() <= REMEMBERED);
        }
    }
}
