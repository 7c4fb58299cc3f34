//! Imports the `background_task` block of an `oh-my-opencode.json(c)` as Greenroom keys. Fields without a counterpart
//! are listed with the reason.

use std::time::Duration;

use greenroom::domain::task::cut;
use jsonc_parser::ParseOptions;
use serde_json::{Map, Value};

use super::loader::{printable_name, validate};
use super::value_type::duration_value;

/// The name of the block.
const BLOCK_NAME: &str = "background_task";

/// The result of an import.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Imported {
    /// Keys with their values, in the order of the key table.
    pub keys: Vec<(&'static str, toml::Value)>,
    /// Fields that were not imported, with the reason.
    pub skipped: Vec<(String, String)>,
}

/// Why an import failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The text is not valid JSON, even with comments and trailing commas.
    #[error("not valid JSON: {0}")]
    InvalidJson(String),
    /// The file has no block to import.
    #[error("no `background_task` block")]
    MissingBlock,
    /// A field has an invalid value.
    #[error("`{field}`: {problem}")]
    Invalid {
        /// The field.
        field: String,
        /// The problem with the value.
        problem: String,
    },
}

/// How a field maps to a key.
enum Mapping {
    /// A number, unchanged.
    Count(&'static str),
    /// A duration in milliseconds.
    Millis(&'static str),
    /// Numbers by name.
    Counts(&'static str),
    /// No counterpart; the text is the reason.
    Nothing(&'static str),
}

/// All known fields of the block.
const FIELDS: &[(&str, Mapping)] = &[
    ("defaultConcurrency", Mapping::Count("limits.default")),
    ("maxBackgroundAgents", Mapping::Count("limits.max")),
    ("providerConcurrency", Mapping::Counts("limits.providers")),
    ("modelConcurrency", Mapping::Counts("limits.models")),
    ("staleTimeoutMs", Mapping::Millis("lifecycle.stale_timeout")),
    ("taskTtlMs", Mapping::Millis("lifecycle.task_ttl")),
    (
        "taskCleanupDelayMs",
        Mapping::Millis("lifecycle.keep_ended"),
    ),
    ("maxDepth", Mapping::Count("safety.max_depth")),
    ("maxToolCalls", Mapping::Count("safety.max_tool_calls")),
    (
        "circuitBreaker.maxToolCalls",
        Mapping::Count("safety.max_tool_calls"),
    ),
    (
        "circuitBreaker.consecutiveThreshold",
        Mapping::Count("safety.repeated_tool_calls"),
    ),
    (
        "circuitBreaker.enabled",
        Mapping::Nothing("the safety limits always hold; raise them with the keys of `safety`"),
    ),
    (
        "messageStalenessTimeoutMs",
        Mapping::Nothing(
            "a task that never answers is ended by `lifecycle.not_taken_up` and `lifecycle.stale_timeout`",
        ),
    ),
    (
        "sessionGoneTimeoutMs",
        Mapping::Nothing("a session that has gone is noticed by asking for it"),
    ),
    (
        "syncPollTimeoutMs",
        Mapping::Nothing("nothing here waits for a task by polling"),
    ),
    (
        "maxDescendants",
        Mapping::Nothing(
            "there is no such limit; `limits.max` and `safety.max_depth` bound a tree",
        ),
    ),
];

/// Imports the block of a file.
///
/// # Errors
/// Fails if the text is not valid JSON, has no such block, or a field has an invalid value.
pub fn import(text: &str) -> Result<Imported, ImportError> {
    let root = parse(text)?;
    // The newer file format keeps opencode's settings in a block of their own.
    let block = root
        .get(BLOCK_NAME)
        .or_else(|| root.get("[opencode]")?.get(BLOCK_NAME));
    let block = block.ok_or(ImportError::MissingBlock)?;
    let Value::Object(block) = block else {
        return Err(ImportError::Invalid {
            field: BLOCK_NAME.to_owned(),
            problem: "expected an object".to_owned(),
        });
    };
    let mut imported = Imported::default();
    for (field, value) in flatten(block) {
        match FIELDS.iter().find(|(name, _)| *name == field) {
            None => imported
                .skipped
                .push((cut(&field, 100).to_owned(), "an unknown field".to_owned())),
            Some((_, Mapping::Nothing(why))) => {
                imported.skipped.push((field, (*why).to_owned()));
            }
            Some((
                _,
                mapping @ (Mapping::Count(key) | Mapping::Millis(key) | Mapping::Counts(key)),
            )) => {
                let value = convert(mapping, value)
                    .and_then(|value| validate(key, &value).map(|()| value))
                    .map_err(|problem| ImportError::Invalid {
                        field: format!("{BLOCK_NAME}.{field}"),
                        problem,
                    })?;
                // The circuit breaker's number is the newer field and overrides the general one.
                imported.keys.retain(|(known, _)| known != key);
                imported.keys.push((key, value));
            }
        }
    }
    Ok(imported)
}

fn parse(text: &str) -> Result<Value, ImportError> {
    jsonc_parser::parse_to_serde_value(text, &ParseOptions::default())
        .map_err(|error| ImportError::InvalidJson(error.to_string()))
}

/// Returns the fields in table order; fields of the circuit breaker are prefixed with its name.
fn flatten(block: &Map<String, Value>) -> Vec<(String, &Value)> {
    let mut fields = Vec::new();
    for (name, value) in block {
        match value {
            Value::Object(below) if name == "circuitBreaker" => {
                fields.extend(
                    below
                        .iter()
                        .map(|(field, value)| (format!("{name}.{field}"), value)),
                );
            }
            _ => fields.push((name.clone(), value)),
        }
    }
    let position = |name: &str| FIELDS.iter().position(|(known, _)| *known == name);
    fields.sort_by_key(|(name, _)| position(name).unwrap_or(FIELDS.len()));
    fields
}

fn convert(mapping: &Mapping, value: &Value) -> Result<toml::Value, String> {
    match mapping {
        Mapping::Counts(_) => {
            let Value::Object(entries) = value else {
                return Err("expected an object of numbers by name".to_owned());
            };
            let entries = entries.iter().map(|(name, value)| {
                let number =
                    integer(value).map_err(|problem| format!("{:?}: {problem}", cut(name, 60)))?;
                Ok((name.clone(), toml::Value::Integer(number)))
            });
            entries
                .collect::<Result<_, String>>()
                .map(toml::Value::Table)
        }
        Mapping::Millis(_) => {
            let millis = u64::try_from(integer(value)?)
                .map_err(|_| "expected a number of milliseconds".to_owned())?;
            Ok(duration_value(Duration::from_millis(millis)))
        }
        Mapping::Count(_) | Mapping::Nothing(_) => Ok(toml::Value::Integer(integer(value)?)),
    }
}

/// Reads an integer; JSON has one type for `5` and `5.0`.
fn integer(value: &Value) -> Result<i64, String> {
    let number = value.as_i64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
        // Exact up to this number; larger ones exceed every bound.
        (number.abs() < 9e15).then_some(number as i64)
    });
    number.ok_or_else(|| {
        let found = value.to_string();
        format!("expected a whole number, found {}", cut(&found, 60))
    })
}

/// Returns the keys as a configuration file, with the skipped fields as comments.
pub fn toml_text(imported: &Imported) -> String {
    let mut text = String::new();
    let mut group = "";
    let mut keys = imported.keys.clone();
    // TOML allows each table only once.
    keys.sort_by_key(|(key, _)| key.split('.').next());
    for (key, value) in &keys {
        let (above, name) = key.split_once('.').unwrap_or(("", key));
        if above != group {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}[{above}]\n"));
            group = above;
        }
        text.push_str(&format!("{name} = {value}\n"));
    }
    for (nth, (field, why)) in imported.skipped.iter().enumerate() {
        if nth == 0 {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}# not taken over:\n"));
        }
        let field = printable_name(field);
        text.push_str(&format!("#   {field}: {why}\n"));
    }
    text
}
