//! How one value is read, from TOML or from a text of the command line or the environment. What comes out is bounded;
//! what is wrong is said as a sentence that names what would be right.

use std::time::Duration;

/// No text is longer, in bytes; no path can be.
pub const LONGEST_TEXT: usize = 4096;

/// A value as it was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// From a file, with a type of its own.
    Toml(toml::Value),
    /// From a flag or the environment.
    Text(String),
}

impl Raw {
    /// A text: bounded, and nothing in it that a terminal would act on or a file name cannot hold.
    pub fn text(&self) -> Result<String, String> {
        match self {
            Self::Text(text) | Self::Toml(toml::Value::String(text)) => {
                plain(text)?;
                Ok(text.clone())
            }
            Self::Toml(other) => Err(format!("expected a text in quotes, found {}", found(other))),
        }
    }

    /// A whole number between two bounds.
    pub fn count(&self, min: u32, max: u32) -> Result<u32, String> {
        let problem =
            |found: String| format!("expected a whole number from {min} to {max}, found {found}");
        let number = match self {
            Self::Toml(toml::Value::Integer(number)) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Toml(_) => None,
        };
        number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| problem(self.found()))
    }

    /// `true` or `false`.
    pub fn flag(&self) -> Result<bool, String> {
        match self {
            Self::Toml(toml::Value::Boolean(flag)) => Ok(*flag),
            Self::Text(text) if text.trim() == "true" => Ok(true),
            Self::Text(text) if text.trim() == "false" => Ok(false),
            _ => Err(format!("expected true or false, found {}", self.found())),
        }
    }

    /// A duration between two bounds, or none for `0`.
    pub fn time_or_zero(&self, min: Duration, max: Duration) -> Result<Option<Duration>, String> {
        match self.duration() {
            Some(time) if time.is_zero() => Ok(None),
            Some(time) if (min..=max).contains(&time) => Ok(Some(time)),
            _ => Err(format!(
                "{}, or \"0\", found {}",
                expected(min, max),
                self.found()
            )),
        }
    }

    /// A duration between two bounds.
    pub fn time(&self, min: Duration, max: Duration) -> Result<Duration, String> {
        let time = self.duration().filter(|time| (min..=max).contains(time));
        time.ok_or_else(|| format!("{}, found {}", expected(min, max), self.found()))
    }

    fn duration(&self) -> Option<Duration> {
        match self {
            Self::Text(text) | Self::Toml(toml::Value::String(text)) if text.trim() == "0" => {
                Some(Duration::ZERO)
            }
            Self::Text(text) | Self::Toml(toml::Value::String(text)) => {
                humantime::parse_duration(text.trim()).ok()
            }
            Self::Toml(toml::Value::Integer(0)) => Some(Duration::ZERO),
            Self::Toml(_) => None,
        }
    }

    /// Names, at most a hundred: a TOML array, or a text with commas.
    pub fn names(&self) -> Result<Vec<String>, String> {
        let problem = || {
            format!(
                "expected at most 100 names such as [\"write\", \"edit\"], found {}",
                self.found()
            )
        };
        let names: Vec<String> = match self {
            Self::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            Self::Toml(toml::Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or_else(problem)?,
            Self::Toml(_) => return Err(problem()),
        };
        names.iter().try_for_each(|name| plain(name))?;
        if names.len() <= 100 {
            Ok(names)
        } else {
            Err(problem())
        }
    }

    /// What was found, for a message: short, and never a whole document.
    fn found(&self) -> String {
        match self {
            Self::Toml(value) => found(value),
            Self::Text(text) => quoted(text),
        }
    }
}

/// Refuses what no text of the configuration has in it. A variable that is no UTF-8 comes with replacement characters.
pub(crate) fn plain(text: &str) -> Result<(), String> {
    if text.len() > LONGEST_TEXT {
        return Err(format!(
            "expected at most {LONGEST_TEXT} bytes, found {}",
            text.len()
        ));
    }
    match text
        .chars()
        .find(|c| c.is_control() || *c == char::REPLACEMENT_CHARACTER)
    {
        None => Ok(()),
        Some(c) => Err(format!(
            "expected a text of printable characters, found {c:?} in it"
        )),
    }
}

fn expected(min: Duration, max: Duration) -> String {
    let (min, max) = (
        humantime::format_duration(min),
        humantime::format_duration(max),
    );
    format!("expected a duration from {min} to {max} such as \"500ms\" or \"3m\"")
}

fn found(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => quoted(text),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Datetime(_) => "a date".to_owned(),
        toml::Value::Array(_) => "a list".to_owned(),
        toml::Value::Table(_) => "a table".to_owned(),
    }
}

fn quoted(text: &str) -> String {
    format!("{:?}", greenroom::domain::task::cut(text, 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn durations_are_human_and_zero_is_none() {
        let read = |raw: &str| text(raw).time_or_zero(SECOND, 3600 * SECOND);
        assert_eq!(read("3m"), Ok(Some(180 * SECOND)));
        assert_eq!(read("1m 10s"), Ok(Some(70 * SECOND)));
        assert_eq!(read("0"), Ok(None));
        assert_eq!(read("0s"), Ok(None));
        assert_eq!(
            Raw::Toml(toml::Value::Integer(0)).time_or_zero(SECOND, SECOND),
            Ok(None)
        );
        for wrong in ["", "3", "-1s", "500ms", "2h", "soon"] {
            assert!(
                read(wrong).unwrap_err().contains("from 1s to 1h"),
                "{wrong}"
            );
        }
        assert!(
            text("0").time(SECOND, 3600 * SECOND).is_err(),
            "not every time can be turned off"
        );
    }

    #[test]
    fn numbers_are_whole_and_within_their_bounds() {
        assert_eq!(text("7").count(0, 10), Ok(7));
        assert_eq!(Raw::Toml(toml::Value::Integer(0)).count(0, 10), Ok(0));
        for wrong in ["11", "-1", "1.5", "", "many"] {
            assert!(
                text(wrong)
                    .count(0, 10)
                    .unwrap_err()
                    .contains("from 0 to 10"),
                "{wrong}"
            );
        }
        assert!(
            Raw::Toml(toml::Value::String("3".into()))
                .count(0, 10)
                .is_err(),
            "a file says what it means"
        );
    }

    #[test]
    fn names_come_as_a_list_or_with_commas() {
        assert_eq!(
            text("write, edit,").names(),
            Ok(vec!["write".to_owned(), "edit".to_owned()])
        );
        let list: toml::Table = "x = [\"write\"]".parse().unwrap();
        assert_eq!(
            Raw::Toml(list["x"].clone()).names(),
            Ok(vec!["write".to_owned()])
        );
        assert!(Raw::Toml(toml::Value::Integer(1)).names().is_err());
    }
}
