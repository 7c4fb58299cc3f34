//! Finds the smallest scenario that still breaks the same promise. First all decisions of the server are
//! recorded, so that none is random; then steps, decisions and settings are removed as long as the promise
//! stays broken.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::outcome::{Outcome, run};
use super::scenario::{Odds, Scenario, Settings};

/// Real time for one attempt.
const LIMIT: Duration = Duration::from_secs(20);

/// Shrinks a scenario with this outcome, within a time limit. The result breaks the same promise.
pub fn shrink(scenario: &Scenario, outcome: &Outcome, time_limit: Duration) -> (Scenario, Outcome) {
    let Some(violation) = &outcome.violation else {
        return (scenario.clone(), outcome.clone());
    };
    let mut shrinker = Shrinker {
        broken: violation.kind(),
        best: scenario.clone(),
        outcome: outcome.clone(),
        until: Instant::now() + time_limit,
    };
    let mut recorded = scenario.clone();
    recorded.opencode.decisions = Some(outcome.decisions.clone());
    // Whether late events keep their order, and whether effects are exact, are not recorded decisions.
    recorded.opencode.odds = Odds {
        event_reordered: scenario.opencode.odds.event_reordered,
        exact_effects: scenario.opencode.odds.exact_effects,
        ..Odds::default()
    };
    shrinker.attempt(recorded);
    loop {
        let before = shrinker.size();
        shrinker.steps();
        shrinker.decisions();
        shrinker.settings();
        if shrinker.size() == before || shrinker.is_over() {
            break;
        }
    }
    shrinker.heal_earlier();
    shrinker.best.about = shrinker
        .outcome
        .violation
        .as_ref()
        .map_or_else(String::new, |broken| {
            format!("{}: {}", broken.promise, broken.text)
        });
    (shrinker.best, shrinker.outcome)
}

struct Shrinker {
    broken: String,
    best: Scenario,
    outcome: Outcome,
    until: Instant,
}

impl Shrinker {
    /// Keeps a scenario if it breaks the same promise.
    fn attempt(&mut self, scenario: Scenario) -> bool {
        if self.is_over() {
            return false;
        }
        let outcome = run(&scenario, LIMIT);
        let same = outcome
            .violation
            .as_ref()
            .is_some_and(|broken| broken.kind() == self.broken);
        if same {
            (self.best, self.outcome) = (scenario, outcome);
        }
        same
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn size(&self) -> (usize, usize, Settings) {
        let decisions = self
            .best
            .opencode
            .decisions
            .as_ref()
            .map_or(0, BTreeMap::len);
        (self.best.steps.len(), decisions, self.best.config.clone())
    }

    /// Removes ever smaller ranges of steps.
    fn steps(&mut self) {
        self.remove_ranges(
            self.best.steps.len(),
            |scenario, from, to| {
                scenario.steps.drain(from..to.min(scenario.steps.len()));
            },
            |scenario| scenario.steps.len(),
        );
    }

    fn decisions(&mut self) {
        let count = |scenario: &Scenario| {
            scenario
                .opencode
                .decisions
                .as_ref()
                .map_or(0, BTreeMap::len)
        };
        self.remove_ranges(
            count(&self.best),
            |scenario, from, to| {
                if let Some(decisions) = &mut scenario.opencode.decisions {
                    let names: Vec<String> = decisions
                        .keys()
                        .skip(from)
                        .take(to - from)
                        .cloned()
                        .collect();
                    for name in names {
                        decisions.remove(&name);
                    }
                }
            },
            count,
        );
    }

    fn remove_ranges(
        &mut self,
        length: usize,
        remove: impl Fn(&mut Scenario, usize, usize),
        length_of: impl Fn(&Scenario) -> usize,
    ) {
        let mut size = length;
        while size > 0 && !self.is_over() {
            let mut from = 0;
            while from < length_of(&self.best) && !self.is_over() {
                let mut smaller = self.best.clone();
                remove(&mut smaller, from, from + size);
                if !self.attempt(smaller) {
                    from += size;
                }
            }
            size /= 2;
        }
    }

    /// Removes each setting.
    fn settings(&mut self) {
        let Ok(serde_json::Value::Object(known)) = serde_json::to_value(&self.best.config) else {
            return;
        };
        for name in known.keys() {
            let Ok(serde_json::Value::Object(mut fewer)) = serde_json::to_value(&self.best.config)
            else {
                return;
            };
            fewer.remove(name);
            if let Ok(config) = serde_json::from_value(fewer.into()) {
                let smaller = Scenario {
                    config,
                    ..self.best.clone()
                };
                self.attempt(smaller);
            }
        }
    }

    /// Ends the faults of the server right after the last step, if the promise stays broken.
    fn heal_earlier(&mut self) {
        let mut smaller = self.best.clone();
        smaller.healed_at = smaller.steps.last().map_or(0, |step| step.at) + 1;
        self.attempt(smaller);
    }
}
