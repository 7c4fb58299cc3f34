//! The random explorer: scenarios by seed, told to the real actors against a model of opencode, judged by the promises of the
//! behaviour page. Used by the command and the tests.
//!
//! | module | owns |
//! |---|---|
//! | [`scenario`] | the format of a scenario |
//! | [`generate`] | a random scenario for every seed |
//! | [`rng`] | everything that is left to chance, by name |
//! | [`model`] | opencode, in memory |
//! | [`driver`] | the steps of a scenario, and its rest |
//! | `process` | the process the system runs in, and its crashes |
//! | [`log`], [`observed`] | what happened, and what follows from it for every run and session |
//! | [`promises`], [`leak_check`] | what must hold, at every step and at the end |
//! | [`shrink`] | the smallest scenario that still breaks a promise |
//! | [`seeds`] | many seeds on several threads |

pub mod driver;
pub mod generate;
pub mod leak_check;
pub mod log;
pub mod model;
pub mod observed;
mod old_names;
pub mod outcome;
mod process;
pub mod promises;
pub mod rng;
pub mod scenario;
pub mod seeds;
pub mod shrink;

pub use outcome::{Outcome, run};
