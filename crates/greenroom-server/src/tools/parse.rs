//! Parses the arguments of a tool call. Neither opencode nor models validate them. Unambiguous values are accepted
//! (`"true"`, `"5"`, `taskID` for `task_id`, a blank for an absent value); all other problems are reported at once.
//! Pure.

use greenroom::domain::task::cut;
use serde_json::{Map, Value};

use super::args::ToolArgs;
use super::catalogue::schema;

/// Maximum number of characters of the input in an error.
const MAX_REPEATED: usize = 60;
/// Texts that models write for an absent value.
const BLANKS: [&str; 4] = ["null", "none", "undefined", "nil"];

/// Parses the arguments of a tool.
///
/// # Errors
/// One line for each invalid argument, with the expected value.
pub fn parse_args<A: ToolArgs>(input: Value) -> Result<A, String> {
    let fields = fields::<A>();
    let known_names = || {
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        names.join(", ")
    };
    let Some(input) = object(input) else {
        return Err(format!(
            "the arguments must be an object with {}",
            known_names()
        ));
    };
    let mut read = Map::new();
    let mut problems = Vec::new();
    for (name, value) in input {
        // Set by the host, not by the agent.
        if name.starts_with("__") {
            continue;
        }
        let Some(field) = find::<A>(&fields, &name) else {
            problems.push(unknown(&fields, &name, &known_names()));
            continue;
        };
        match field.coerce(value) {
            Ok(None) => {}
            Ok(Some(value)) => {
                if read.insert(field.name.clone(), value).is_some() {
                    problems.push(format!("{}: is given twice", field.name));
                }
            }
            Err(problem) => problems.push(format!("{}: {problem}", field.name)),
        }
    }
    let waived = A::waived(&read);
    for field in fields.iter().filter(|field| field.required) {
        let reported = problems
            .iter()
            .any(|problem| problem.starts_with(&format!("{}:", field.name)));
        if !read.contains_key(&field.name) && !waived.contains(&field.name.as_str()) && !reported {
            problems.push(format!("{}: is missing. {}", field.name, field.description));
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    serde_json::from_value(Value::Object(read)).map_err(|error| format!("the arguments: {error}"))
}

/// Returns the arguments as an object. Also accepts an object as text; null and a blank text are an empty object.
fn object(input: Value) -> Option<Map<String, Value>> {
    match input {
        Value::Object(fields) => Some(fields),
        Value::Null => Some(Map::new()),
        Value::String(text) if text.trim().is_empty() => Some(Map::new()),
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => Some(fields),
            _ => None,
        },
        _ => None,
    }
}

/// One argument, as described by its schema.
#[derive(Debug)]
struct Field {
    name: String,
    description: String,
    kind: Kind,
    required: bool,
    minimum: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Switch,
    Number,
    Texts,
}

fn fields<A: ToolArgs>() -> Vec<Field> {
    let schema = schema::<A>();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, of)| Field {
            name: name.clone(),
            description: of["description"].as_str().unwrap_or_default().to_owned(),
            kind: match of["type"].as_str() {
                Some("boolean") => Kind::Switch,
                Some("integer") => Kind::Number,
                Some("array") => Kind::Texts,
                _ => Kind::Text,
            },
            required: required.iter().any(|required| required == name),
            minimum: of["minimum"].as_u64().unwrap_or(0),
        })
        .collect()
}

/// Returns a name in lower case without separators.
fn fold_name(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

fn find<'a, A: ToolArgs>(fields: &'a [Field], name: &str) -> Option<&'a Field> {
    let name = fold_name(name);
    let alias = A::ALIASES
        .iter()
        .find(|(other, _)| fold_name(other) == name);
    let name = alias.map_or(name, |(_, here)| fold_name(here));
    fields.iter().find(|field| fold_name(&field.name) == name)
}

fn unknown(fields: &[Field], name: &str, known_names: &str) -> String {
    let likeness = |field: &Field| strsim::normalized_damerau_levenshtein(name, &field.name);
    let nearest = fields
        .iter()
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
        .filter(|field| likeness(field) > 0.55);
    let name = cut(name, MAX_REPEATED);
    match nearest {
        Some(nearest) => format!("{name}: is no argument; did you mean {}?", nearest.name),
        None => format!("{name}: is no argument; there are {known_names}"),
    }
}

impl Field {
    /// Converts a value to the type of the field; none for a blank value.
    fn coerce(&self, value: Value) -> Result<Option<Value>, String> {
        if is_blank(&value, self.required) {
            return Ok(None);
        }
        let coerced = match (self.kind, value) {
            (Kind::Text, Value::String(text)) => Some(Value::String(self.text(text))),
            (Kind::Switch, value) => switch(&value).map(Value::Bool),
            (Kind::Number, value) => match number(&value) {
                Some(number) if number < 0.0 => return Err("must not be negative".to_owned()),
                // A model that must provide a number writes zero for an absent one.
                Some(number) if number == 0.0 && self.minimum > 0 => return Ok(None),
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "the sign was checked, and a value that is too large becomes the largest"
                )]
                number => number.map(|number| Value::from(number as u64)),
            },
            (Kind::Texts, value) => texts(value)?.map(Value::from),
            (Kind::Text, _) => None,
        };
        coerced
            .map(Some)
            .ok_or_else(|| self.kind.expectation().to_owned())
    }

    /// Agents copy ids with quotes or backticks.
    fn text(&self, text: String) -> String {
        if !fold_name(&self.name).ends_with("id") {
            return text;
        }
        text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '`' | '"' | '\''))
            .to_owned()
    }
}

impl Kind {
    fn expectation(self) -> &'static str {
        match self {
            Self::Text => "must be a text",
            Self::Switch => "must be true or false",
            Self::Number => "must be a whole number",
            Self::Texts => "must be a list of texts",
        }
    }
}

/// Returns true for a value that stands for an absent argument.
fn is_blank(value: &Value, required: bool) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) if !required => {
            let text = text.trim();
            text.is_empty() || BLANKS.iter().any(|word| text.eq_ignore_ascii_case(word))
        }
        _ => false,
    }
}

fn switch(value: &Value) -> Option<bool> {
    let word = match value {
        Value::Bool(switch) => return Some(*switch),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_ascii_lowercase(),
        _ => return None,
    };
    match word.as_str() {
        "true" | "yes" | "1" => Some(true),
        "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().replace('_', "").parse().ok()?,
        _ => return None,
    };
    (number.is_finite() && number.fract() == 0.0).then_some(number)
}

/// Parses a list of texts, also from JSON or comma-separated text.
fn texts(value: Value) -> Result<Option<Vec<String>>, String> {
    let values = match value {
        Value::Array(values) => values,
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::Array(values)) => values,
            _ => text
                .split(',')
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(Value::from)
                .collect(),
        },
        _ => return Ok(None),
    };
    let texts = values
        .into_iter()
        .enumerate()
        .map(|(at, value)| match value {
            Value::String(text) => Ok(text),
            _ => Err(format!("entry {} must be a text", at + 1)),
        });
    texts.collect::<Result<Vec<_>, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::args::{
        BackgroundCancelArgs, BackgroundListArgs, BackgroundOutputArgs, BackgroundSendArgs,
        BackgroundTaskArgs,
    };
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn refused<A: ToolArgs + std::fmt::Debug>(input: Value) -> String {
        parse_args::<A>(input).unwrap_err()
    }

    #[test]
    fn unambiguous_values_are_accepted() {
        let args: BackgroundOutputArgs = parse_args(json!({
            "taskID": " `bg_00000001` ", "block": "true", "timeout": "5_000", "full-session": 1,
            "message_limit": 5.0, "since_message_id": "null", "include_thinking": "", "__sessionID": "ses_0",
        }))
        .unwrap();
        let expected = BackgroundOutputArgs {
            task_id: Some("bg_00000001".to_owned()),
            block: Some(true),
            timeout: Some(5000),
            full_session: Some(true),
            message_limit: Some(5),
            ..BackgroundOutputArgs::default()
        };
        assert_eq!(args, expected);
        assert_eq!(
            parse_args::<BackgroundListArgs>(Value::Null),
            Ok(BackgroundListArgs::default())
        );
        let text = r#"{"task_id": "bg_1", "message": "go on"}"#;
        let args: BackgroundSendArgs = parse_args(json!(text)).unwrap();
        assert_eq!(args.prompt.as_deref(), Some("go on"));
    }

    #[test]
    fn skills_are_accepted_in_every_form() {
        for skills in [json!(["a", "b"]), json!("a, b"), json!("[\"a\",\"b\"]")] {
            let input = json!({"session_id": "ses_1", "prompt": "p", "skills": skills});
            let args: BackgroundTaskArgs = parse_args(input).unwrap();
            assert_eq!(args.skills.unwrap(), ["a", "b"]);
        }
    }

    #[test]
    fn out_of_range_numbers_are_clamped() {
        let args: BackgroundOutputArgs =
            parse_args(json!({"task_id": "x", "timeout": 1e30})).unwrap();
        assert_eq!(args.timeout, Some(u64::MAX));
        // Zero stands for an absent limit.
        let args: BackgroundOutputArgs =
            parse_args(json!({"task_id": "x", "message_limit": 0})).unwrap();
        assert_eq!(args.message_limit, None);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        insta::assert_snapshot!(refused::<BackgroundTaskArgs>(json!({
            "promt": "p", "description": 5, "skills": ["a", 7], "weight": 1,
        })), @r#"
        description: must be a text
        promt: is no argument; did you mean prompt?
        skills: entry 2 must be a text
        weight: is no argument; there are agent, category, description, directory, model, prompt, session_id, skills
        agent: is missing. Which agent does it, for instance "explore".
        prompt: is missing. The prompt for the agent: all it needs to know, since it sees nothing of this conversation.
        "#);
        insta::assert_snapshot!(refused::<BackgroundOutputArgs>(json!({
            "block": "perhaps", "timeout": -1, "message_limit": "many", "from_end": [], "thinking_max_chars": 1.5,
        })), @r"
        block: must be true or false
        from_end: must be true or false
        message_limit: must be a whole number
        thinking_max_chars: must be a whole number
        timeout: must not be negative
        task_id: is missing. The task's id, or its session id.
        ");
        insta::assert_snapshot!(refused::<BackgroundCancelArgs>(json!({"taskId": "a", "task_id": "b"})), @"taskId: is given twice");
        insta::assert_snapshot!(refused::<BackgroundSendArgs>(json!([1])), @"the arguments must be an object with prompt, task_id");
    }

    #[test]
    fn resume_needs_only_a_prompt() {
        assert!(
            parse_args::<BackgroundTaskArgs>(json!({"session_id": "ses_1", "prompt": "p"})).is_ok()
        );
        let text = refused::<BackgroundTaskArgs>(json!({"session_id": "", "prompt": "p"}));
        assert!(text.contains("description: is missing"), "{text}");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let names = prop_oneof![
                Just("task_id".to_owned()),
                Just("prompt".to_owned()),
                Just("timeout".to_owned()),
                "\\PC{0,8}"
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(names, inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn arbitrary_input_never_panics(input in any_json()) {
            for text in [
                parse_args::<BackgroundTaskArgs>(input.clone()).err(),
                parse_args::<BackgroundOutputArgs>(input.clone()).err(),
                parse_args::<BackgroundCancelArgs>(input.clone()).err(),
                parse_args::<BackgroundListArgs>(input.clone()).err(),
            ].into_iter().flatten() {
                prop_assert!(!text.is_empty());
                // All problems must be found before serde sees the arguments.
                prop_assert!(!text.starts_with("the arguments: "), "{text}");
            }
        }
    }
}
