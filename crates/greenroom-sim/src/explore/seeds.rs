//! Runs many seeds on several threads, in order, until a promise is broken or the time is over.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::generate;
use super::outcome::{Outcome, run};
use super::promises::Violation;
use super::scenario::{Profile, Scenario};
use crate::lock;

/// Real time for one scenario. A scenario takes milliseconds, unless actors keep each other busy.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The result of an exploration.
#[derive(Debug)]
pub struct ExploreReport {
    /// The lowest seed that broke a promise, with its scenario and outcome.
    pub first_broken: Option<BrokenSeed>,
    /// The first seed that was not run.
    pub next: u64,
    /// The number of scenarios that were run.
    pub explored: u64,
    /// Every kind of violation, with the number of seeds and the lowest seed that showed it.
    pub kinds: BTreeMap<String, (u64, u64)>,
}

/// A seed that broke a promise.
#[derive(Debug)]
pub struct BrokenSeed {
    /// The seed.
    pub seed: u64,
    /// Its scenario.
    pub scenario: Scenario,
    /// The outcome of the run.
    pub outcome: Outcome,
}

/// The options of an exploration.
#[derive(Debug, Clone, Copy)]
pub struct ExploreOptions {
    /// The number of threads.
    pub threads: usize,
    /// Real time for all scenarios.
    pub time: Option<Duration>,
    /// Whether to continue after a violation and count the kinds.
    pub survey: bool,
    /// Whether to run each scenario twice and compare the traces.
    pub twice: bool,
}

/// Runs the scenarios of these seeds. All below [`ExploreReport::next`] were run.
pub fn explore(seeds: Range<u64>, profile: Profile, options: ExploreOptions) -> ExploreReport {
    let until = options.time.map(|time| Instant::now() + time);
    let next = AtomicU64::new(seeds.start);
    let explored = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let kinds: Mutex<BTreeMap<String, (u64, u64)>> = Mutex::default();
    let broken: Mutex<Option<BrokenSeed>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire)
                    && until.is_none_or(|until| Instant::now() < until)
                {
                    let seed = next.fetch_add(1, Ordering::AcqRel);
                    if seed >= seeds.end {
                        break;
                    }
                    let scenario = generate::scenario(seed, profile);
                    let mut outcome = run(&scenario, LIMIT);
                    if options.twice && outcome.violation.is_none() {
                        outcome.violation = difference(&outcome, &run(&scenario, LIMIT));
                    }
                    explored.fetch_add(1, Ordering::AcqRel);
                    if let Some(violation) = &outcome.violation {
                        stop.store(!options.survey, Ordering::Release);
                        let mut kinds = lock(&kinds);
                        let (count, lowest) = kinds.entry(violation.kind()).or_insert((0, seed));
                        (*count, *lowest) = (*count + 1, seed.min(*lowest));
                        drop(kinds);
                        let mut broken = lock(&broken);
                        if broken.as_ref().is_none_or(|known| seed < known.seed) {
                            *broken = Some(BrokenSeed {
                                seed,
                                scenario,
                                outcome,
                            });
                        }
                    }
                }
            });
        }
    });
    ExploreReport {
        first_broken: broken.into_inner().unwrap_or_else(PoisonError::into_inner),
        next: next.into_inner().min(seeds.end),
        explored: explored.into_inner(),
        kinds: kinds.into_inner().unwrap_or_else(PoisonError::into_inner),
    }
}

/// Returns the first difference between two runs of a scenario.
fn difference(once: &Outcome, again: &Outcome) -> Option<Violation> {
    let place = once
        .lines
        .iter()
        .zip(&again.lines)
        .position(|(one, other)| one != other)
        .or((once.lines.len() != again.lines.len())
            .then_some(once.lines.len().min(again.lines.len())))?;
    Some(Violation {
        promise: "the same seed, the same trace",
        text: format!(
            "line {place} is {:?} and {:?}",
            once.lines.get(place),
            again.lines.get(place)
        ),
        at: once.duration_ms,
    })
}
