//! The clock of a system: tokio's monotonic clock for durations, and the wall clock for recorded times. Under a paused
//! runtime the monotonic clock is virtual, so a run is reproducible.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::domain::time::Timestamp;

/// A monotonic clock with wall time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    wall: WallClock,
    /// The time of the start.
    at_start: Timestamp,
}

/// The source of wall times.
#[derive(Debug, Clone, Copy)]
enum WallClock {
    /// The clock of the system, read again and again: it may be set, and goes on during a suspension.
    System,
    /// The monotonic clock.
    Monotonic,
}

impl Clock {
    /// Returns a clock whose wall time follows the system clock within 20 ms. Its monotonic time starts at the current
    /// wall time.
    pub fn system() -> Self {
        Self {
            started: Instant::now(),
            wall: WallClock::System,
            at_start: Timestamp::from_millis(millis_of(SystemTime::now())),
        }
    }

    /// Returns a clock that starts at `start`; its wall time follows the monotonic clock. Tests start it at the epoch, so
    /// that times are virtual milliseconds.
    pub fn starting_at(start: Timestamp) -> Self {
        Self {
            started: Instant::now(),
            wall: WallClock::Monotonic,
            at_start: start,
        }
    }

    /// Returns the current time.
    pub fn now(&self) -> Timestamp {
        let elapsed = nanos(self.started.elapsed());
        let now = self.at_start.plus_millis(elapsed / NANOS);
        match self.wall {
            WallClock::System => now.with_wall_millis(self.wall_nanos(elapsed) / NANOS),
            WallClock::Monotonic => now,
        }
    }

    /// Returns the wall time. The system clock is read at most every [`READING_HOLDS`]: every event asks for the time. The
    /// sum is rounded last: rounded terms could make it later than the system clock, and later than messages that follow it.
    fn wall_nanos(&self, elapsed: i64) -> i64 {
        if let Some(last) = LAST_READING.get()
            && last.clock == self.started
            && (0..READING_HOLDS).contains(&(elapsed - last.elapsed))
        {
            return last.wall.saturating_add(elapsed - last.elapsed);
        }
        let wall = nanos(since_epoch(SystemTime::now()));
        LAST_READING.set(Some(Reading {
            clock: self.started,
            // After the wall time, so that the sum is at most as late as the system clock.
            elapsed: nanos(self.started.elapsed()),
            wall,
        }));
        wall
    }
}

/// Nanoseconds of a millisecond.
const NANOS: i64 = 1_000_000;

/// How long a reading of the system clock holds, in nanoseconds.
const READING_HOLDS: i64 = 20 * NANOS;

thread_local! {
    static LAST_READING: Cell<Option<Reading>> = const { Cell::new(None) };
}

/// A reading of the system clock on this thread.
#[derive(Clone, Copy)]
struct Reading {
    /// The start of the clock that read it.
    clock: Instant,
    /// Nanoseconds on the monotonic clock since then.
    elapsed: i64,
    /// Nanoseconds since the Unix epoch.
    wall: i64,
}

/// Returns true if the system clock is set to a time before 1970.
pub fn is_before_epoch() -> bool {
    SystemTime::now() < UNIX_EPOCH
}

/// Returns the milliseconds since the Unix epoch; zero before it.
fn millis_of(time: SystemTime) -> i64 {
    nanos(since_epoch(time)) / NANOS
}

/// Returns the nanoseconds of a duration of at most 292 years.
fn nanos(duration: Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let rest = i64::from(duration.subsec_nanos());
    seconds.saturating_mul(1000 * NANOS).saturating_add(rest)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_before_the_epoch_is_the_epoch() {
        assert_eq!(millis_of(UNIX_EPOCH - Duration::from_secs(3600)), 0);
        assert_eq!(millis_of(UNIX_EPOCH + Duration::from_secs(1)), 1000);
    }

    #[tokio::test]
    async fn wall_time_is_never_later_than_the_system_clock() {
        let clock = Clock::system();
        for _ in 0..200_000 {
            let now = clock.now().as_millis();
            assert!(now <= millis_of(SystemTime::now()), "{now}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn durations_are_monotonic_and_wall_time_is_that_of_the_system() {
        let clock = Clock::system();
        let start = clock.now();
        // The monotonic clock advances by an hour, the system clock does not: as if it had been set back.
        tokio::time::advance(Duration::from_secs(3600)).await;
        let later = clock.now();
        assert!(later.since(start) >= Duration::from_secs(3600));
        assert!(later.as_millis() - start.as_millis() < 60_000);
    }
}
