//! The benchmarks. Each is a function of a scale that runs one round and returns its result.

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

/// The result of one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// The value in the unit of the benchmark.
    pub value: f64,
    /// The value of the bare mechanism in the same process.
    pub bare: Option<f64>,
    /// Further figures, as text.
    pub notes: String,
}

impl Round {
    /// Returns a result without a comparison.
    pub fn single(value: f64) -> Self {
        Self {
            value,
            bare: None,
            notes: String::new(),
        }
    }

    /// Returns a result with the value of the bare mechanism.
    pub fn compared(value: f64, bare: f64) -> Self {
        Self {
            bare: Some(bare),
            ..Self::single(value)
        }
    }
}

/// Whether more or less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better: rates.
    More,
    /// Less is better: times and sizes.
    Less,
}

/// A benchmark.
#[derive(Debug)]
pub struct Benchmark {
    /// Its name, which the filter matches.
    pub name: &'static str,
    /// The unit of its values.
    pub unit: &'static str,
    /// The scales it runs with, the smallest first.
    pub scales: &'static [usize],
    /// Whether more or less is better.
    pub better: Better,
    /// The target, as text.
    pub target: &'static str,
    /// Runs one round with a scale.
    pub run: fn(usize) -> Round,
}

/// All benchmarks, in the order of the table.
pub const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "launch to prompted",
        unit: "tasks/s",
        scales: &[1_000, 10_000, 100_000],
        better: Better::More,
        target: "≥ 200k, ≥ 0.25 of bare",
        run: launches::to_prompted,
    },
    Benchmark {
        name: "launches behind limit 5, the last tenth",
        unit: "tasks/s",
        scales: &[10_000, 1_000_000],
        better: Better::More,
        target: "≥ 0.7 of the first tenth; ≤ 900 bytes a task",
        run: launches::behind_a_limit,
    },
    Benchmark {
        name: "typed events to running tasks",
        unit: "events/s",
        scales: &[100, 1_000, 10_000, 100_000],
        better: Better::More,
        target: "≥ 0.3 of bare",
        run: events::typed,
    },
    Benchmark {
        name: "events from JSON text to running tasks",
        unit: "events/s",
        scales: &[100, 10_000],
        better: Better::More,
        target: "≥ 0.6 of parsing alone",
        run: events::from_text,
    },
    Benchmark {
        name: "a bridge's frames, from the socket to running tasks",
        unit: "frames/s",
        scales: &[1, 100, 10_000],
        better: Better::More,
        target: "bounded by the socket",
        run: frames::to_tasks,
    },
    Benchmark {
        name: "whole lives of tasks",
        unit: "tasks/s",
        scales: &[1_000, 10_000],
        better: Better::More,
        target: "≥ 100k, flat",
        run: ends::task_lifetimes,
    },
    Benchmark {
        name: "slot freed to next prompt, p99",
        unit: "µs",
        scales: &[1_000],
        better: Better::Less,
        target: "≤ 100 µs",
        run: ends::handover,
    },
    Benchmark {
        name: "cancel of one parent's tasks",
        unit: "ms",
        scales: &[1_000, 10_000],
        better: Better::Less,
        target: "≤ 50 ms with 10,000",
        run: ends::cancel_all,
    },
    Benchmark {
        name: "durable launches, by so many clients",
        unit: "launches/s",
        scales: &[1, 10, 100],
        better: Better::More,
        target: "more than bare commits",
        run: durable::launches,
    },
    Benchmark {
        name: "HTTP launch on disk, p99, so many connections at full speed",
        unit: "ms",
        scales: &[64],
        better: Better::Less,
        target: "≤ 10 ms, p50 ≤ 2 ms",
        run: http::launches,
    },
    Benchmark {
        name: "HTTP launch on disk, p99, so many connections at 2,000/s",
        unit: "ms",
        scales: &[64],
        better: Better::Less,
        target: "≤ 10 ms, p50 ≤ 2 ms",
        run: http::paced,
    },
    Benchmark {
        name: "one poll of all running tasks",
        unit: "µs",
        scales: &[100, 1_000, 10_000],
        better: Better::Less,
        target: "≤ 1.5 × bare",
        run: polls::one_poll,
    },
    Benchmark {
        name: "memory of a running task",
        unit: "bytes",
        scales: &[10_000, 100_000],
        better: Better::Less,
        target: "≤ 3,000 beyond its texts",
        run: launches::memory_running,
    },
    Benchmark {
        name: "memory of an ended task in memory",
        unit: "bytes",
        scales: &[10_000, 100_000],
        better: Better::Less,
        target: "≤ 1,000 beyond its texts",
        run: ends::memory_ended,
    },
    Benchmark {
        name: "cold start of a service, so many tasks in its journal",
        unit: "ms",
        scales: &[10_000],
        better: Better::Less,
        target: "≤ 1,000",
        run: service::cold_start,
    },
    Benchmark {
        name: "memory of an idle service, so many tasks in its journal",
        unit: "MiB",
        scales: &[0, 10_000],
        better: Better::Less,
        target: "≤ 25 with none",
        run: service::idle_memory,
    },
    Benchmark {
        name: "wake-ups of an idle service, in so many seconds",
        unit: "wake-ups",
        scales: &[20],
        better: Better::Less,
        target: "two heartbeats",
        run: service::idle_wake_ups,
    },
];

/// Returns the id of a benchmark with a scale.
pub fn id(benchmark: &Benchmark, scale: usize) -> String {
    format!("{}#{scale}", benchmark.name)
}

/// Returns the benchmark and the scale of an id.
pub fn by_id(id: &str) -> Option<(&'static Benchmark, usize)> {
    let (name, scale) = id.rsplit_once('#')?;
    let benchmark = BENCHMARKS.iter().find(|known| known.name == name)?;
    Some((benchmark, scale.parse().ok()?))
}
