//! Interprets the bodies of answers, which are foreign: the number of their elements and the memory of each value are bounded
//! before they are parsed, and a large body is parsed on a thread of its own.

use greenroom::domain::lenient_json;
use serde::de::DeserializeOwned;

/// Bodies of at least this size are parsed on another thread.
const LARGE_BODY: usize = 256 << 10;
/// Number of JSON elements that is accepted in each body.
const FREE_ELEMENTS: usize = 50_000;
/// Minimum average size of the elements of a larger body, in bytes.
const MIN_ELEMENT_BYTES: usize = 8;
/// Memory in bytes that each value may need while it is converted.
const FREE_MEMORY: usize = 16 << 20;
/// Memory that a larger value may need, as a multiple of its size.
const MAX_GROWTH: usize = 4;
/// Memory of an element of a list or object, of an object without its elements, and of a text without its bytes.
const ELEMENT_MEMORY: usize = 48;
const OBJECT_MEMORY: usize = 640;
const TEXT_MEMORY: usize = 32;

/// Why a body is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It has too many elements.
    TooMany,
    /// It is not valid, with the problem.
    Unreadable(String),
}

impl BodyError {
    /// Returns the problem as the end of a sentence.
    pub(crate) fn problem(&self) -> &str {
        match self {
            Self::TooMany => "it has too many elements",
            Self::Unreadable(problem) => problem,
        }
    }
}

/// The text of an error of a deserializer that stands for [`BodyError::TooMany`].
pub(crate) const TOO_MANY: &str = "too many elements";

/// Parses a body whose type bounds its own memory.
///
/// # Errors
/// [`BodyError`] if it has too many elements or is not valid.
pub(crate) async fn read<T>(body: Vec<u8>) -> Result<T, BodyError>
where
    T: DeserializeOwned + Send + 'static,
{
    on_thread(body, |body| parse(body)).await
}

/// Parses a body into a value.
///
/// # Errors
/// [`BodyError`] if it has too many elements, needs too much memory, or is not valid.
pub(crate) async fn read_value(body: Vec<u8>) -> Result<serde_json::Value, BodyError> {
    let parse = |body: &[u8]| {
        if needs_too_much(body) {
            return Err(BodyError::TooMany);
        }
        parse(body)
    };
    on_thread(body, parse).await
}

async fn on_thread<T: Send + 'static>(
    body: Vec<u8>,
    parse: impl FnOnce(&[u8]) -> Result<T, BodyError> + Send + 'static,
) -> Result<T, BodyError> {
    if body.len() < LARGE_BODY {
        return parse(&body);
    }
    let read = tokio::task::spawn_blocking(move || parse(&body)).await;
    read.unwrap_or_else(|error| Err(BodyError::Unreadable(error.to_string())))
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    if count_elements(body) > FREE_ELEMENTS.max(body.len() / MIN_ELEMENT_BYTES) {
        return Err(BodyError::TooMany);
    }
    lenient_json::read::<T>(body).map_err(|error| {
        let text = error.to_string();
        if text.starts_with(TOO_MANY) {
            BodyError::TooMany
        } else {
            BodyError::Unreadable(text)
        }
    })
}

/// Returns true if a parsed value needs far more memory than its text.
pub(crate) fn needs_too_much(json: &[u8]) -> bool {
    memory(json) > FREE_MEMORY.max(json.len().saturating_mul(MAX_GROWTH))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dense_value_is_refused_before_it_is_parsed() {
        let list = |element: &str, bytes: usize| {
            let list = vec![element; bytes / element.len()].join(",");
            format!("[{list}]").into_bytes()
        };
        for element in ["1", "{}", "[]", r#"{"a": 12345678901}"#] {
            let read = read_value(list(element, 2 << 20)).await;
            assert_eq!(read, Err(BodyError::TooMany), "{element}");
        }
        let text = format!("\"{}\"", "x".repeat(100));
        assert!(read_value(list(&text, 8 << 20)).await.is_ok());
        assert!(read_value(list(r#"{"a": 1}"#, 64 << 10)).await.is_ok());
        assert!(matches!(
            read_value(b"[1".to_vec()).await,
            Err(BodyError::Unreadable(_))
        ));
    }
}
