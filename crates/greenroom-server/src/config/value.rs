//! Parses one value from TOML, or from the text of a flag or variable. Values are bounded; an error names the expected
//! form.

use std::time::Duration;

/// Maximum length of a text, in bytes.
pub const MAX_TEXT_BYTES: usize = 4096;

/// An unparsed value.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// A typed value from a file.
    Toml(toml::Value),
    /// Text from a flag or the environment.
    Text(String),
}

impl Raw {
    /// Parses a text. Rejects long texts and control characters.
    pub fn text(&self) -> Result<String, String> {
        match self {
            Self::Text(text) | Self::Toml(toml::Value::String(text)) => {
                check_printable(text)?;
                Ok(text.clone())
            }
            Self::Toml(other) => Err(format!(
                "expected a text in quotes, found {}",
                describe(other)
            )),
        }
    }

    /// Parses a whole number in a range.
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
            .ok_or_else(|| problem(self.describe()))
    }

    /// Parses `true` or `false`.
    pub fn flag(&self) -> Result<bool, String> {
        match self {
            Self::Toml(toml::Value::Boolean(flag)) => Ok(*flag),
            Self::Text(text) if text.trim() == "true" => Ok(true),
            Self::Text(text) if text.trim() == "false" => Ok(false),
            _ => Err(format!("expected true or false, found {}", self.describe())),
        }
    }

    /// Parses a duration in a range, or `0`, which is none.
    pub fn duration_or_zero(
        &self,
        min: Duration,
        max: Duration,
    ) -> Result<Option<Duration>, String> {
        match self.duration() {
            Some(duration) if duration.is_zero() => Ok(None),
            Some(duration) if (min..=max).contains(&duration) => Ok(Some(duration)),
            _ => Err(format!(
                "{}, or \"0\", found {}",
                expected_range(min, max),
                self.describe()
            )),
        }
    }

    /// Parses a duration in a range.
    pub fn duration_in(&self, min: Duration, max: Duration) -> Result<Duration, String> {
        let duration = self
            .duration()
            .filter(|duration| (min..=max).contains(duration));
        duration.ok_or_else(|| format!("{}, found {}", expected_range(min, max), self.describe()))
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

    /// Parses at most 100 names: a TOML array, or a comma-separated text.
    pub fn names(&self) -> Result<Vec<String>, String> {
        let problem = || {
            format!(
                "expected at most 100 names such as [\"write\", \"edit\"], found {}",
                self.describe()
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
        names.iter().try_for_each(|name| check_printable(name))?;
        if names.len() <= 100 {
            Ok(names)
        } else {
            Err(problem())
        }
    }

    /// Describes the value in a few words for an error message.
    fn describe(&self) -> String {
        match self {
            Self::Toml(value) => describe(value),
            Self::Text(text) => quote(text),
        }
    }
}

/// Rejects long texts and control characters. Invalid UTF-8 in a variable shows as replacement characters.
pub(crate) fn check_printable(text: &str) -> Result<(), String> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!(
            "expected at most {MAX_TEXT_BYTES} bytes, found {}",
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

fn expected_range(min: Duration, max: Duration) -> String {
    let (min, max) = (
        humantime::format_duration(min),
        humantime::format_duration(max),
    );
    format!("expected a duration from {min} to {max} such as \"500ms\" or \"3m\"")
}

fn describe(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => quote(text),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Datetime(_) => "a date".to_owned(),
        toml::Value::Array(_) => "a list".to_owned(),
        toml::Value::Table(_) => "a table".to_owned(),
    }
}

fn quote(text: &str) -> String {
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
    fn durations_are_parsed_and_zero_is_none() {
        let read = |raw: &str| text(raw).duration_or_zero(SECOND, 3600 * SECOND);
        assert_eq!(read("3m"), Ok(Some(180 * SECOND)));
        assert_eq!(read("1m 10s"), Ok(Some(70 * SECOND)));
        assert_eq!(read("0"), Ok(None));
        assert_eq!(read("0s"), Ok(None));
        assert_eq!(
            Raw::Toml(toml::Value::Integer(0)).duration_or_zero(SECOND, SECOND),
            Ok(None)
        );
        for wrong in ["", "3", "-1s", "500ms", "2h", "soon"] {
            assert!(
                read(wrong).unwrap_err().contains("from 1s to 1h"),
                "{wrong}"
            );
        }
        assert!(
            text("0").duration_in(SECOND, 3600 * SECOND).is_err(),
            "not every time can be turned off"
        );
    }

    #[test]
    fn numbers_are_bounded_integers() {
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
            "a file is read without conversion"
        );
    }

    #[test]
    fn names_are_a_list_or_comma_separated() {
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
