//! How long a notifier waits before it tries again: longer each time, but no longer than the way to the agent server is
//! closed if it was that. Owned by the parent's notifier; pure.

use std::time::Duration;

use super::time::Timestamp;

/// The most it waits.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// RetryCause a message was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryCause {
    /// The agent server said no.
    Refused,
    /// It was not reached, or whether it was is not known.
    Unreachable,
}

/// What a notifier waits for.
#[derive(Debug, Default)]
pub(crate) struct RetryBackoff {
    failures: u32,
    not_before: Option<Timestamp>,
    /// It was the way that failed, not the server that refused.
    unreachable: bool,
}

impl RetryBackoff {
    /// A message was not accepted: 1 s doubling to 60 s.
    pub(crate) fn failed(&mut self, why: RetryCause, now: Timestamp) {
        let wait = Duration::from_secs(1 << self.failures.min(6)).min(MAX_WAIT);
        self.failures += 1;
        self.not_before = Some(now + wait);
        self.unreachable = why == RetryCause::Unreachable;
    }

    /// A message was accepted.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// The way is open again. True if that is what was waited for: what the server has refused does not get better by it.
    /// The next wait goes on where this one stood, so that a way that opens all the time is no reason to hurry.
    pub(crate) fn link_restored(&mut self) -> bool {
        self.unreachable && self.not_before.take().is_some()
    }

    /// When what is due at `at` may be tried.
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
