//! The promises of the behaviour page, as checks: one file for each, with its number and its text. Each
//! promise checks every entry of the log and the final state. The checks use the calls that reached the
//! server and the answers of the handle, never the system's own state.

mod absence;
mod answers;
mod continued;
mod cut_off;
mod deadlines;
mod ends;
mod fifo;
mod identity;
mod idle;
mod resent;
mod reverts;
mod slots;
mod truth;
mod wakes;

use std::fmt::Debug;

use super::log::Entry;
use super::observed::ObservedState;
use super::scenario::Scenario;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of the promise.
    pub promise: &'static str,
    /// The violation.
    pub text: String,
    /// The time, in virtual milliseconds.
    pub at: i64,
}

impl Violation {
    /// Returns the text without the names, times and numbers of this scenario.
    pub fn kind(&self) -> String {
        let words = self
            .text
            .split(|c: char| c.is_whitespace() || c == '(' || c == '"');
        let plain = words.filter(|word| !word.chars().any(|c| c.is_ascii_digit()));
        let words: Vec<&str> = plain.take(10).collect();
        format!("{}: {}", self.promise, words.join(" "))
    }
}

/// A promise.
pub trait Promise: Debug + Send {
    /// Returns its number and name.
    fn name(&self) -> &'static str;

    /// Checks a new entry; the observed state already contains it. Returns a violation.
    fn check_entry(
        &mut self,
        index: usize,
        entry: &Entry,
        observed: &ObservedState,
    ) -> Option<String>;

    /// Checks the final state. Returns a violation.
    fn check_end(&mut self, _observed: &ObservedState) -> Option<String> {
        None
    }
}

/// Returns all promises of a scenario.
pub fn all(scenario: &Scenario) -> Vec<Box<dyn Promise>> {
    let odds = &scenario.opencode.odds;
    let recorded = scenario.opencode.decisions.is_some();
    // A commit takes two seconds at most. Events are lost while no process runs.
    let crashes = scenario.crashes();
    let latency = if crashes { 2000 } else { 0 };
    let reliable = !recorded && !crashes && odds.events_are_true() && odds.calls_are_true();
    let mut promises: Vec<Box<dyn Promise>> = vec![
        Box::new(ends::Ends::default()),
        Box::new(deadlines::Deadlines::default()),
        Box::new(slots::Slots::new(scenario.config().limits)),
        Box::new(fifo::Fifo::default()),
        Box::new(wakes::Wakes::new(reliable, latency, scenario.is_ordinary())),
        Box::new(identity::Identity::default()),
        Box::new(truth::Truth::new(reliable)),
        Box::new(idle::Idle::default()),
    ];
    if scenario.is_ordinary() {
        if odds.events_are_true() && odds.calls_are_true() {
            promises.push(Box::new(absence::Absence::default()));
        }
        promises.push(Box::new(cut_off::CutOff::default()));
        promises.push(Box::new(answers::Answers::new(odds.events_are_true())));
        promises.push(Box::new(reverts::Reverts::default()));
        promises.push(Box::new(resent::Resent::default()));
        promises.push(Box::new(continued::Continued::new(
            odds.event_late == 0 && odds.event_doubled == 0,
        )));
    }
    promises
}
