//! The JSON schema of the configuration file, made from the table of keys. It says what kind of value each key takes; the
//! bounds of durations are told in words, since a pattern cannot compare.

use serde_json::{Map, Value, json};

use super::keys::{KEYS, Key};
use super::kinds::Takes;
use super::settings::Settings;
use super::value::LONGEST_TEXT;

/// What a duration looks like: `3m`, `1m 10s`, `500ms`.
const DURATION: &str = r"^\s*(([0-9]+(\.[0-9]+)?\s*(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|mins|min|m|hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y)\s*)+|0\s*)$";
/// No control characters, and not what stands for bytes that are no text.
const PLAIN: &str = r"^[^\u0000-\u001f\u007f-\u009f\ufffd]*$";
/// The same, and not blank.
const NAME: &str = r"^[^\u0000-\u001f\u007f-\u009f\ufffd]*[^\s\u0000-\u001f\u007f-\u009f\ufffd][^\u0000-\u001f\u007f-\u009f\ufffd]*$";

/// The schema.
pub fn schema() -> Value {
    let mut top = group();
    let defaults = Settings::default();
    for key in KEYS {
        let mut place = &mut top;
        let mut parts: Vec<&str> = key.name.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            place = &mut place["properties"][part];
            if place.is_null() {
                *place = group();
            }
        }
        place["properties"][last] = of_key(key, &defaults);
    }
    top["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    top["title"] = json!("Greenroom configuration");
    top
}

fn group() -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": {} })
}

fn of_key(key: &Key, defaults: &Settings) -> Value {
    let (mut shape, bounds) = of_value(key.field.takes);
    let about = match bounds {
        Some(bounds) => format!("{} ({bounds})", key.about),
        None => key.about.to_owned(),
    };
    if key.is_named() {
        shape = json!({
            "type": "object",
            "propertyNames": { "minLength": 1, "maxLength": 256, "pattern": NAME },
            "additionalProperties": shape,
        });
    } else if let Ok(default) = serde_json::to_value((key.field.get)(defaults)) {
        shape["default"] = default;
    }
    shape["description"] = json!(about);
    shape
}

/// The shape of a value, and what can only be said in words.
fn of_value(takes: Takes) -> (Value, Option<String>) {
    let plain = json!({ "type": "string", "maxLength": LONGEST_TEXT, "pattern": PLAIN });
    match takes {
        Takes::Text { pattern: None } => (plain, None),
        Takes::Text {
            pattern: Some(pattern),
        } => (
            json!({ "type": "string", "maxLength": LONGEST_TEXT, "allOf": [
                { "pattern": PLAIN }, { "pattern": pattern },
            ] }),
            None,
        ),
        Takes::Count { min, max } => (
            json!({ "type": "integer", "minimum": min, "maximum": max }),
            None,
        ),
        Takes::Switch => (json!({ "type": "boolean" }), None),
        Takes::Time { min, max, zero } => {
            let bounds = format!(
                "from {} to {}{}",
                humantime::format_duration(min),
                humantime::format_duration(max),
                if zero { ", or 0" } else { "" }
            );
            let mut shapes = vec![json!({ "type": "string", "pattern": DURATION })];
            if zero {
                shapes.push(json!({ "type": "integer", "const": 0 }));
            }
            (json!({ "anyOf": shapes }), Some(bounds))
        }
        Takes::Choice(names) => (json!({ "type": "string", "enum": names }), None),
        Takes::Rules => {
            let names = json!({ "type": "array", "maxItems": 100, "items": plain });
            let mut lists = Map::new();
            lists.insert("deny".to_owned(), names.clone());
            lists.insert("allow".to_owned(), names);
            (
                json!({ "type": "object", "additionalProperties": false, "properties": lists }),
                None,
            )
        }
    }
}
