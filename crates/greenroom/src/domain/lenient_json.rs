//! Reads JSON as JavaScript writes it. A text that was cut inside an emoji contains an unpaired surrogate. JavaScript
//! writes it as `\ud83d`, which strict readers reject. All input from agent servers, plugins and agents is read here,
//! so that one such character does not hide a whole session. Pure.

use serde::de::DeserializeOwned;

/// Reads JSON. An unpaired surrogate is read as the replacement character.
///
/// # Errors
/// If the input is not valid JSON of this shape.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(json).or_else(|error| match repair(json) {
        Some(repair) => serde_json::from_slice(&repair),
        None => Err(error),
    })
}

/// Replaces unpaired surrogates in JSON, keeping its length; none if there are none.
pub fn repair(json: &[u8]) -> Option<Vec<u8>> {
    let mut repaired: Option<Vec<u8>> = None;
    let mut at = 0;
    while at < json.len() {
        at += match (json[at], unit(json, at)) {
            (b'\\', Some(0xD800..0xDC00)) if is_low(unit(json, at + 6)) => 12,
            (b'\\', Some(0xD800..0xE000)) => {
                let repair = repaired.get_or_insert_with(|| json.to_vec());
                repair[at..at + 6].copy_from_slice(b"\\ufffd");
                6
            }
            // An escaped character does not start another escape.
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    repaired
}

fn is_low(unit: Option<u16>) -> bool {
    matches!(unit, Some(0xDC00..0xE000))
}

/// Returns the UTF-16 unit of the escape at `at`, `\u` and four hex digits.
fn unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn text(json: &str) -> Option<String> {
        read::<String>(json.as_bytes()).ok()
    }

    #[test]
    fn unpaired_surrogates_are_replaced() {
        let read = |json: &str| text(json).unwrap();
        assert_eq!(read(r#""a\ud83d b""#), "a\u{fffd} b");
        assert_eq!(read(r#""\ude00\ud83d""#), "\u{fffd}\u{fffd}");
        assert_eq!(read(r#""\ud83d\ude00\ud83d""#), "😀\u{fffd}");
        assert_eq!(read(r#""\ud83d\ud83d\ude00""#), "\u{fffd}😀");
        assert_eq!(read(r#""\uD83D\n\\ud83d""#), "\u{fffd}\n\\ud83d");
    }

    #[test]
    fn valid_json_is_unchanged() {
        for json in [r#""\ud83d\ude00""#, r#""\\ud83d""#, r#""\u00e9\\""#, "[]"] {
            assert_eq!(repair(json.as_bytes()), None, "{json}");
        }
        // Invalid JSON stays invalid.
        for json in [
            r#""\ud83d"#,
            r#""\ud83"#,
            r#"{"a": "\ud83d",}"#,
            "\\",
            "\"\\",
        ] {
            assert!(read::<Value>(json.as_bytes()).is_err(), "{json}");
        }
    }

    proptest! {
        /// The model: texts are sequences of UTF-16 units, as in JavaScript.
        #[test]
        fn any_utf16_text_is_read(units in prop::collection::vec(prop_oneof![
            Just(0xD83D_u16), Just(0xDE00_u16), Just(u16::from(b'\\')), Just(u16::from(b'u')), any::<u16>(),
        ], 0..12)) {
            let written: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let read: Value = read(format!("{{\"text\": \"{written}\"}}").as_bytes()).unwrap();
            prop_assert_eq!(read, json!({"text": String::from_utf16_lossy(&units)}));
        }
    }
}
