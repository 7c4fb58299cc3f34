//! The fields of keys that are not plain numbers, flags or durations: how a value is read, stored and written back.
//! Used by the key table.

use std::path::{Path, PathBuf};

use greenroom::config::{FailedCheck, OnParentAbort};
use toml::{Table, Value};

use super::keys::MAX_COUNT;
use super::settings::{Auth, Events, Listen, Settings, TokenSource, has_host};
use super::value::Raw;
use super::value_type::{Field, ValueType};

const ANY_TEXT: ValueType = ValueType::Text { pattern: None };
const COUNT: ValueType = ValueType::Count {
    min: 0,
    max: MAX_COUNT,
};

pub(super) const LISTEN: Field = Field::single(
    ValueType::Text {
        pattern: Some(r"^\s*(localhost|[0-9.]+|\[[0-9A-Fa-f:.%]+\]):[0-9]{1,5}\s*$"),
    },
    |settings, raw| {
        settings.listen = Listen::read(&raw.text()?)?;
        Ok(())
    },
    |settings| Value::String(settings.listen.0.to_string()),
);

pub(super) const AUTH: Field = Field::single(
    ValueType::Choice(&["token", "none"]),
    |settings, raw| {
        settings.auth = parse_choice(raw, &AUTHS)?;
        Ok(())
    },
    |settings| choice_name(&AUTHS, &settings.auth),
);

const AUTHS: [(&str, Auth); 2] = [("token", Auth::Token), ("none", Auth::None)];

pub(super) const TOKEN: Field = Field::single(
    ANY_TEXT,
    |settings, raw| {
        // The value is not repeated in the message: it may be most of the secret.
        let text = raw
            .text()
            .map_err(|_| "expected a text in quotes without control characters".to_owned())?;
        settings.token_source = if text.trim().is_empty() {
            TokenSource::None
        } else {
            TokenSource::Text(text)
        };
        Ok(())
    },
    |settings| match &settings.token_source {
        TokenSource::Text(text) => Value::String(text.clone()),
        TokenSource::None | TokenSource::File(_) | TokenSource::Default(_) => empty(),
    },
);

pub(super) const TOKEN_FILE: Field = Field::single(
    ANY_TEXT,
    |settings, raw| {
        let text = raw.text()?;
        if !text.is_empty() {
            settings.token_source = TokenSource::File(PathBuf::from(text));
        }
        Ok(())
    },
    |settings| match &settings.token_source {
        TokenSource::File(file) => path(file),
        TokenSource::None | TokenSource::Text(_) | TokenSource::Default(_) => empty(),
    },
);

pub(super) const JOURNAL: Field = Field::single(
    ANY_TEXT,
    |settings, raw| {
        let text = raw.text()?;
        settings.journal = (!text.trim().is_empty()).then(|| PathBuf::from(text));
        Ok(())
    },
    |settings| settings.journal.as_deref().map_or_else(empty, path),
);

pub(super) const URL: Field = Field::single(
    ValueType::Text {
        pattern: Some(r"^\s*([Hh][Tt][Tt][Pp]://[^/?#\s]+|$)"),
    },
    |settings, raw| {
        let text = raw.text()?;
        if text.trim().is_empty() {
            settings.opencode.url = None;
            return Ok(());
        }
        let problem = || {
            let found = greenroom::domain::task::cut(&text, 60);
            format!("expected an address such as \"http://127.0.0.1:4096\", found {found:?}")
        };
        let url = reqwest::Url::parse(text.trim()).map_err(|_| problem())?;
        if url.scheme() != "http" || !has_host(&url) {
            return Err(problem());
        }
        settings.opencode.url = Some(url.as_str().trim_end_matches('/').to_owned());
        Ok(())
    },
    |settings| Value::String(settings.opencode.url.clone().unwrap_or_default()),
);

pub(super) const USERNAME: Field = Field::single(
    ANY_TEXT,
    |settings, raw| {
        settings.opencode.username = raw.text()?;
        Ok(())
    },
    |settings| Value::String(settings.opencode.username.clone()),
);

pub(super) const PASSWORD_ENV: Field = Field::single(
    ANY_TEXT,
    |settings, raw| {
        settings.opencode.password_env = raw.text()?;
        Ok(())
    },
    |settings| Value::String(settings.opencode.password_env.clone()),
);

pub(super) const DIRECTORY: Field = Field::single(
    ANY_TEXT,
    |settings, raw| {
        settings.core.directory = raw.text()?.into();
        Ok(())
    },
    |settings| Value::String(settings.core.directory.to_string()),
);

pub(super) const EVENTS: Field = Field::single(
    ValueType::Choice(&["stream", "bridge", "both"]),
    |settings, raw| {
        settings.opencode.events = parse_choice(raw, &EVENTS_BY_NAME)?;
        Ok(())
    },
    |settings| choice_name(&EVENTS_BY_NAME, &settings.opencode.events),
);

const EVENTS_BY_NAME: [(&str, Events); 3] = [
    ("stream", Events::Stream),
    ("bridge", Events::Bridge),
    ("both", Events::Both),
];

pub(super) const MAX_WAITING: Field = Field::single(
    ValueType::Count {
        min: 1,
        max: MAX_COUNT,
    },
    |settings, raw| {
        settings.core.limits.max_waiting = raw.count(1, MAX_COUNT)? as usize;
        Ok(())
    },
    |settings| Value::Integer(i64::try_from(settings.core.limits.max_waiting).unwrap_or(i64::MAX)),
);

pub(super) const MAX_WAITING_BYTES: Field = Field::single(
    ValueType::Count {
        min: 1,
        max: u32::MAX,
    },
    |settings, raw| {
        settings.core.limits.max_waiting_bytes = raw.count(1, u32::MAX)?.into();
        Ok(())
    },
    |settings| {
        Value::Integer(i64::try_from(settings.core.limits.max_waiting_bytes).unwrap_or(i64::MAX))
    },
);

pub(super) const FAILED_CHECK: Field = Field::single(
    ValueType::Choice(&["retry", "passed"]),
    |settings, raw| {
        settings.core.lifecycle.failed_check = parse_choice(raw, &FAILED_CHECKS)?;
        Ok(())
    },
    |settings| choice_name(&FAILED_CHECKS, &settings.core.lifecycle.failed_check),
);

const FAILED_CHECKS: [(&str, FailedCheck); 2] = [
    ("retry", FailedCheck::Retry { failures: 3 }),
    ("passed", FailedCheck::CountsAsPassed),
];

pub(super) const ON_PARENT_ABORT: Field = Field::single(
    ValueType::Choice(&["keep", "cancel"]),
    |settings, raw| {
        settings.core.notifications.on_parent_abort = parse_choice(raw, &PARENT_ABORTS)?;
        Ok(())
    },
    |settings| choice_name(&PARENT_ABORTS, &settings.core.notifications.on_parent_abort),
);

const PARENT_ABORTS: [(&str, OnParentAbort); 2] = [
    ("keep", OnParentAbort::Keep),
    ("cancel", OnParentAbort::Cancel),
];

pub(super) const PROVIDERS: Field = Field::per_entry(
    COUNT,
    |settings, name, raw| {
        let count = raw.count(0, MAX_COUNT)?;
        let providers = &mut settings.core.limits.providers;
        providers.insert(name.to_owned(), count);
        Ok(())
    },
    |settings| counts(settings.core.limits.providers.iter()),
);

pub(super) const MODELS: Field = Field::per_entry(
    COUNT,
    |settings, name, raw| {
        let count = raw.count(0, MAX_COUNT)?;
        settings.core.limits.models.insert(name.to_owned(), count);
        Ok(())
    },
    |settings| counts(settings.core.limits.models.iter()),
);

pub(super) const AGENTS: Field = Field::per_entry(ValueType::Rules, agent, |settings| {
    let rules = settings.core.agents.iter().map(|(agent, rules)| {
        let mut lists = Table::new();
        for (list, names) in [("deny", &rules.deny), ("allow", &rules.allow)] {
            lists.insert(
                list.to_owned(),
                Value::from(names.iter().map(|name| &**name).collect::<Vec<_>>()),
            );
        }
        (agent.clone(), Value::Table(lists))
    });
    Value::Table(rules.collect())
});

/// Stores `agents.NAME` with an empty table, which removes the built-in rule of the agent, or one list of it.
fn agent(settings: &mut Settings, name: &str, raw: &Raw) -> Result<(), String> {
    let agents = &mut settings.core.agents;
    if matches!(raw, Raw::Toml(Value::Table(rules)) if rules.is_empty()) {
        agents.entry(name.to_owned()).or_default();
        return Ok(());
    }
    let (agent, list) = name
        .rsplit_once('.')
        .ok_or("expected `deny` or `allow` below the agent's name")?;
    if agent.trim().is_empty() {
        return Err("expected the name of an agent before the dot".to_owned());
    }
    if !matches!(list, "deny" | "allow") {
        let list = greenroom::domain::task::cut(list, 60);
        return Err(format!(
            "expected `deny` or `allow` below the agent's name, found {list:?}"
        ));
    }
    let names = raw.names()?;
    let rules = agents.entry(agent.to_owned()).or_default();
    match list {
        "deny" => rules.deny = names.into_iter().map(Into::into).collect(),
        _ => rules.allow = names.into_iter().map(Into::into).collect(),
    }
    Ok(())
}

fn empty() -> Value {
    Value::String(String::new())
}

fn path(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

fn counts<'a>(entries: impl Iterator<Item = (&'a String, &'a u32)>) -> Value {
    Value::Table(
        entries
            .map(|(name, count)| (name.clone(), Value::Integer((*count).into())))
            .collect(),
    )
}

fn choice_name<T: PartialEq>(choices: &[(&str, T)], value: &T) -> Value {
    let name = choices.iter().find(|(_, choice)| choice == value);
    Value::String(name.map(|(name, _)| (*name).to_owned()).unwrap_or_default())
}

fn parse_choice<T: Copy>(raw: &Raw, choices: &[(&str, T)]) -> Result<T, String> {
    let text = raw.text()?;
    choices
        .iter()
        .find(|(name, _)| *name == text.trim())
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let found = greenroom::domain::task::cut(&text, 60);
            format!("expected one of {}, found {found:?}", names.join(", "))
        })
}
