//! Generates the JSON schema of the configuration file from the key table. The bounds of durations are in the
//! descriptions, because a pattern cannot compare.

use serde_json::{Map, Value, json};

use super::keys::{KEYS, Key};
use super::settings::Settings;
use super::value::MAX_TEXT_BYTES;
use super::value_type::ValueType;

/// A duration: `3m`, `1m 10s`, `500ms`.
const DURATION: &str = r"^\s*(([0-9]+(\.[0-9]+)?\s*(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|mins|min|m|hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y)\s*)+|0\s*)$";
/// No control characters and no replacement characters.
const PLAIN: &str = r"^[^\u0000-\u001f\u007f-\u009f\ufffd]*$";
/// The same, and not blank.
const NAME: &str = r"^[^\u0000-\u001f\u007f-\u009f\ufffd]*[^\s\u0000-\u001f\u007f-\u009f\ufffd][^\u0000-\u001f\u007f-\u009f\ufffd]*$";

/// Returns the schema.
pub fn schema() -> Value {
    let mut root = table_schema();
    let defaults = Settings::default();
    for key in KEYS {
        let mut node = &mut root;
        let mut parts: Vec<&str> = key.name.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            node = &mut node["properties"][part];
            if node.is_null() {
                *node = table_schema();
            }
        }
        node["properties"][last] = key_schema(key, &defaults);
    }
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    root["title"] = json!("Greenroom configuration");
    root
}

fn table_schema() -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": {} })
}

fn key_schema(key: &Key, defaults: &Settings) -> Value {
    let (mut schema, bounds) = value_schema(key.field.value_type);
    let description = match bounds {
        Some(bounds) => format!("{} ({bounds})", key.description),
        None => key.description.to_owned(),
    };
    if key.has_entries() {
        schema = json!({
            "type": "object",
            "propertyNames": { "minLength": 1, "maxLength": 256, "pattern": NAME },
            "additionalProperties": schema,
        });
    } else if let Ok(default) = serde_json::to_value((key.field.get)(defaults)) {
        schema["default"] = default;
    }
    schema["description"] = json!(description);
    schema
}

/// Returns the schema of a value, and the bounds that a schema cannot express.
fn value_schema(value_type: ValueType) -> (Value, Option<String>) {
    let plain = json!({ "type": "string", "maxLength": MAX_TEXT_BYTES, "pattern": PLAIN });
    match value_type {
        ValueType::Text { pattern: None } => (plain, None),
        ValueType::Text {
            pattern: Some(pattern),
        } => (
            json!({ "type": "string", "maxLength": MAX_TEXT_BYTES, "allOf": [
                { "pattern": PLAIN }, { "pattern": pattern },
            ] }),
            None,
        ),
        ValueType::Count { min, max } => (
            json!({ "type": "integer", "minimum": min, "maximum": max }),
            None,
        ),
        ValueType::Flag => (json!({ "type": "boolean" }), None),
        ValueType::Duration { min, max, zero } => {
            let bounds = format!(
                "from {} to {}{}",
                humantime::format_duration(min),
                humantime::format_duration(max),
                if zero { ", or 0" } else { "" }
            );
            let mut schemas = vec![json!({ "type": "string", "pattern": DURATION })];
            if zero {
                schemas.push(json!({ "type": "integer", "const": 0 }));
            }
            (json!({ "anyOf": schemas }), Some(bounds))
        }
        ValueType::Choice(names) => (json!({ "type": "string", "enum": names }), None),
        ValueType::Rules => {
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
