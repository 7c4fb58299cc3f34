//! The thread, the runtime and the panics of one scenario, and what came of it.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use actix_rt::System;

use super::driver;
use super::promises::Violation;
use super::scenario::Scenario;
use crate::quiescence::Quiet;
use crate::runner::{collect_panics, collected_panics};

/// What came of a scenario.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The promise that was broken first, if any was.
    pub violation: Option<Violation>,
    /// What happened, a line each.
    pub lines: Vec<String>,
    /// The decisions of the server that were not the usual ones.
    pub fallen: BTreeMap<String, i64>,
    /// How much virtual time it took, in milliseconds.
    pub took: i64,
}

/// Tells a scenario on a thread of its own; `limit` is real time. Actors that keep each other busy at one instant break a
/// promise too, and leave their thread behind.
pub fn run(scenario: &Scenario, limit: Duration) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let told = scenario.clone();
    let spawned = std::thread::Builder::new()
        .name(scenario.name.clone())
        .spawn(move || {
            // Whoever has given up wants nothing more.
            drop(sender.send(tell(&told)));
        });
    match spawned {
        Err(failure) => broken(format!("no thread for it: {failure}")),
        Ok(_) => receiver.recv_timeout(limit).unwrap_or_else(|_| {
            broken(format!("it did not come to its end within {limit:?}: actors keep each other busy at one instant, or the explorer broke"))
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
        fallen: BTreeMap::new(),
        took: 0,
    }
}

fn tell(scenario: &Scenario) -> Outcome {
    let quiet = Quiet::default();
    let runtime = match quiet.runtime() {
        Ok(runtime) => runtime,
        Err(failure) => return broken(format!("no runtime for it: {failure}")),
    };
    collect_panics();
    let told = System::with_tokio_rt(|| runtime).block_on(driver::tell(scenario, &quiet));
    let panics = collected_panics();
    let mut violation = told.violation;
    let ours = panics.iter().find(|panic| !panic.contains("sabotage at"));
    if let (None, Some(panic)) = (&violation, ours) {
        violation = Some(Violation {
            promise: "no panic",
            text: panic.clone(),
            at: told.took,
        });
    }
    Outcome {
        violation,
        lines: told.log.lines(),
        fallen: told.fallen,
        took: told.took,
    }
}
