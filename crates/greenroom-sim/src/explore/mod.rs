//! The random explorer runs scenarios, one for each seed, against a model of opencode and checks the promises
//! of the behaviour page. Used by the command and the tests.
//!
//! | module | owns |
//! |---|---|
//! | [`scenario`] | the format of a scenario |
//! | [`generate`] | the random scenario of a seed |
//! | [`rng`] | random decisions, by name |
//! | `old_names` | the names of decisions in earlier releases |
//! | [`model`] | opencode, in memory |
//! | [`driver`] | the steps of a scenario |
//! | `process` | the process that runs the system, and its crashes |
//! | [`log`], [`observed`] | the events of a run, and the state of runs and sessions derived from them |
//! | [`promises`], [`leak_check`] | the checks at every step and at the end |
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
