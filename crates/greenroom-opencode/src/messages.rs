//! The messages of a session, read from the body of an answer: each message is converted before the next one is parsed.

use std::fmt;

use greenroom::domain::transcript::Message;
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::body::{self, BodyError, TOO_MANY};

/// Maximum number of messages.
const MAX_MESSAGES: usize = 20_000;
/// Maximum number of parts of all messages together.
const MAX_PARTS: usize = 100_000;

/// Reads a body.
///
/// # Errors
/// [`BodyError`] if it has too many elements or is not a list of messages.
pub(crate) async fn read(body: Vec<u8>) -> Result<Vec<Message>, BodyError> {
    body::read::<Messages>(body)
        .await
        .map(|messages| messages.0)
}

struct Messages(Vec<Message>);

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(MessagesVisitor).map(Self)
    }
}

struct MessagesVisitor;

impl<'de> Visitor<'de> for MessagesVisitor {
    type Value = Vec<Message>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Message>, A::Error> {
        let (mut messages, mut parts) = (Vec::new(), 0);
        while let Some(text) = list.next_element::<&RawValue>()? {
            let text = text.get();
            // An element that is not an object holds nothing of a message.
            if !text.starts_with('{') {
                continue;
            }
            if body::needs_too_much(text.as_bytes()) {
                return Err(A::Error::custom(TOO_MANY));
            }
            let mut message: Value = serde_json::from_str(text).map_err(A::Error::custom)?;
            if let Some(Value::Array(list)) = message.get_mut("parts") {
                list.retain(Value::is_object);
                parts += list.len();
            }
            if messages.len() == MAX_MESSAGES || parts > MAX_PARTS {
                return Err(A::Error::custom(TOO_MANY));
            }
            messages.push(Message::read(&message));
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &[u8]) -> Result<Vec<Message>, BodyError> {
        body::parse::<Messages>(body).map(|messages| messages.0)
    }

    #[test]
    fn ordinary_messages_are_read() {
        let body = br#"[{"info": {"id": "msg_1", "role": "user"}, "parts": [{"type": "text", "text": "a,[{\"b"}, 1]}, 7]"#;
        let messages = parse(body).unwrap();
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].parts.len(), 1);
        assert_eq!(messages[0].parts[0].text.as_deref(), Some("a,[{\"b"));
    }

    #[test]
    fn dense_bodies_are_refused_before_they_are_parsed() {
        let repeated = |element: &str, bytes: usize| {
            let list = vec![element; bytes / element.len()].join(",");
            parse(format!("[{list}]").as_bytes())
        };
        for element in ["1", "{}", "[]", "{\"parts\":[]}"] {
            assert_eq!(
                repeated(element, 1 << 20),
                Err(BodyError::TooMany),
                "{element}"
            );
        }
        assert_eq!(
            repeated("{\"info\":{\"id\":\"msg_0000000000\"}}", 1 << 20),
            Err(BodyError::TooMany)
        );
        assert_eq!(repeated("123456789012", 1 << 20), Ok(Vec::new()));
    }

    #[test]
    fn message_that_needs_far_more_memory_than_bytes_is_refused() {
        let with = |element: &str, bytes: usize| {
            let list = vec![element; bytes / element.len()].join(",");
            parse(format!(r#"[{{"info": {{"id": "msg_1"}}, "other": [{list}]}}]"#).as_bytes())
        };
        let small_object = r#"{"a": 12345678901}"#;
        assert_eq!(with(small_object, 2 << 20), Err(BodyError::TooMany));
        assert_eq!(with(small_object, 64 << 10).unwrap().len(), 1);
        let text = format!("\"{}\"", "x".repeat(100));
        assert_eq!(with(&text, 32 << 20).unwrap().len(), 1);
    }

    #[test]
    fn unpaired_surrogate_is_replaced() {
        let body =
            br#"[{"info": {"id": "msg_1"}, "parts": [{"type": "text", "text": "a\ud83d"}]}]"#;
        let messages = parse(body).unwrap();
        assert_eq!(messages[0].parts[0].text.as_deref(), Some("a\u{fffd}"));
    }

    #[test]
    fn other_values_are_no_messages() {
        for body in ["{}", "7", "[", "[{]"] {
            assert!(
                matches!(parse(body.as_bytes()), Err(BodyError::Unreadable(_))),
                "{body}"
            );
        }
        let deep = "[".repeat(10_000);
        assert!(matches!(
            parse(deep.as_bytes()),
            Err(BodyError::Unreadable(_))
        ));
    }
}
