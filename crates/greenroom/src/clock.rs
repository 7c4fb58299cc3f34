//! The clock of a system: tokio's monotonic clock for durations, and the wall clock for recorded times. Under a paused
//! runtime the monotonic clock is virtual, so a run is reproducible.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::domain::time::{Timestamp, millis};

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

    /// Returns the wall time. The system clock is read at most every [`READING_HOLDS`]: every event asks for the time. The sum
    /// is rounded last: rounded terms could make it later than the system clock, and later than messages that follow it.
    fn wall_millis(&self, elapsed: Duration) -> i64 {
        if let Some(last) = LAST_READING.get()
            && last.clock == self.started
            && let Some(since) = elapsed.checked_sub(last.elapsed)
            && since < READING_HOLDS
        {
            return millis(last.wall.saturating_add(since));
        }
        let wall = since_epoch(SystemTime::now());
        LAST_READING.set(Some(Reading {
            clock: self.started,
            // After the wall time, so that the sum is at most as late as the system clock.
            elapsed: self.started.elapsed(),
            wall,
        }));
        millis(wall)
    }
}

/// How long a reading of the system clock holds.
const READING_HOLDS: Duration = Duration::from_millis(20);

thread_local! {
    static LAST_READING: Cell<Option<Reading>> = const { Cell::new(None) };
}

/// A reading of the system clock on this thread.
#[derive(Clone, Copy)]
struct Reading {
    /// The start of the clock that read it.
    clock: Instant,
    /// The time on the monotonic clock since then.
    elapsed: Duration,
    /// The wall time since the Unix epoch.
    wall: Duration,
}

/// Returns true if the system clock is set to a time before 1970.
pub fn is_before_epoch() -> bool {
    SystemTime::now() < UNIX_EPOCH
}

/// Returns the milliseconds since the Unix epoch; zero before it.
fn millis_of(time: SystemTime) -> i64 {
    millis(since_epoch(time))
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
