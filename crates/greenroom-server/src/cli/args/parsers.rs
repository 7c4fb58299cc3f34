//! Parsers for single arguments. They run before any call: values are bounded, and contain nothing that a terminal
//! would interpret or that is invalid in a path or header.

use std::path::PathBuf;
use std::time::Duration;

use greenroom::domain::task::TaskStatus;

use crate::config::value::MAX_TEXT_BYTES;

/// Parses a non-blank text of one line.
///
/// # Errors
/// Fails if the text is blank, too long, or contains control characters.
pub fn line(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    optional_line(text)
}

/// Parses a text of one line, which may be empty.
///
/// # Errors
/// Fails if the text is too long or contains control characters.
pub fn optional_line(text: &str) -> Result<String, String> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!(
            "it has {} bytes, more than {MAX_TEXT_BYTES}",
            text.len()
        ));
    }
    match text.chars().find(|c| c.is_control()) {
        None => Ok(text.to_owned()),
        Some(c) => Err(format!("it holds the control character {c:?}")),
    }
}

/// Parses a path.
///
/// # Errors
/// As [`line()`].
pub fn path(text: &str) -> Result<PathBuf, String> {
    line(text).map(PathBuf::from)
}

/// Parses a duration such as `7d` or `12h`.
///
/// # Errors
/// Fails if the text is not a valid duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(&line(text)?)
        .map_err(|_| "write it as a time, for instance 7d or 12h".to_owned())
}

/// Parses a prompt: any non-blank text. The service limits its length.
///
/// # Errors
/// Fails if the text is blank.
pub fn prompt(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses comma-separated task states.
///
/// # Errors
/// Fails for an unknown state; the text lists the known ones.
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

/// Parses `PROVIDER/MODEL`.
///
/// # Errors
/// Fails if one of them is missing.
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
pub enum LimitValue {
    /// Number of concurrent tasks; zero is unlimited.
    Limit(u32),
    /// Removes the rule; a numeric limit returns to its configured value.
    Unset,
}

/// Parses a number of slots, or `unset`.
///
/// # Errors
/// Fails for any other text.
pub fn limit_value(text: &str) -> Result<LimitValue, String> {
    let most = crate::config::keys::MAX_COUNT;
    if text == "unset" {
        return Ok(LimitValue::Unset);
    }
    match text.parse() {
        Ok(limit) if limit <= most => Ok(LimitValue::Limit(limit)),
        _ => Err(format!(
            "expected a whole number from 0 to {most}, or `unset`"
        )),
    }
}
