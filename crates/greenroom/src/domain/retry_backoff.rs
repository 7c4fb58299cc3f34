//! The backoff of a notifier: it doubles with each failure. A wait for an unreachable server ends when the link is
//! restored. Owned by the parent's notifier; pure.

use std::time::Duration;

use super::time::Timestamp;

/// The maximum wait.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The reason why a message was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryCause {
    /// The agent server refused the message.
    Refused,
    /// The agent server was not reached, or the outcome is unknown.
    Unreachable,
}

/// The state of the backoff.
#[derive(Debug, Default)]
pub(crate) struct RetryBackoff {
    failures: u32,
    not_before: Option<Timestamp>,
    /// True if the server was unreachable, not if it refused.
    unreachable: bool,
}

impl RetryBackoff {
    /// Records a failure and sets the next wait: 1 s, doubling to 60 s.
    pub(crate) fn failed(&mut self, why: RetryCause, now: Timestamp) {
        let wait = Duration::from_secs(1 << self.failures.min(6)).min(MAX_WAIT);
        self.failures += 1;
        self.not_before = Some(now + wait);
        self.unreachable = why == RetryCause::Unreachable;
    }

    /// Resets the backoff after an accepted message.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Records that the link is restored. Returns true if this ends a wait; a wait after a refusal continues. The next
    /// wait continues the doubling, so that an unstable link does not shorten it.
    pub(crate) fn link_restored(&mut self) -> bool {
        self.unreachable && self.not_before.take().is_some()
    }

    /// Returns the earliest time for a message due at `at`.
    pub(crate) fn earliest(&self, at: Timestamp) -> Timestamp {
        self.not_before.map_or(at, |not_before| at.max(not_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn restored_link_ends_wait_but_not_doubling() {
        let mut backoff = RetryBackoff::default();
        assert!(!backoff.link_restored(), "nothing waits");
        for _ in 0..3 {
            backoff.failed(RetryCause::Unreachable, at(0));
        }
        assert_eq!(backoff.earliest(at(0)), at(4));
        assert!(backoff.link_restored());
        assert_eq!(backoff.earliest(at(1)), at(1));
        assert!(!backoff.link_restored(), "once");
        backoff.failed(RetryCause::Unreachable, at(1));
        assert_eq!(backoff.earliest(at(1)), at(9));
        backoff.reset();
        backoff.failed(RetryCause::Unreachable, at(20));
        assert_eq!(backoff.earliest(at(20)), at(21));
    }

    #[test]
    fn restored_link_keeps_wait_after_refusal() {
        let mut backoff = RetryBackoff::default();
        backoff.failed(RetryCause::Refused, at(0));
        assert!(!backoff.link_restored());
        assert_eq!(backoff.earliest(at(0)), at(1));
    }
}
