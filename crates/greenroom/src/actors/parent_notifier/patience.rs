//! How long a notifier waits before it tries again: longer each time, but no longer than the way to the agent server is
//! closed if it was that. Pure; its notifier asks it.

use std::time::Duration;

use crate::domain::time::Timestamp;
use crate::ports::agent_server::ServerError;

/// The most it waits.
const MOST: Duration = Duration::from_secs(60);

/// What a notifier waits for.
#[derive(Debug, Default)]
pub(super) struct Patience {
    failures: u32,
    not_before: Option<Timestamp>,
    /// It was the way that failed, not the server that refused.
    of_way: bool,
}

impl Patience {
    /// A message was not accepted: 1 s doubling to 60 s.
    pub(super) fn failed(&mut self, failure: &ServerError, now: Timestamp) {
        let wait = Duration::from_secs(1 << self.failures.min(6)).min(MOST);
        self.failures += 1;
        self.not_before = Some(now + wait);
        self.of_way = !matches!(failure, ServerError::Refused { .. });
    }

    /// A message was accepted.
    pub(super) fn over(&mut self) {
        *self = Self::default();
    }

    /// The way is open again. True if that is what was waited for: what the server has refused does not get better by it.
    /// The next wait goes on where this one stood, so that a way that opens all the time is no reason to hurry.
    pub(super) fn way_opened(&mut self) -> bool {
        self.of_way && self.not_before.take().is_some()
    }

    /// When what is due at `at` may be tried.
    pub(super) fn earliest(&self, at: Timestamp) -> Timestamp {
        self.not_before.map_or(at, |not_before| at.max(not_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn away() -> ServerError {
        ServerError::Unreachable("connection refused".to_owned())
    }

    #[test]
    fn an_open_way_ends_the_wait_for_it_and_not_the_doubling() {
        let mut patience = Patience::default();
        assert!(!patience.way_opened(), "nothing waits");
        for _ in 0..3 {
            patience.failed(&away(), at(0));
        }
        assert_eq!(patience.earliest(at(0)), at(4));
        assert!(patience.way_opened());
        assert_eq!(patience.earliest(at(1)), at(1));
        assert!(!patience.way_opened(), "once");
        patience.failed(&away(), at(1));
        assert_eq!(patience.earliest(at(1)), at(9));
        patience.over();
        patience.failed(&away(), at(20));
        assert_eq!(patience.earliest(at(20)), at(21));
    }

    #[test]
    fn what_the_server_has_refused_waits_all_the_same() {
        let mut patience = Patience::default();
        let refused = ServerError::Refused {
            status: Some(500),
            message: "no".to_owned(),
        };
        patience.failed(&refused, at(0));
        assert!(!patience.way_opened());
        assert_eq!(patience.earliest(at(0)), at(1));
    }
}
