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
        let elapsed = self.started.elapsed();
        let now = self.at_start + elapsed;
        match self.wall {
            WallClock::System => now.with_wall_millis(self.wall_millis(elapsed)),
            WallClock::Monotonic => now,
        }
    }

    /// Returns the wall time. The system clock is read at most every [`READING_HOLDS_MS`]: every event asks for the time.
    fn wall_millis(&self, elapsed: Duration) -> i64 {
        let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        if let Some(last) = LAST_READING.get()
            && last.clock == self.started
            && elapsed - last.elapsed < READING_HOLDS_MS
        {
            return last.wall + (elapsed - last.elapsed);
        }
        let wall = millis_of(SystemTime::now());
        LAST_READING.set(Some(Reading {
            clock: self.started,
            elapsed,
            wall,
        }));
        wall
    }
}

/// Milliseconds for which a reading of the system clock holds.
const READING_HOLDS_MS: i64 = 20;

thread_local! {
    static LAST_READING: Cell<Option<Reading>> = const { Cell::new(None) };
}

/// A reading of the system clock on this thread.
#[derive(Clone, Copy)]
struct Reading {
    /// The start of the clock that read it.
    clock: Instant,
    /// Milliseconds on the monotonic clock since then.
    elapsed: i64,
    /// The wall time, in milliseconds since the Unix epoch.
    wall: i64,
}

/// Returns true if the system clock is set to a time before 1970.
pub fn is_before_epoch() -> bool {
    SystemTime::now() < UNIX_EPOCH
}

/// Returns the milliseconds since the Unix epoch; zero before it.
fn millis_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_before_the_epoch_is_the_epoch() {
        assert_eq!(millis_of(UNIX_EPOCH - Duration::from_secs(3600)), 0);
        assert_eq!(millis_of(UNIX_EPOCH + Duration::from_secs(1)), 1000);
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
