//! The clock of a system: tokio's monotonic clock, with wall-clock times derived from its start. Under a paused runtime
//! it is virtual time, so a run is reproducible.

use tokio::time::Instant;

use crate::domain::time::Timestamp;

/// A monotonic clock that reads as wall-clock time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    wall: Timestamp,
}

impl Clock {
    /// Returns a clock that starts at the machine's current time and is monotonic from then on.
    pub fn system() -> Self {
        Self::starting_at(Timestamp::from_millis(
            chrono::Utc::now().timestamp_millis(),
        ))
    }

    /// Returns a clock that starts at `wall`. Tests start it at the epoch, so that times are virtual milliseconds.
    pub fn starting_at(wall: Timestamp) -> Self {
        Self {
            started: Instant::now(),
            wall,
        }
    }

    /// Returns the current time.
    pub fn now(&self) -> Timestamp {
        self.wall + self.started.elapsed()
    }
}
