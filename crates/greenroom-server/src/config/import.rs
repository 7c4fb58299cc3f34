//! Reads the `background_task` block of an `oh-my-opencode.json(c)` and says it in our own keys. What has no counterpart
//! here is listed with the reason, never dropped without a word.

use std::time::Duration;

use greenroom::domain::task::cut;
use jsonc_parser::ParseOptions;
use serde_json::{Map, Value};

use super::kinds::time_text;
use super::loader::{judge, shown};

/// The block's name.
const BLOCK: &str = "background_task";

/// What was read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Imported {
    /// Our keys with their values, in the order of the table of keys.
    pub keys: Vec<(&'static str, toml::Value)>,
    /// Fields that were not taken over, and why.
    pub left_out: Vec<(String, String)>,
}

/// Why nothing was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// It is no JSON, also with comments and trailing commas.
    #[error("no JSON: {0}")]
    NoJson(String),
    /// There is nothing to import.
    #[error("no `background_task` block")]
    NoBlock,
    /// A field cannot mean what it says.
    #[error("`{field}`: {problem}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// How a field is said here.
enum Meaning {
    /// A number as it is.
    Count(&'static str),
    /// Milliseconds.
    Millis(&'static str),
    /// Numbers by name.
    Counts(&'static str),
    /// Nothing here.
    Nothing(&'static str),
}

/// Every field known of that plugin.
const FIELDS: &[(&str, Meaning)] = &[
    ("defaultConcurrency", Meaning::Count("limits.default")),
    ("maxBackgroundAgents", Meaning::Count("limits.max")),
    ("providerConcurrency", Meaning::Counts("limits.providers")),
    ("modelConcurrency", Meaning::Counts("limits.models")),
    ("staleTimeoutMs", Meaning::Millis("lifecycle.stale_timeout")),
    ("taskTtlMs", Meaning::Millis("lifecycle.task_ttl")),
    (
        "taskCleanupDelayMs",
        Meaning::Millis("lifecycle.keep_ended"),
    ),
    ("maxDepth", Meaning::Count("safety.max_depth")),
    ("maxToolCalls", Meaning::Count("safety.max_tool_calls")),
    (
        "circuitBreaker.maxToolCalls",
        Meaning::Count("safety.max_tool_calls"),
    ),
    (
        "circuitBreaker.consecutiveThreshold",
        Meaning::Count("safety.repeated_tool_calls"),
    ),
    (
        "circuitBreaker.enabled",
        Meaning::Nothing("the safety limits always hold; raise them with the keys of `safety`"),
    ),
    (
        "messageStalenessTimeoutMs",
        Meaning::Nothing(
            "a task that never answers is ended by `lifecycle.not_taken_up` and `lifecycle.stale_timeout`",
        ),
    ),
    (
        "sessionGoneTimeoutMs",
        Meaning::Nothing("a session that has gone is noticed by asking for it"),
    ),
    (
        "syncPollTimeoutMs",
        Meaning::Nothing("nothing here waits for a task by polling"),
    ),
    (
        "maxDescendants",
        Meaning::Nothing(
            "there is no such limit; `limits.max` and `safety.max_depth` bound a tree",
        ),
    ),
];

/// Reads the block out of a whole file.
///
/// # Errors
/// The text is no JSON, has no such block, or a field of it has a value that cannot be meant.
pub fn import(text: &str) -> Result<Imported, ImportError> {
    let root = parse(text)?;
    // The newer form of the file has what belongs to opencode in a block of its own.
    let block = root
        .get(BLOCK)
        .or_else(|| root.get("[opencode]")?.get(BLOCK));
    let block = block.ok_or(ImportError::NoBlock)?;
    let Value::Object(block) = block else {
        return Err(ImportError::Invalid {
            field: BLOCK.to_owned(),
            problem: "expected an object".to_owned(),
        });
    };
    let mut imported = Imported::default();
    for (field, value) in flat(block) {
        match FIELDS.iter().find(|(name, _)| *name == field) {
            None => imported
                .left_out
                .push((cut(&field, 100).to_owned(), "an unknown field".to_owned())),
            Some((_, Meaning::Nothing(why))) => {
                imported.left_out.push((field, (*why).to_owned()));
            }
            Some((
                _,
                meaning @ (Meaning::Count(key) | Meaning::Millis(key) | Meaning::Counts(key)),
            )) => {
                let value = translated(meaning, value)
                    .and_then(|value| judge(key, &value).map(|()| value))
                    .map_err(|problem| ImportError::Invalid {
                        field: format!("{BLOCK}.{field}"),
                        problem,
                    })?;
                // The circuit breaker's own number stands behind the general one and is the newer.
                imported.keys.retain(|(known, _)| known != key);
                imported.keys.push((key, value));
            }
        }
    }
    Ok(imported)
}

fn parse(text: &str) -> Result<Value, ImportError> {
    jsonc_parser::parse_to_serde_value(text, &ParseOptions::default())
        .map_err(|error| ImportError::NoJson(error.to_string()))
}

/// The fields, in their order here; those of the circuit breaker with its name before them.
fn flat(block: &Map<String, Value>) -> Vec<(String, &Value)> {
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
    let place = |name: &str| FIELDS.iter().position(|(known, _)| *known == name);
    fields.sort_by_key(|(name, _)| place(name).unwrap_or(FIELDS.len()));
    fields
}

fn translated(meaning: &Meaning, value: &Value) -> Result<toml::Value, String> {
    match meaning {
        Meaning::Counts(_) => {
            let Value::Object(entries) = value else {
                return Err("expected an object of numbers by name".to_owned());
            };
            let entries = entries.iter().map(|(name, value)| {
                let number =
                    whole(value).map_err(|problem| format!("{:?}: {problem}", cut(name, 60)))?;
                Ok((name.clone(), toml::Value::Integer(number)))
            });
            entries
                .collect::<Result<_, String>>()
                .map(toml::Value::Table)
        }
        Meaning::Millis(_) => {
            let millis = u64::try_from(whole(value)?)
                .map_err(|_| "expected a number of milliseconds".to_owned())?;
            Ok(time_text(Duration::from_millis(millis)))
        }
        Meaning::Count(_) | Meaning::Nothing(_) => Ok(toml::Value::Integer(whole(value)?)),
    }
}

/// A whole number; JSON does not tell `5` from `5.0`.
fn whole(value: &Value) -> Result<i64, String> {
    let number = value.as_i64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
        // Exact up to here; larger ones are out of every bound anyway.
        (number.abs() < 9e15).then_some(number as i64)
    });
    number.ok_or_else(|| {
        let found = value.to_string();
        format!("expected a whole number, found {}", cut(&found, 60))
    })
}

/// The keys as a configuration file, what was left out as comments behind it.
pub fn toml_text(imported: &Imported) -> String {
    let mut text = String::new();
    let mut group = "";
    let mut keys = imported.keys.clone();
    // A table may be written once only.
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
    for (nth, (field, why)) in imported.left_out.iter().enumerate() {
        if nth == 0 {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}# not taken over:\n"));
        }
        let field = shown(field);
        text.push_str(&format!("#   {field}: {why}\n"));
    }
    text
}
