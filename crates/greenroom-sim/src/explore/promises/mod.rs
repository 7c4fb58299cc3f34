//! The promises of the behaviour page, as code: one file for each, beside its number and its sentence. Each is shown every
//! entry of the log when it is written, and looks once more when everything has come to rest. They judge by what reached
//! the server and what the handle said; nothing in here reads the system's own state.

mod deadlines;
mod ends;
mod fifo;
mod identity;
mod idle;
mod slots;
mod truth;
mod wakes;

use std::fmt::Debug;

use super::log::Entry;
use super::observed::ObservedState;
use super::scenario::Scenario;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: &'static str,
    /// How.
    pub text: String,
    /// When, in virtual milliseconds.
    pub at: i64,
}

impl Violation {
    /// What is broken, without the names, times and numbers of this scenario.
    pub fn kind(&self) -> String {
        let words = self
            .text
            .split(|c: char| c.is_whitespace() || c == '(' || c == '"');
        let plain = words.filter(|word| !word.chars().any(|c| c.is_ascii_digit()));
        let words: Vec<&str> = plain.take(10).collect();
        format!("{}: {}", self.promise, words.join(" "))
    }
}

/// One promise.
pub trait Promise: Debug + Send {
    /// Its number and name.
    fn name(&self) -> &'static str;

    /// An entry is written; the ledger has it already. What is wrong, if anything is.
    fn check_entry(
        &mut self,
        index: usize,
        entry: &Entry,
        observed: &ObservedState,
    ) -> Option<String>;

    /// Everything has come to rest. What is wrong, if anything is.
    fn check_end(&mut self, _ledger: &ObservedState) -> Option<String> {
        None
    }
}

/// All of them, for a scenario.
pub fn all(scenario: &Scenario) -> Vec<Box<dyn Promise>> {
    let odds = &scenario.opencode.odds;
    let recorded = scenario.opencode.decisions.is_some();
    // A disk takes two seconds at most, and what is said while no process runs goes astray.
    let (latency, crashes) = match scenario.crashes() {
        true => (2000, true),
        false => (0, false),
    };
    let reliable = !recorded && !crashes && odds.events_are_true() && odds.calls_are_true();
    vec![
        Box::new(ends::Ends::default()),
        Box::new(deadlines::Deadlines::default()),
        Box::new(slots::Slots::new(scenario.config().limits)),
        Box::new(fifo::Fifo::default()),
        Box::new(wakes::Wakes::new(reliable, latency)),
        Box::new(identity::Identity::default()),
        Box::new(truth::Truth::new(reliable)),
        Box::new(idle::Idle::default()),
    ]
}
