//! The messages of a session, read from the body of an answer. The body is foreign: its elements are bounded, each message
//! is converted before the next one is read, and a large body is read on a thread of its own.

use std::fmt;

use greenroom::domain::lenient_json;
use greenroom::domain::transcript::Message;
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Bodies of at least this size are read on another thread.
const LARGE_BODY: usize = 256 << 10;
/// Maximum number of messages.
const MAX_MESSAGES: usize = 20_000;
/// Maximum number of parts of all messages together.
const MAX_PARTS: usize = 100_000;
/// Number of JSON elements that is accepted in each body.
const FREE_ELEMENTS: usize = 50_000;
/// Minimum average size of the elements of a larger body, in bytes.
const MIN_ELEMENT_BYTES: usize = 8;
/// Memory in bytes that each message may need while it is converted.
const FREE_MEMORY: usize = 16 << 20;
/// Memory that a larger message may need, as a multiple of its size.
const MAX_GROWTH: usize = 4;
/// Memory of an element of a list or object, of an object without its elements, and of a text without its bytes.
const ELEMENT_MEMORY: usize = 48;
const OBJECT_MEMORY: usize = 640;
const TEXT_MEMORY: usize = 32;

/// Why a body is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MessagesError {
    /// It has too many elements.
    TooMany,
    /// It is not a list of messages.
    Unreadable(String),
}

/// Reads a body.
pub(crate) async fn read(body: Vec<u8>) -> Result<Vec<Message>, MessagesError> {
    if body.len() < LARGE_BODY {
        return parse(&body);
    }
    let read = tokio::task::spawn_blocking(move || parse(&body)).await;
    read.unwrap_or_else(|error| Err(MessagesError::Unreadable(error.to_string())))
}

fn parse(body: &[u8]) -> Result<Vec<Message>, MessagesError> {
    if count_elements(body) > FREE_ELEMENTS.max(body.len() / MIN_ELEMENT_BYTES) {
        return Err(MessagesError::TooMany);
    }
    match lenient_json::read::<Messages>(body) {
        Ok(messages) => Ok(messages.0),
        Err(error) if error.to_string().starts_with(TOO_MANY) => Err(MessagesError::TooMany),
        Err(error) => Err(MessagesError::Unreadable(error.to_string())),
    }
}

/// Returns the number of commas and opening brackets outside of strings.
fn count_elements(json: &[u8]) -> usize {
    let mut elements = 0;
    scan(json, |byte| {
        elements += usize::from(matches!(byte, b',' | b'[' | b'{'));
    });
    elements
}

/// Returns the approximate memory of a parsed value, in bytes.
fn memory(json: &[u8]) -> usize {
    let mut memory = json.len();
    scan(json, |byte| {
        memory += match byte {
            b'{' => OBJECT_MEMORY,
            b',' | b'[' => ELEMENT_MEMORY,
            b'"' => TEXT_MEMORY,
            _ => 0,
        };
    });
    memory
}

/// Visits each byte outside of texts, and the quotation mark at the end of each text.
fn scan(json: &[u8], mut visit: impl FnMut(u8)) {
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => {
                is_text = !is_text;
                if !is_text {
                    visit(b'"');
                }
            }
            _ if is_text => {}
            byte => visit(*byte),
        }
    }
}

const TOO_MANY: &str = "too many elements";

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
            if memory(text.as_bytes()) > FREE_MEMORY.max(text.len() * MAX_GROWTH) {
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
                Err(MessagesError::TooMany),
                "{element}"
            );
        }
        assert_eq!(
            repeated("{\"info\":{\"id\":\"msg_0000000000\"}}", 1 << 20),
            Err(MessagesError::TooMany)
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
        assert_eq!(with(small_object, 2 << 20), Err(MessagesError::TooMany));
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
                matches!(parse(body.as_bytes()), Err(MessagesError::Unreadable(_))),
                "{body}"
            );
        }
        let deep = "[".repeat(10_000);
        assert!(matches!(
            parse(deep.as_bytes()),
            Err(MessagesError::Unreadable(_))
        ));
    }
}
