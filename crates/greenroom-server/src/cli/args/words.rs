//! What a word of the command line may be. It is refused here, with the flag's name, before anybody is asked: nothing
//! without bound, nothing that would drive a terminal or cannot be part of a path or a header.

use std::path::PathBuf;
use std::time::Duration;

use greenroom::domain::task::TaskStatus;

use crate::config::value::LONGEST_TEXT;

/// A text in one line that says something.
///
/// # Errors
/// It is blank, too long, or holds control characters.
pub fn line(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    maybe(text)
}

/// The same, which may be empty.
///
/// # Errors
/// It is too long, or holds control characters.
pub fn maybe(text: &str) -> Result<String, String> {
    if text.len() > LONGEST_TEXT {
        return Err(format!(
            "it has {} bytes, more than {LONGEST_TEXT}",
            text.len()
        ));
    }
    match text.chars().find(|c| c.is_control()) {
        None => Ok(text.to_owned()),
        Some(c) => Err(format!("it holds the control character {c:?}")),
    }
}

/// A path.
///
/// # Errors
/// As of [`line`].
pub fn path(text: &str) -> Result<PathBuf, String> {
    line(text).map(PathBuf::from)
}

/// A time as people write it.
///
/// # Errors
/// It is none.
pub fn age(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(&line(text)?)
        .map_err(|_| "write it as a time, for instance 7d or 12h".to_owned())
}

/// What an agent is told: a text of any form that says something. The service bounds it.
///
/// # Errors
/// It is blank.
pub fn prompt(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(text.to_owned())
}

/// States of tasks, with commas between them.
///
/// # Errors
/// One of them is none; the text says which there are.
pub fn statuses(text: &str) -> Result<String, String> {
    let text = line(text)?;
    for name in text.split(',').map(str::trim) {
        if TaskStatus::ALL.iter().all(|status| status.as_str() != name) {
            let known: Vec<&str> = TaskStatus::ALL
                .iter()
                .map(|status| status.as_str())
                .collect();
            return Err(format!("{name:?} is none of {}", known.join(", ")));
        }
    }
    Ok(text)
}

/// A provider and a model.
///
/// # Errors
/// One of them is missing.
pub fn model(text: &str) -> Result<(String, String), String> {
    match line(text)?.split_once('/') {
        Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
            Ok((provider.to_owned(), model.to_owned()))
        }
        _ => Err("write it as PROVIDER/MODEL, for instance anthropic/claude-opus".to_owned()),
    }
}

/// A new limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// So many at once; zero is unlimited.
    Limit(u32),
    /// No rule of its own any more; a number goes back to the configured one.
    Unset,
}

/// A number of slots, or `unset`.
///
/// # Errors
/// It is neither.
pub fn wish(text: &str) -> Result<Wish, String> {
    let most = crate::config::keys::MANY;
    if text == "unset" {
        return Ok(Wish::Unset);
    }
    match text.parse() {
        Ok(limit) if limit <= most => Ok(Wish::Limit(limit)),
        _ => Err(format!(
            "expected a whole number from 0 to {most}, or `unset`"
        )),
    }
}
