//! Timestamps of the domain. Each holds the wall time, which is recorded and published, and the monotonic time, from which
//! durations and deadlines are computed: neither a change of the system clock nor the suspension of a laptop ages a task.
//! The domain never reads a clock (see [`crate::clock::Clock`]); `now` is an argument.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, in whole milliseconds. Serialized as its wall time: RFC 3339 UTC with milliseconds. Ordered by its
/// monotonic time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Milliseconds on the monotonic clock of this process, which starts at the wall time of the start.
    monotonic: i64,
    /// Milliseconds since the Unix epoch.
    wall: i64,
}

impl Timestamp {
    /// Creates the time `millis` milliseconds after the Unix epoch. Its monotonic time is the same: the monotonic clock of
    /// its origin is unknown.
    pub const fn from_millis(millis: i64) -> Self {
        Self {
            monotonic: millis,
            wall: millis,
        }
    }

    /// Returns this time with the wall time `millis` milliseconds after the Unix epoch.
    pub(crate) const fn with_wall_millis(self, millis: i64) -> Self {
        Self {
            wall: millis,
            ..self
        }
    }

    /// Returns the wall time: the milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.wall
    }

    /// Returns the duration since `earlier` on the monotonic clock; zero if `earlier` is later, so that no duration is
    /// negative.
    pub fn since(self, earlier: Timestamp) -> Duration {
        let millis = self.monotonic.saturating_sub(earlier.monotonic);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// Returns the time that many milliseconds later.
    pub(crate) const fn plus_millis(self, millis: i64) -> Self {
        Self {
            monotonic: self.monotonic.saturating_add(millis),
            wall: self.wall.saturating_add(millis),
        }
    }

    /// Returns true if the wall time is before the wall time of `other`. For times of other programs, which have no monotonic time.
    pub const fn is_wall_before(self, other: Timestamp) -> bool {
        self.wall < other.wall
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, wait: Duration) -> Timestamp {
        self.plus_millis(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = DateTime::<Utc>::from_timestamp_millis(self.wall).unwrap_or_default();
        f.write_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let at = DateTime::parse_from_rfc3339(&text).map_err(|source| {
            serde::de::Error::custom(format!("{text:?} is not a valid RFC 3339 time: {source}"))
        })?;
        Ok(Self::from_millis(at.timestamp_millis()))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Formats a duration for people: `5s`, `1m 10s`, `1h 0m 3s`.
pub fn duration_text(took: Duration) -> String {
    let seconds = took.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m {seconds}s"),
        _ => format!("{hours}h {minutes}m {seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted() {
        let text = |millis| duration_text(Duration::from_millis(millis));
        assert_eq!(text(0), "0s");
        assert_eq!(text(5999), "5s");
        assert_eq!(text(70_000), "1m 10s");
        assert_eq!(text(3_603_000), "1h 0m 3s");
    }

    #[test]
    fn duration_is_never_negative() {
        assert_eq!(
            Timestamp::from_millis(5).since(Timestamp::from_millis(9)),
            Duration::ZERO
        );
    }

    #[test]
    fn step_of_the_wall_clock_changes_no_duration() {
        let started = Timestamp::from_millis(1_000);
        let ended = (started + Duration::from_secs(2)).with_wall_millis(900);
        assert_eq!(ended.since(started), Duration::from_secs(2));
        assert!(started < ended);
        assert!(ended.is_wall_before(started));
        assert_eq!(ended.to_string(), "1970-01-01T00:00:00.900Z");
    }

    #[test]
    fn timestamp_round_trips_with_milliseconds() {
        let at = Timestamp::from_millis(1_795_327_503_283);
        let json = serde_json::to_string(&at).unwrap();
        assert_eq!(json, "\"2026-11-22T06:05:03.283Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), at);
    }
}
