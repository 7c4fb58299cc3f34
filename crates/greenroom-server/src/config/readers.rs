//! How the values that are more than a number, a switch or a time are read, and where they go. The table of keys names
//! these functions.

use std::path::PathBuf;
use std::time::Duration;

use greenroom::config::{FailedCheck, OnParentAbort};

use super::settings::{Events, Listen, Settings, TokenSource};
use super::value::Raw;

const MS: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
const MANY: u32 = 1_000_000;

pub(super) fn listen(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    settings.listen = Listen::read(&raw.text()?)?;
    Ok(())
}

pub(super) fn token(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    let text = raw.text()?;
    settings.token_source = if text.trim().is_empty() {
        TokenSource::None
    } else {
        TokenSource::Text(text)
    };
    Ok(())
}

pub(super) fn token_file(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    let text = raw.text()?;
    if !text.is_empty() {
        settings.token_source = TokenSource::File(PathBuf::from(text));
    }
    Ok(())
}

pub(super) fn journal(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    let text = raw.text()?;
    settings.journal = (!text.trim().is_empty()).then(|| PathBuf::from(text));
    Ok(())
}

pub(super) fn url(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    let text = raw.text()?;
    let problem =
        || format!("expected an address such as \"http://127.0.0.1:4096\", found {text:?}");
    let url = reqwest::Url::parse(text.trim()).map_err(|_| problem())?;
    if url.scheme() != "http" || url.host_str().is_none() {
        return Err(problem());
    }
    settings.opencode.url = url.as_str().trim_end_matches('/').to_owned();
    Ok(())
}

pub(super) fn username(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    settings.opencode.username = raw.text()?;
    Ok(())
}

pub(super) fn password_env(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    settings.opencode.password_env = raw.text()?;
    Ok(())
}

pub(super) fn directory(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    settings.core.directory = raw.text()?;
    Ok(())
}

pub(super) fn events(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    settings.opencode.events = choice(
        raw,
        &[
            ("stream", Events::Stream),
            ("bridge", Events::Bridge),
            ("both", Events::Both),
        ],
    )?;
    Ok(())
}

pub(super) fn max_waiting(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    settings.core.limits.max_waiting = raw.count(1, MANY)? as usize;
    Ok(())
}

pub(super) fn not_taken_up(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    settings.core.lifecycle.not_taken_up = raw.time_or_zero(MS, LONGEST)?;
    Ok(())
}

pub(super) fn queue_ttl(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    settings.core.lifecycle.queue_ttl = raw.time_or_zero(MS, LONGEST)?;
    Ok(())
}

pub(super) fn failed_check(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    let known = [
        ("retry", FailedCheck::Retry { failures: 3 }),
        ("passed", FailedCheck::CountsAsPassed),
    ];
    settings.core.lifecycle.failed_check = choice(raw, &known)?;
    Ok(())
}

pub(super) fn on_parent_abort(settings: &mut Settings, raw: &Raw) -> Result<(), String> {
    let known = [
        ("keep", OnParentAbort::Keep),
        ("cancel", OnParentAbort::Cancel),
    ];
    settings.core.notifications.on_parent_abort = choice(raw, &known)?;
    Ok(())
}

pub(super) fn provider(settings: &mut Settings, name: &str, raw: &Raw) -> Result<(), String> {
    let count = raw.count(0, MANY)?;
    settings
        .core
        .limits
        .providers
        .insert(name.to_owned(), count);
    Ok(())
}

pub(super) fn model(settings: &mut Settings, name: &str, raw: &Raw) -> Result<(), String> {
    let count = raw.count(0, MANY)?;
    settings.core.limits.models.insert(name.to_owned(), count);
    Ok(())
}

pub(super) fn agent(settings: &mut Settings, name: &str, raw: &Raw) -> Result<(), String> {
    if let Raw::Toml(toml::Value::Table(rules)) = raw {
        settings.core.agents.entry(name.to_owned()).or_default();
        for (list, value) in rules {
            agent(
                settings,
                &format!("{name}.{list}"),
                &Raw::Toml(value.clone()),
            )?;
        }
        return Ok(());
    }
    let (agent, list) = name
        .rsplit_once('.')
        .ok_or("expected `deny` or `allow` below the agent's name")?;
    let names = raw.names()?;
    let rules = settings.core.agents.entry(agent.to_owned()).or_default();
    match list {
        "deny" => rules.deny = names,
        "allow" => rules.allow = names,
        other => {
            return Err(format!(
                "expected `deny` or `allow` below the agent's name, found `{other}`"
            ));
        }
    }
    Ok(())
}

fn choice<T: Copy>(raw: &Raw, known: &[(&str, T)]) -> Result<T, String> {
    let text = raw.text()?;
    known
        .iter()
        .find(|(name, _)| *name == text.trim())
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            format!("expected one of {}, found {text:?}", names.join(", "))
        })
}
