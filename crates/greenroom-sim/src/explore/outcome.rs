//! The thread, the runtime and the panics of one scenario, and its outcome.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use actix_rt::System;

use super::driver;
use super::promises::Violation;
use super::scenario::Scenario;
use crate::quiescence::Quiescence;
use crate::runner::{collect_panics, collected_panics};

/// The outcome of a scenario.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// The log, one line for each entry.
    pub lines: Vec<String>,
    /// The decisions of the server that differ from their defaults.
    pub decisions: BTreeMap<String, i64>,
    /// The virtual duration, in milliseconds.
    pub duration_ms: i64,
}

/// Runs a scenario on its own thread; `limit` is real time. Actors that keep each other busy at one instant
/// also break a promise, and their thread is left behind.
pub fn run(scenario: &Scenario, limit: Duration) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let run = scenario.clone();
    let spawned = std::thread::Builder::new()
        .name(scenario.name.clone())
        .spawn(move || {
            // The receiver is gone if the time limit was reached.
            drop(sender.send(run_scenario(&run)));
        });
    match spawned {
        Err(failure) => broken(format!("the thread cannot be created: {failure}")),
        Ok(_) => receiver.recv_timeout(limit).unwrap_or_else(|_| {
            broken(format!("the scenario did not end within {limit:?}: actors keep each other busy at one instant, or the explorer is broken"))
        }),
    }
}

fn broken(text: String) -> Outcome {
    let violation = Violation {
        promise: "1 Ends",
        text,
        at: 0,
    };
    Outcome {
        violation: Some(violation),
        lines: Vec::new(),
        decisions: BTreeMap::new(),
        duration_ms: 0,
    }
}

fn run_scenario(scenario: &Scenario) -> Outcome {
    let quiescence = Quiescence::default();
    let runtime = match quiescence.runtime() {
        Ok(runtime) => runtime,
        Err(failure) => return broken(format!("the runtime cannot be created: {failure}")),
    };
    collect_panics();
    let run =
        System::with_tokio_rt(|| runtime).block_on(driver::run_scenario(scenario, &quiescence));
    let panics = collected_panics();
    let mut violation = run.violation;
    let unexpected = panics.iter().find(|panic| !panic.contains("failpoint at"));
    if let (None, Some(panic)) = (&violation, unexpected) {
        violation = Some(Violation {
            promise: "no panic",
            text: panic.clone(),
            at: run.duration_ms,
        });
    }
    Outcome {
        violation,
        lines: run.log.lines(),
        decisions: run.decisions,
        duration_ms: run.duration_ms,
    }
}
