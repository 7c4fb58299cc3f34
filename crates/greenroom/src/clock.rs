//! The one clock of a system: tokio's monotonic clock, with wall-clock times derived from its start. Under a paused
//! runtime it is virtual time, so that a run can be repeated to the byte.

use tokio::time::Instant;

use crate::domain::time::Timestamp;

/// A monotonic clock that reads as wall-clock time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    wall: Timestamp,
}

impl Clock {
    /// A clock that shows the machine's time now and is monotonic from here on.
    pub fn system() -> Self {
        Self::starting_at(Timestamp::from_millis(
            chrono::Utc::now().timestamp_millis(),
        ))
    }

    /// A clock that shows `wall` now. Tests start it at the epoch, so that times are virtual milliseconds.
    pub fn starting_at(wall: Timestamp) -> Self {
        Self {
            started: Instant::now(),
            wall,
        }
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        self.wall + self.started.elapsed()
    }
}
