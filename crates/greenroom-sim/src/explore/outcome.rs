//! The thread, the runtime and the panics of one scenario, and what came of it.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use actix_rt::System;

use super::driver;
use super::promises::Violation;
use super::scenario::Scenario;
use crate::quiescence::Quiescence;
use crate::runner::{collect_panics, collected_panics};

/// What came of a scenario.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The promise that was broken first, if any was.
    pub violation: Option<Violation>,
    /// What happened, a line each.
    pub lines: Vec<String>,
    /// The decisions of the server that were not the usual ones.
    pub decisions: BTreeMap<String, i64>,
    /// How much virtual time it took, in milliseconds.
    pub duration_ms: i64,
}

/// Tells a scenario on a thread of its own; `limit` is real time. Actors that keep each other busy at one instant break a
/// promise too, and leave their thread behind.
pub fn run(scenario: &Scenario, limit: Duration) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let run = scenario.clone();
    let spawned = std::thread::Builder::new()
        .name(scenario.name.clone())
        .spawn(move || {
            // Whoever has given up wants nothing more.
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
    let ours = panics.iter().find(|panic| !panic.contains("sabotage at"));
    if let (None, Some(panic)) = (&violation, ours) {
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
