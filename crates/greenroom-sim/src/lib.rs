//! Runs stories against Greenroom in virtual time. A story is a file with a configuration, a scripted agent
//! server, steps and the expected result. [`run`] runs one against the real actors and returns the trace;
//! [`check`] compares the trace with the expected result.
//!
//! | module | owns |
//! |---|---|
//! | [`story`] | the format of the files |
//! | [`server`] | the agent server in memory, with its delays and faults ([`rules`]) and its sessions ([`session`]) |
//! | [`quiescence`] | detects that no task of the runtime is ready |
//! | [`driver`] | runs the steps in order; [`observe`] reads the state of the system between them |
//! | [`names`] | generated ids and their aliases |
//! | [`trace`] | the rows of a trace |
//! | [`check`] | the comparison of a trace with the expected result |
//! | [`runner`] | the thread, the runtime and the panics of one story |
//! | [`disk`] | a journal on a disk that can be slow or full, and that keeps its contents over a crash |
//! | [`crash`] | a switch that cuts a system off from its ports at one instant |
//! | [`explore`] | random scenarios against a model of opencode, checked against the promises |

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod check;
pub mod crash;
pub mod disk;
pub mod driver;
pub mod explore;
pub mod names;
pub mod observe;
pub mod quiescence;
pub mod rules;
pub mod runner;
pub mod server;
pub mod session;
pub mod story;
pub mod trace;

pub use runner::{StoryError, run};

/// Locks a mutex. A panic of another thread while it held the lock is ignored.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
