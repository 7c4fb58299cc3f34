//! What is measured. Each work is one function of a scale that does one round and says what it came to.

#[cfg(feature = "virtual-time")]
pub mod counted;
mod durable;
mod ends;
mod events;
mod frames;
mod http;
mod launches;
mod polls;
mod service;

use serde::{Deserialize, Serialize};

/// What one round came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// In the unit of the work.
    pub value: f64,
    /// The same of the bare mechanism, in the same process.
    pub bare: Option<f64>,
    /// What else there is to say.
    pub notes: String,
}

impl Round {
    /// A figure with nothing to hold it against.
    pub fn alone(value: f64) -> Self {
        Self {
            value,
            bare: None,
            notes: String::new(),
        }
    }

    /// A figure beside that of the bare mechanism.
    pub fn beside(value: f64, bare: f64) -> Self {
        Self {
            bare: Some(bare),
            ..Self::alone(value)
        }
    }
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Rates.
    More,
    /// Times and sizes.
    Less,
}

/// Something that is measured.
#[derive(Debug)]
pub struct Work {
    /// For people, and to choose by.
    pub name: &'static str,
    /// Of the figures.
    pub unit: &'static str,
    /// With how many it is done; the smallest first.
    pub scales: &'static [usize],
    /// Which way is better.
    pub better: Better,
    /// What it should come to.
    pub target: &'static str,
    /// One round.
    pub run: fn(usize) -> Round,
}

/// Everything that is measured, in the order of the table.
pub const WORKS: &[Work] = &[
    Work {
        name: "launch to prompted",
        unit: "tasks/s",
        scales: &[1_000, 10_000, 100_000],
        better: Better::More,
        target: "≥ 200k, ≥ 0.25 of bare",
        run: launches::to_prompted,
    },
    Work {
        name: "launches behind limit 5, the last tenth",
        unit: "tasks/s",
        scales: &[10_000, 1_000_000],
        better: Better::More,
        target: "≥ 0.7 of the first tenth; ≤ 900 bytes a task",
        run: launches::behind_a_limit,
    },
    Work {
        name: "typed events to running tasks",
        unit: "events/s",
        scales: &[100, 1_000, 10_000, 100_000],
        better: Better::More,
        target: "≥ 0.3 of bare",
        run: events::typed,
    },
    Work {
        name: "events from JSON text to running tasks",
        unit: "events/s",
        scales: &[100, 10_000],
        better: Better::More,
        target: "≥ 0.6 of parsing alone",
        run: events::from_text,
    },
    Work {
        name: "a bridge's frames, from the socket to running tasks",
        unit: "frames/s",
        scales: &[1, 100, 10_000],
        better: Better::More,
        target: "bounded by the socket",
        run: frames::to_tasks,
    },
    Work {
        name: "whole lives of tasks",
        unit: "tasks/s",
        scales: &[1_000, 10_000],
        better: Better::More,
        target: "≥ 100k, flat",
        run: ends::whole_lives,
    },
    Work {
        name: "slot freed to next prompt, p99",
        unit: "µs",
        scales: &[1_000],
        better: Better::Less,
        target: "≤ 100 µs",
        run: ends::hand_over,
    },
    Work {
        name: "cancel of one parent's tasks",
        unit: "ms",
        scales: &[1_000, 10_000],
        better: Better::Less,
        target: "≤ 50 ms with 10,000",
        run: ends::cancel_all,
    },
    Work {
        name: "durable launches, by so many clients",
        unit: "launches/s",
        scales: &[1, 10, 100],
        better: Better::More,
        target: "more than bare commits",
        run: durable::launches,
    },
    Work {
        name: "HTTP launch on disk, p99, so many connections at full speed",
        unit: "ms",
        scales: &[64],
        better: Better::Less,
        target: "≤ 10 ms, p50 ≤ 2 ms",
        run: http::launches,
    },
    Work {
        name: "HTTP launch on disk, p99, so many connections at 2,000/s",
        unit: "ms",
        scales: &[64],
        better: Better::Less,
        target: "≤ 10 ms, p50 ≤ 2 ms",
        run: http::paced,
    },
    Work {
        name: "one poll of all running tasks",
        unit: "µs",
        scales: &[100, 1_000, 10_000],
        better: Better::Less,
        target: "≤ 1.5 × bare",
        run: polls::one_poll,
    },
    Work {
        name: "memory of a running task",
        unit: "bytes",
        scales: &[10_000, 100_000],
        better: Better::Less,
        target: "≤ 3,000 beyond its texts",
        run: launches::memory_running,
    },
    Work {
        name: "memory of an ended task in memory",
        unit: "bytes",
        scales: &[10_000, 100_000],
        better: Better::Less,
        target: "≤ 1,000 beyond its texts",
        run: ends::memory_ended,
    },
    Work {
        name: "cold start of a service, so many tasks in its journal",
        unit: "ms",
        scales: &[10_000],
        better: Better::Less,
        target: "≤ 1,000",
        run: service::cold_start,
    },
    Work {
        name: "memory of an idle service, so many tasks in its journal",
        unit: "MiB",
        scales: &[0, 10_000],
        better: Better::Less,
        target: "≤ 25 with none",
        run: service::idle_memory,
    },
    Work {
        name: "wake-ups of an idle service, in so many seconds",
        unit: "wake-ups",
        scales: &[20],
        better: Better::Less,
        target: "two heartbeats",
        run: service::idle_wake_ups,
    },
];

/// A work and its scale in one word.
pub fn name(work: &Work, scale: usize) -> String {
    format!("{}#{scale}", work.name)
}

/// The other way round.
pub fn named(name: &str) -> Option<(&'static Work, usize)> {
    let (name, scale) = name.rsplit_once('#')?;
    let work = WORKS.iter().find(|work| work.name == name)?;
    Some((work, scale.parse().ok()?))
}
