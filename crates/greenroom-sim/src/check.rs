//! Compares a trace with the expected result of its story: either `golden`, facts that are compared one by
//! one, or `expected`, assertions. Used by the command and the tests. Reads both as plain JSON, because a
//! trace may come from another implementation.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// The entity of each golden call. Calls are compared per entity, in order.
const ENTITIES: [(&str, &str); 4] = [
    ("session.create", "task"),
    ("session.prompt", "session"),
    ("session.abort", "session"),
    ("notify", "parent"),
];

/// The fields that hold times.
const TIMES: [&str; 5] = ["at", "queuedAt", "startedAt", "completedAt", "settledAt"];

/// The fields of a row of a history.
const HISTORY: [&str; 5] = ["task", "agent", "category", "status", "session"];

/// Returns every difference between a trace and the expected result, one line each.
pub fn differences(story: &Value, trace: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    match (&story["golden"], &story["expected"]) {
        (Value::Null, Value::Array(rules)) => assertions(rules, trace, &mut lines),
        (Value::Null, _) => lines.push("the story demands nothing".to_owned()),
        (golden, _) => facts(golden, trace, &mut lines),
    }
    lines
}

fn facts(golden: &Value, trace: &Value, lines: &mut Vec<String>) {
    calls(golden, trace, lines);
    results(golden, trace, lines);
    let (want, have) = (rows(golden, "observations"), rows(trace, "observations"));
    for (number, (want, have)) in want.iter().zip(have).enumerate() {
        observation(number + 1, want, have, lines);
    }
    if want.len() != have.len() {
        lines.push(format!(
            "observations: expected {}, got {}",
            want.len(),
            have.len()
        ));
    }
    if let Some(queries) = golden
        .get("queries")
        .filter(|queries| Some(*queries) != trace.get("queries"))
    {
        lines.push(format!(
            "queries: expected {queries}, got {}",
            trace["queries"]
        ));
    }
}

fn calls(golden: &Value, trace: &Value, lines: &mut Vec<String>) {
    let (want, have) = (grouped(golden), grouped(trace));
    let keys: BTreeSet<_> = want.keys().chain(have.keys()).collect();
    for key in keys {
        let of = |groups: &BTreeMap<(String, String), Vec<&'_ Value>>| -> Vec<Value> {
            groups
                .get(key)
                .map(|rows| rows.iter().map(|row| (*row).clone()).collect())
                .unwrap_or_default()
        };
        let (want, have) = (of(&want), of(&have));
        let name = format!("{} of {}", key.0, key.1);
        if want.len() != have.len() {
            let at = |rows: &[Value]| {
                rows.iter()
                    .map(|row| row["at"].to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            lines.push(format!(
                "{name}: expected {} call(s) at [{}], got [{}]",
                want.len(),
                at(&want),
                at(&have)
            ));
            continue;
        }
        for (number, (want, have)) in want.iter().zip(&have).enumerate() {
            let at = format!("{name} #{}", number + 1);
            fields(&at, want, have, lines);
            let extra = !have["errorText"].is_null() && want.get("errorText").is_none();
            if extra && have["kind"] != "all_complete" {
                lines.push(format!("{at}: unexpected errorText: {}", have["errorText"]));
            }
        }
    }
}

fn grouped(trace: &Value) -> BTreeMap<(String, String), Vec<&Value>> {
    let mut groups: BTreeMap<_, Vec<&Value>> = BTreeMap::new();
    for row in rows(trace, "calls") {
        if let Some((call, entity)) = ENTITIES.iter().find(|(call, _)| row["call"] == *call) {
            let entity = row[entity].as_str().unwrap_or_default().to_owned();
            groups
                .entry((call.to_string(), entity))
                .or_default()
                .push(row);
        }
    }
    groups
}

fn results(golden: &Value, trace: &Value, lines: &mut Vec<String>) {
    let of = |value: &Value, action: &str| -> Vec<Value> {
        rows(value, "results")
            .iter()
            .filter(|row| row["do"] == action)
            .cloned()
            .collect()
    };
    let actions: BTreeSet<&str> = rows(golden, "results")
        .iter()
        .filter_map(|row| row["do"].as_str())
        .collect();
    for action in actions {
        let (want, have) = (of(golden, action), of(trace, action));
        if want.len() != have.len() {
            lines.push(format!(
                "results of {action}: expected {}, got {}",
                want.len(),
                have.len()
            ));
            continue;
        }
        for (number, (want, have)) in want.iter().zip(&have).enumerate() {
            let at = format!("{action} #{}", number + 1);
            let outcome = |row: &Value| {
                row.get("error")
                    .map_or_else(|| "success".to_owned(), Value::to_string)
            };
            if want.get("error").is_some() != have.get("error").is_some() {
                lines.push(format!(
                    "{at}: expected {}, got {}",
                    outcome(want),
                    outcome(have)
                ));
            } else if want
                .get("value")
                .is_some_and(|value| *value != have["value"])
            {
                lines.push(format!(
                    "{at}: expected {}, got {}",
                    want["value"], have["value"]
                ));
            }
        }
    }
}

fn observation(number: usize, want: &Value, have: &Value, lines: &mut Vec<String>) {
    let at = format!("observation #{number} at {}", want["at"]);
    let (tasks, seen) = (object(&want["tasks"]), object(&have["tasks"]));
    for alias in tasks.keys().chain(seen.keys()).collect::<BTreeSet<_>>() {
        match (tasks.get(alias), seen.get(alias)) {
            (Some(want), Some(have)) => {
                fields(&format!("{at}: {alias}"), want, have, lines);
                if want.get("error").is_none()
                    && have["error"]
                        .as_str()
                        .is_some_and(|error| !error.is_empty())
                {
                    lines.push(format!("{at}: {alias}: unexpected error {}", have["error"]));
                }
            }
            (Some(_), None) => lines.push(format!("{at}: task {alias} is missing")),
            _ => lines.push(format!("{at}: task {alias} should be gone")),
        }
    }
    let in_use: i64 = object(&have["slots"])
        .values()
        .filter_map(|slot| slot["inUse"].as_i64())
        .sum();
    if json!(in_use) != want["slotsInUse"] {
        lines.push(format!(
            "{at}: slots in use: expected {}, got {in_use}",
            want["slotsInUse"]
        ));
    }
    if let Some(wanted) = want.get("history") {
        let (wanted, seen) = (history(wanted), history(&have["history"]));
        if wanted != seen {
            lines.push(format!(
                "{at}: history: expected {}, got {}",
                json!(wanted),
                json!(seen)
            ));
        }
    }
}

/// Returns the histories that are not empty, each row with the compared fields that it has.
fn history(value: &Value) -> BTreeMap<String, Vec<Map<String, Value>>> {
    let row = |row: &Value| -> Map<String, Value> {
        HISTORY
            .iter()
            .filter(|key| !row[**key].is_null())
            .map(|key| ((*key).to_owned(), row[*key].clone()))
            .collect()
    };
    object(value)
        .iter()
        .map(|(parent, rows)| {
            (
                parent.clone(),
                rows.as_array()
                    .into_iter()
                    .flatten()
                    .map(row)
                    .collect::<Vec<_>>(),
            )
        })
        .filter(|(_, rows)| !rows.is_empty())
        .collect()
}

/// Compares every expected field. An error that starts with `@` only has to be present.
fn fields(at: &str, want: &Value, have: &Value, lines: &mut Vec<String>) {
    for (key, want) in object(want) {
        let have = &have[key.as_str()];
        let same = match (key.as_str(), want, have) {
            ("error" | "errorText", Value::String(want), Value::String(have)) => {
                want.starts_with('@') || want == have
            }
            ("completed", Value::Array(want), Value::Array(have)) => sorted(want) == sorted(have),
            (key, _, _) if TIMES.contains(&key) => want.as_f64() == have.as_f64(),
            _ => want == have,
        };
        if !same {
            lines.push(format!("{at}: {key}: expected {want}, got {have}"));
        }
    }
}

fn sorted(items: &[Value]) -> Vec<String> {
    let mut texts: Vec<String> = items.iter().map(Value::to_string).collect();
    texts.sort();
    texts
}

fn assertions(rules: &[Value], trace: &Value, lines: &mut Vec<String>) {
    for rule in rules {
        let (holds, got) = assertion(rule, trace);
        if !holds {
            lines.push(format!("expected {rule}, got {got}"));
        }
    }
}

/// Evaluates one assertion. Returns whether it holds, and the value found.
fn assertion(rule: &Value, trace: &Value) -> (bool, Value) {
    if let Some(path) = rule["path"].as_str() {
        let seen = rows(trace, "observations")
            .iter()
            .rev()
            .find(|seen| seen["label"] == rule["at"]);
        return at_path(rule, path, seen.and_then(|seen| lookup(seen, path)));
    }
    if let Some(pattern) = rule.get("calls") {
        let after = rule["after"].as_i64().unwrap_or(0);
        let matches = |call: &&Value| {
            object(pattern)
                .iter()
                .all(|(key, want)| call[key.as_str()] == *want)
                && call["at"].as_i64().is_some_and(|at| at >= after)
        };
        let count = rows(trace, "calls").iter().filter(matches).count() as u64;
        let holds = rule["count"].as_u64().is_none_or(|wanted| count == wanted)
            && rule["min"].as_u64().is_none_or(|min| count >= min)
            && rule["max"].as_u64().is_none_or(|max| count <= max);
        return (holds, json!(count));
    }
    if rule.get("noUnhandledErrors").is_some() {
        return (
            rows(trace, "unhandledErrors").is_empty(),
            trace["unhandledErrors"].clone(),
        );
    }
    if rule.get("noErrorResults").is_some() {
        let errors: Vec<&Value> = rows(trace, "results")
            .iter()
            .filter(|row| row.get("error").is_some())
            .collect();
        return (errors.is_empty(), json!(errors));
    }
    let row = rows(trace, "results")
        .iter()
        .find(|row| row["step"] == rule["result"]);
    let holds = row.is_some_and(|row| {
        rule["settled"]
            .as_bool()
            .is_none_or(|settled| row["settledAt"].is_null() != settled)
            && rule["errored"]
                .as_bool()
                .is_none_or(|errored| row.get("error").is_some() == errored)
            && rule.get("value").is_none_or(|value| row["value"] == *value)
    });
    (holds, row.cloned().unwrap_or_default())
}

/// Evaluates an assertion about a path of an observation.
fn at_path(rule: &Value, path: &str, found: Option<&Value>) -> (bool, Value) {
    let mut got = found.cloned();
    if let (Some(Value::Object(fields)), "slots" | "pendingByParent") = (&mut got, path) {
        fields.retain(|_, value| !is_nothing(value) && *value != json!({"inUse": 0}));
    }
    let shown = got.clone().unwrap_or_default();
    let holds = if let Some(absent) = rule["absent"].as_bool() {
        shown.is_null() == absent
    } else if let Some(wanted) = rule.get("is") {
        got.as_ref() == Some(wanted)
    } else if let Some(unwanted) = rule.get("not") {
        got.is_some_and(|got| got != *unwanted)
    } else if let Some(choices) = rule["oneOf"].as_array() {
        got.is_some_and(|got| choices.contains(&got))
    } else {
        shown
            .as_array()
            .is_some_and(|items| items.contains(&rule["contains"]))
    };
    (holds, shown)
}

fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        other => other.get(key),
    })
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn rows<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn object(value: &Value) -> &Map<String, Value> {
    static NOTHING: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NOTHING)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
