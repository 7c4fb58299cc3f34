//! A server event, decoded from its text in one pass and limited to the fields that the system uses. Most events are
//! pieces of streamed text, of which only two names are kept. For texts of an unusual shape the tolerant reader
//! ([`SessionEvent::read`]) decides. Pure.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::ids::{MessageId, SessionId};
use super::lenient_json;
use super::session_event::{self, SessionEvent, SessionEventKind, session_id};
use super::transcript::Message;

/// A server event, limited to the fields in use.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedEvent {
    /// The session that the event names.
    pub session: Option<SessionId>,
    /// Whether the session is busy, if the event reports it.
    pub works: Option<bool>,
    /// The kind of event; none if it is irrelevant.
    pub kind: Option<SessionEventKind>,
    /// The end of an instance, if the event reports one.
    pub disposed: Option<InstanceDisposed>,
}

/// The end of an instance of the agent server. The server aborts the running sessions of the instance itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceDisposed {
    /// The directory of the instance; none for every instance of the server.
    pub directory: Option<Arc<str>>,
}

impl DecodedEvent {
    /// Decodes an event, `{"type", "properties"}`.
    pub fn read(event: &Value) -> DecodedEvent {
        let status = event
            .pointer("/properties/status/type")
            .and_then(Value::as_str);
        DecodedEvent {
            session: session_id(event),
            works: event
                .get("type")
                .and_then(Value::as_str)
                .and_then(|kind| works(kind, status)),
            kind: SessionEvent::read(event).map(|event| event.kind),
            disposed: event.get("type").and_then(Value::as_str).and_then(|kind| {
                let directory = event.pointer("/properties/directory");
                disposed(kind, directory.and_then(Value::as_str))
            }),
        }
    }

    /// Decodes an event from its text; none if the text is not valid JSON.
    pub fn read_text(json: &[u8]) -> Option<DecodedEvent> {
        if let Ok(Object(raw)) = serde_json::from_slice::<Object<RawEvent<'_>>>(json)
            && let Some(decoded) = raw.decoded()
        {
            return Some(decoded);
        }
        Some(Self::read(&lenient_json::read(json).ok()?))
    }

    /// Returns the session event, if the event names a session and is relevant.
    pub fn event(self) -> Option<SessionEvent> {
        Some(SessionEvent {
            session: self.session?,
            kind: self.kind?,
        })
    }
}

fn disposed(kind: &str, directory: Option<&str>) -> Option<InstanceDisposed> {
    match kind {
        "server.instance.disposed" => Some(InstanceDisposed {
            directory: Some(Arc::from(directory?)),
        }),
        "global.disposed" => Some(InstanceDisposed { directory: None }),
        _ => None,
    }
}

fn works(kind: &str, status: Option<&str>) -> Option<bool> {
    match (kind, status) {
        ("session.idle" | "session.error", _) | ("session.status", Some("idle")) => Some(false),
        ("session.status", Some(_)) => Some(true),
        _ => None,
    }
}

/// A string of the input, borrowed if it contains no escapes. Without its own type, serde would copy it in an `Option`.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A value that is read from an object only: serde reads a struct from a list too.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_map(Object(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<PhantomData<T>> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, fields: M) -> Result<Object<T>, M::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
    }
}

/// The raw event; unknown fields are skipped.
#[derive(Deserialize)]
pub(super) struct RawEvent<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) properties: Option<Object<Properties<'a>>>,
}

#[derive(Deserialize)]
pub(super) struct Properties<'a> {
    #[serde(borrow, rename = "sessionID")]
    pub(super) session: Option<Text<'a>>,
    #[serde(borrow, rename = "messageID")]
    message: Option<Text<'a>>,
    #[serde(borrow)]
    directory: Option<Text<'a>>,
    // Null counts as present.
    #[serde(default, deserialize_with = "present")]
    info: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    part: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    status: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    error: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(field).map(Some)
}

impl RawEvent<'_> {
    /// Returns the decoded event; none if the tolerant reader must decide.
    pub(super) fn decoded(self) -> Option<DecodedEvent> {
        let (kind, Object(properties)) = (self.kind?, self.properties?);
        let event_kind = match &*kind {
            "message.part.delta" => Some(SessionEventKind::Delta {
                message: properties.message.as_deref().map(MessageId::from),
            }),
            "message.part.updated" => Some(session_event::part(properties.part.as_ref()?)),
            "message.updated" => {
                let info = properties.info.as_ref();
                info.map(|info| SessionEventKind::Message(Box::new(Message::read_info(info))))
            }
            "todo.updated" => Some(SessionEventKind::Work),
            "session.idle" => Some(SessionEventKind::Idle),
            "session.deleted" => Some(SessionEventKind::Deleted),
            "session.updated" => properties.info.as_ref().map(session_event::updated),
            "session.error" => Some(session_event::error(
                properties.error.as_ref().unwrap_or(&Value::Null),
            )),
            "session.status" => properties.status.as_ref().and_then(session_event::status),
            // Rare, with more fields.
            asks if asks.starts_with("permission.") || asks.starts_with("question.") => {
                return None;
            }
            _ => None,
        };
        let status = properties.status.as_ref();
        let status = status.and_then(|status| status.get("type")?.as_str());
        let session = properties.session();
        Some(DecodedEvent {
            disposed: disposed(&kind, properties.directory.as_deref()),
            works: works(&kind, status),
            kind: event_kind.filter(|_| session.is_some()),
            session,
        })
    }
}

impl Properties<'_> {
    fn session(&self) -> Option<SessionId> {
        let nested = |of: &Option<Value>, name: &str| {
            let id = of.as_ref()?.get(name)?.as_str()?;
            Some(SessionId::from(id))
        };
        (self.session.as_deref().map(SessionId::from))
            .or_else(|| nested(&self.info, "sessionID"))
            .or_else(|| nested(&self.part, "sessionID"))
            .or_else(|| nested(&self.info, "id"))
            .filter(|session| !session.as_str().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Any JSON, with the names and texts of events in any position.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "(ses_1|msg_1|busy|retry|idle|text|tool|assistant|\\PC{0,3}|)".prop_map(Value::from),
        ];
        let name =
            "(id|type|sessionID|messageID|info|part|status|error|message|name|data|\\PC{0,2})";
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                4 => prop::collection::hash_map(name, inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn kinds() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "message.updated",
            "message.part.updated",
            "message.part.delta",
            "todo.updated",
            "session.idle",
            "session.deleted",
            "session.updated",
            "session.error",
            "session.status",
            "permission.asked",
            "permission.replied",
            "question.asked",
            "later.kind",
        ])
    }

    /// Events mostly as servers write them.
    fn event() -> impl Strategy<Value = Value> {
        let odd = || prop_oneof![3 => Just(None), 1 => any_json().prop_map(Some)];
        let fields = (odd(), odd(), odd(), odd(), odd(), odd(), odd());
        let named = (kinds(), any::<bool>(), any::<bool>());
        (named, fields).prop_map(|((kind, of_session, of_message), odd)| {
            let mut properties = json!({});
            if of_session {
                properties["sessionID"] = json!("ses_1");
            }
            if of_message {
                properties["messageID"] = json!("msg_1");
            }
            let names = ["info", "part", "status", "error", "sessionID", "requestID"];
            for (name, value) in names
                .into_iter()
                .zip([odd.0, odd.1, odd.2, odd.3, odd.4, odd.5])
            {
                if let Some(value) = value {
                    properties[name] = value;
                }
            }
            json!({"id": "evt_1", "type": kind, "properties": odd.6.unwrap_or(properties)})
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

        /// An event decoded from its text equals the result of the tolerant reader.
        #[test]
        fn text_and_value_decode_equally(event in prop_oneof![9 => event(), 1 => any_json()]) {
            let decoded = DecodedEvent::read_text(event.to_string().as_bytes());
            prop_assert_eq!(decoded.as_ref(), Some(&DecodedEvent::read(&event)));
            prop_assert_eq!(decoded.and_then(DecodedEvent::event), SessionEvent::read(&event));
        }
    }

    #[test]
    fn usual_events_are_decoded_in_one_pass() {
        let session = "\"sessionID\":\"ses_1\"";
        for properties in [
            format!(
                "{{{session},\"messageID\":\"msg_1\",\"field\":\"text\",\"delta\":\"a\\ud83d\"}}"
            ),
            format!("{{{session},\"status\":{{\"type\":\"busy\"}}}}"),
            format!("{{{session},\"info\":{{\"id\":\"msg_1\",\"role\":\"user\"}},\"part\":{{}}}}"),
            format!("{{{session},\"error\":{{\"name\":\"e\",\"data\":{{\"message\":\"m\"}}}}}}"),
        ] {
            for kind in [
                "message.part.delta",
                "session.status",
                "message.updated",
                "session.error",
            ] {
                let text = format!("{{\"type\":\"{kind}\",\"properties\":{properties}}}");
                let raw = serde_json::from_str::<Object<RawEvent<'_>>>(&text).ok();
                let decoded = raw.and_then(|raw| raw.0.decoded());
                assert!(decoded.is_some(), "{text}");
            }
        }
    }

    #[test]
    fn unpaired_surrogate_is_decoded() {
        let text =
            r#"{"type":"session.error","properties":{"sessionID":"ses_1","error":"a\ud83d"}}"#;
        let decoded = DecodedEvent::read_text(text.as_bytes()).and_then(DecodedEvent::event);
        let kind = decoded.expect("it is an event").kind;
        let text = "a\u{fffd}".to_owned();
        assert_eq!(
            kind,
            SessionEventKind::Error {
                aborted: false,
                text
            }
        );
    }

    #[test]
    fn invalid_json_is_none() {
        for text in ["", "{", "{\"type\":\"session.idle\"", "\u{0}"] {
            assert_eq!(DecodedEvent::read_text(text.as_bytes()), None, "{text}");
        }
    }
}
