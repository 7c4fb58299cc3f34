//! The random explorer: scenarios by seed, told to the real actors against a model of opencode, judged by the promises of the
//! behaviour page. Used by the command and the tests.
//!
//! | module | owns |
//! |---|---|
//! | [`scenario`] | the format of a scenario |
//! | [`generate`] | a random scenario for every seed |
//! | [`dice`] | everything that is left to chance, by name |
//! | [`model`] | opencode, in memory |
//! | [`driver`] | the steps of a scenario, and its rest |
//! | `machine` | the process the system runs in, and its crashes |
//! | [`log`], [`ledger`] | what happened, and what follows from it for every run and session |
//! | [`promises`], [`leftovers`] | what must hold, at every step and at the end |
//! | [`shrink`] | the smallest scenario that still breaks a promise |
//! | [`seeds`] | many seeds on several threads |

pub mod dice;
pub mod driver;
pub mod generate;
pub mod ledger;
pub mod leftovers;
pub mod log;
mod machine;
pub mod model;
pub mod outcome;
pub mod promises;
pub mod scenario;
pub mod seeds;
pub mod shrink;

pub use outcome::{Outcome, run};
