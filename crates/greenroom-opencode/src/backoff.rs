//! Exponential backoff with jitter. The event stream and the supervisor each own one.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Waits that double from `first` to `longest`. Each is shortened by up to half, so that several clients of one server do
/// not reconnect at the same time.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    rng: ChaCha8Rng,
}

impl Backoff {
    /// Returns a backoff at its first wait. A seed makes it repeatable.
    pub(crate) fn new(first: Duration, longest: Duration, seed: Option<u64>) -> Self {
        let rng = match seed {
            Some(seed) => ChaCha8Rng::seed_from_u64(seed),
            // Without system randomness the jitter is the same in every process, which is acceptable.
            None => ChaCha8Rng::try_from_rng(&mut rand::rngs::SysRng)
                .unwrap_or_else(|_| ChaCha8Rng::seed_from_u64(0)),
        };
        Self {
            first,
            longest,
            next: first,
            rng,
        }
    }

    /// Returns the next wait, and doubles the following wait.
    pub(crate) fn wait(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(self.longest);
        full.mul_f64(self.rng.random_range(0.5..=1.0))
    }

    /// Starts again with the first wait.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_until_a_reset() {
        let mut backoff =
            Backoff::new(Duration::from_millis(500), Duration::from_secs(10), Some(7));
        for full in [500, 1000, 2000, 4000, 8000, 10_000, 10_000] {
            let wait = backoff.wait();
            assert!(
                wait <= Duration::from_millis(full),
                "{wait:?} is longer than {full} ms"
            );
            assert!(
                wait >= Duration::from_millis(full / 2),
                "{wait:?} is shorter than half of {full} ms"
            );
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(500));
    }

    #[test]
    fn waits_depend_on_the_seed() {
        let waits = |seed| {
            let mut backoff = Backoff::new(
                Duration::from_millis(500),
                Duration::from_secs(10),
                Some(seed),
            );
            [backoff.wait(), backoff.wait(), backoff.wait()]
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
