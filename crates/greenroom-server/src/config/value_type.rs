//! The types of configuration values as data. The loader, the schema and the effective configuration share the bounds
//! and choices.

use std::time::Duration;

use toml::Value;

use super::settings::Settings;
use super::value::Raw;

/// The value for "never" where the setting has no such state: ten years.
pub const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The type of a value.
#[derive(Debug, Clone, Copy)]
pub enum ValueType {
    /// A text. The pattern is for editors; the reader has the final say.
    Text {
        /// A regular expression that every valid text matches.
        pattern: Option<&'static str>,
    },
    /// A whole number between two bounds.
    Count {
        /// The minimum.
        min: u32,
        /// The maximum.
        max: u32,
    },
    /// True or false.
    Flag,
    /// A duration between two bounds.
    Duration {
        /// The minimum.
        min: Duration,
        /// The maximum.
        max: Duration,
        /// True if `0` is also valid.
        zero: bool,
    },
    /// One of a list of words.
    Choice(&'static [&'static str]),
    /// Names to deny and to allow.
    Rules,
}

/// Stores the value of a key.
pub type SetValue = fn(&mut Settings, &Raw) -> Result<(), String>;
/// Stores the value of an entry below a key.
pub type SetEntry = fn(&mut Settings, &str, &Raw) -> Result<(), String>;

/// How a value is stored.
#[derive(Debug, Clone, Copy)]
pub enum Setter {
    /// One value.
    Single(SetValue),
    /// Named entries below the key: `limits.models."acme/big"`.
    PerEntry(SetEntry),
}

/// A field of the settings.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The type of the value.
    pub value_type: ValueType,
    /// How the value is stored.
    pub set: Setter,
    /// Returns the current value as in a file; a table for named entries.
    pub get: fn(&Settings) -> Value,
}

impl Field {
    /// Creates a field with a single value.
    pub const fn single(value_type: ValueType, set: SetValue, get: fn(&Settings) -> Value) -> Self {
        Self {
            value_type,
            set: Setter::Single(set),
            get,
        }
    }

    /// Creates a field with named entries.
    pub const fn per_entry(
        value_type: ValueType,
        set: SetEntry,
        get: fn(&Settings) -> Value,
    ) -> Self {
        Self {
            value_type,
            set: Setter::PerEntry(set),
            get,
        }
    }
}

/// Returns a duration as in a file. [`NEVER`] is written as `0`.
pub fn duration_value(time: Duration) -> Value {
    let text = if time.is_zero() || time == NEVER {
        "0".to_owned()
    } else {
        humantime::format_duration(time).to_string()
    };
    Value::String(text)
}

macro_rules! count {
    ($min:expr, $max:expr, $($field:tt)+) => {
        Field::single(
            ValueType::Count { min: $min, max: $max },
            |settings, raw| { settings.$($field)+ = raw.count($min, $max)?; Ok(()) },
            |settings| toml::Value::Integer(settings.$($field)+.into()),
        )
    };
}
macro_rules! flag {
    ($($field:tt)+) => {
        Field::single(
            ValueType::Flag,
            |settings, raw| { settings.$($field)+ = raw.flag()?; Ok(()) },
            |settings| toml::Value::Boolean(settings.$($field)+),
        )
    };
}
/// A duration; `0` is zero.
macro_rules! duration {
    ($max:expr, $($field:tt)+) => {
        Field::single(
            ValueType::Duration { min: MS, max: $max, zero: true },
            |settings, raw| { settings.$($field)+ = raw.duration_or_zero(MS, $max)?.unwrap_or_default(); Ok(()) },
            |settings| duration_value(settings.$($field)+),
        )
    };
}
/// A time limit; `0` is never.
macro_rules! duration_limit {
    ($min:expr, $max:expr, $($field:tt)+) => {
        Field::single(
            ValueType::Duration { min: $min, max: $max, zero: true },
            |settings, raw| { settings.$($field)+ = raw.duration_or_zero($min, $max)?.unwrap_or(NEVER); Ok(()) },
            |settings| duration_value(settings.$($field)+),
        )
    };
}
/// An optional time limit; `0` is none.
macro_rules! optional_limit {
    ($max:expr, $($field:tt)+) => {
        Field::single(
            ValueType::Duration { min: MS, max: $max, zero: true },
            |settings, raw| { settings.$($field)+ = raw.duration_or_zero(MS, $max)?; Ok(()) },
            |settings| duration_value(settings.$($field)+.unwrap_or_default()),
        )
    };
}
/// A time limit that cannot be disabled.
macro_rules! nonzero_duration {
    ($min:expr, $max:expr, $($field:tt)+) => {
        Field::single(
            ValueType::Duration { min: $min, max: $max, zero: false },
            |settings, raw| { settings.$($field)+ = raw.duration_in($min, $max)?; Ok(()) },
            |settings| duration_value(settings.$($field)+),
        )
    };
}
pub(super) use {count, duration, duration_limit, flag, nonzero_duration, optional_limit};
