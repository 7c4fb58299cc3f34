//! Random decisions by name. The same name under the same seed always gives the same decision, independent of
//! all others. So a scenario keeps its course when steps are removed, and the decisions that differ from
//! their defaults can be recorded and replayed without the seed. The model decides; shrinking reads the
//! decisions.

use std::collections::BTreeMap;

use super::old_names::original;

/// Decides by name.
#[derive(Debug, Clone)]
pub struct DecisionRng {
    seed: u64,
    /// Set for a scenario with recorded decisions; a decision that is not recorded has its default.
    recorded: Option<BTreeMap<String, i64>>,
    decisions: BTreeMap<String, i64>,
    defaults_only: bool,
}

impl DecisionRng {
    /// Returns a generator with a seed, or with recorded decisions.
    pub fn new(seed: u64, recorded: Option<BTreeMap<String, i64>>) -> Self {
        Self {
            seed,
            recorded,
            decisions: BTreeMap::new(),
            defaults_only: false,
        }
    }

    /// Makes every later decision the default.
    pub fn use_defaults(&mut self) {
        self.defaults_only = true;
    }

    /// Returns the decision of this name: `default`, or the result of `draw` with a random source of this
    /// name.
    pub fn decide(
        &mut self,
        name: String,
        default: i64,
        draw: impl FnOnce(&mut Rng) -> i64,
    ) -> i64 {
        if self.defaults_only {
            return default;
        }
        if let Some(recorded) = &self.recorded {
            return recorded.get(&name).copied().unwrap_or(default);
        }
        let decision = draw(&mut Rng::named(self.seed, &original(&name)));
        if decision != default {
            self.decisions.insert(name, decision);
        }
        decision
    }

    /// Returns every decision that differs from its default.
    pub fn decisions(&self) -> &BTreeMap<String, i64> {
        self.recorded.as_ref().unwrap_or(&self.decisions)
    }
}

/// A small random generator (SplitMix64), the same on every platform.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Returns the generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// Returns the generator of a name under a seed.
    pub fn named(seed: u64, name: &str) -> Self {
        // FNV-1a.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut source = Self::new(seed ^ hash);
        source.next_u64();
        source
    }

    /// Returns the next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut next_u64 = self.0;
        next_u64 = (next_u64 ^ (next_u64 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        next_u64 = (next_u64 ^ (next_u64 >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        next_u64 ^ (next_u64 >> 31)
    }

    /// Returns a number below `bound`; zero for a bound of zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }

    /// Returns a number from `low` to `high`, inclusive.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = u64::try_from(high.saturating_sub(low)).unwrap_or(0) + 1;
        low + i64::try_from(self.below(span)).unwrap_or(0)
    }

    /// Returns true with this probability, in a thousand.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.below(1000) < u64::from(permille)
    }

    /// Returns one of several choices.
    ///
    /// # Panics
    ///
    /// Panics if there are none.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let index = self.below(choices.len() as u64);
        &choices[usize::try_from(index).unwrap_or(0)]
    }

    /// Returns an index by weight; the first if all weights are zero.
    pub fn weighted_index(&mut self, weights: &[u32]) -> usize {
        let mut rest = self.below(weights.iter().map(|&weight| u64::from(weight)).sum());
        for (index, &weight) in weights.iter().enumerate() {
            if rest < u64::from(weight) {
                return index;
            }
            rest -= u64::from(weight);
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decision_depends_on_name_and_seed_only() {
        let draw = |source: &mut Rng| source.between(0, 1_000_000);
        let mut one = DecisionRng::new(7, None);
        one.decide("other".to_owned(), -1, draw);
        let first = one.decide("it".to_owned(), -1, draw);
        assert_eq!(
            DecisionRng::new(7, None).decide("it".to_owned(), -1, draw),
            first
        );
        assert_ne!(
            DecisionRng::new(8, None).decide("it".to_owned(), -1, draw),
            first
        );
    }

    #[test]
    fn recorded_decisions_are_replayed() {
        let draw = |source: &mut Rng| source.between(1, 9);
        let mut rng = DecisionRng::new(7, None);
        let decided = rng.decide("it".to_owned(), 0, draw);
        let mut again = DecisionRng::new(99, Some(rng.decisions().clone()));
        assert_eq!(again.decide("it".to_owned(), 0, draw), decided);
        assert_eq!(again.decide("another".to_owned(), 0, draw), 0);
    }
}
