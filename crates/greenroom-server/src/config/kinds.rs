//! What a key takes, as data: bounds and choices that the reader, the schema and the effective configuration share, so
//! that none of them can say something else than the others.

use std::time::Duration;

use toml::Value;

use super::settings::Settings;
use super::value::Raw;

/// What stands for "never" where the system knows no such thing: ten years.
pub const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    /// A text; a pattern says more of it to editors, the reader decides.
    Text {
        /// A regular expression that every good text matches.
        pattern: Option<&'static str>,
    },
    /// A whole number between two bounds.
    Count {
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// True or false.
    Switch,
    /// A duration between two bounds.
    Time {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
        /// Whether `0` is taken too.
        zero: bool,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Names to deny and to allow.
    Rules,
}

/// Stores the value of a key.
pub type PutOne = fn(&mut Settings, &Raw) -> Result<(), String>;
/// Stores the value of an entry below a key.
pub type PutNamed = fn(&mut Settings, &str, &Raw) -> Result<(), String>;

/// Where a value goes.
#[derive(Debug, Clone, Copy)]
pub enum Put {
    /// One value.
    One(PutOne),
    /// Values by name, below the key: `limits.models."acme/big"`.
    Named(PutNamed),
}

/// A place in the settings.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// What it takes.
    pub takes: Takes,
    /// How it is stored.
    pub put: Put,
    /// What is stored there now, as a file would write it; a table for values by name.
    pub get: fn(&Settings) -> Value,
}

impl Field {
    /// A place with functions of its own.
    pub const fn one(takes: Takes, put: PutOne, get: fn(&Settings) -> Value) -> Self {
        Self {
            takes,
            put: Put::One(put),
            get,
        }
    }

    /// Places by name.
    pub const fn named(takes: Takes, put: PutNamed, get: fn(&Settings) -> Value) -> Self {
        Self {
            takes,
            put: Put::Named(put),
            get,
        }
    }
}

/// A time as a file would write it; what stands for never is `0`.
pub fn time_text(time: Duration) -> Value {
    let text = if time.is_zero() || time == NEVER {
        "0".to_owned()
    } else {
        humantime::format_duration(time).to_string()
    };
    Value::String(text)
}

macro_rules! count {
    ($min:expr, $max:expr, $($field:tt)+) => {
        Field::one(
            Takes::Count { min: $min, max: $max },
            |settings, raw| { settings.$($field)+ = raw.count($min, $max)?; Ok(()) },
            |settings| toml::Value::Integer(settings.$($field)+.into()),
        )
    };
}
macro_rules! flag {
    ($($field:tt)+) => {
        Field::one(
            Takes::Switch,
            |settings, raw| { settings.$($field)+ = raw.flag()?; Ok(()) },
            |settings| toml::Value::Boolean(settings.$($field)+),
        )
    };
}
/// A time in which zero means zero.
macro_rules! wait {
    ($max:expr, $($field:tt)+) => {
        Field::one(
            Takes::Time { min: MS, max: $max, zero: true },
            |settings, raw| { settings.$($field)+ = raw.time_or_zero(MS, $max)?.unwrap_or_default(); Ok(()) },
            |settings| time_text(settings.$($field)+),
        )
    };
}
/// A time limit in which zero means never.
macro_rules! limit {
    ($min:expr, $max:expr, $($field:tt)+) => {
        Field::one(
            Takes::Time { min: $min, max: $max, zero: true },
            |settings, raw| { settings.$($field)+ = raw.time_or_zero($min, $max)?.unwrap_or(NEVER); Ok(()) },
            |settings| time_text(settings.$($field)+),
        )
    };
}
/// The same where the system itself knows that there may be no limit.
macro_rules! optional {
    ($max:expr, $($field:tt)+) => {
        Field::one(
            Takes::Time { min: MS, max: $max, zero: true },
            |settings, raw| { settings.$($field)+ = raw.time_or_zero(MS, $max)?; Ok(()) },
            |settings| time_text(settings.$($field)+.unwrap_or_default()),
        )
    };
}
/// A time limit that must be there.
macro_rules! always {
    ($min:expr, $max:expr, $($field:tt)+) => {
        Field::one(
            Takes::Time { min: $min, max: $max, zero: false },
            |settings, raw| { settings.$($field)+ = raw.time($min, $max)?; Ok(()) },
            |settings| time_text(settings.$($field)+),
        )
    };
}
pub(super) use {always, count, flag, limit, optional, wait};
