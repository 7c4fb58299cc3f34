//! Stories told to Greenroom under virtual time. A story is a file: a configuration, a scripted agent server, steps, and
//! what must come of them. [`run`] tells one to the real actors and gives the trace of what they did; [`check`] compares.
//!
//! | module | owns |
//! |---|---|
//! | [`story`] | the format of the files |
//! | [`server`] | the agent server in memory, with its delays and faults ([`rules`]) and its sessions ([`session`]) |
//! | [`quiescence`] | knowing when all work that needs no further time is done |
//! | [`driver`] | the steps, one after the other; [`observe`] looks at what is there between them |
//! | [`names`] | generated ids and the aliases that stand for them |
//! | [`trace`] | the rows of what happened |
//! | [`check`] | a trace against what its story demands |
//! | [`runner`] | the thread, the runtime and the panics of one story |
//! | [`disk`] | a journal on a disk that is slow, full, or outlives its system |
//! | [`crash`] | a system that is cut off from everything at one instant |
//! | [`explore`] | random scenarios against a model of opencode, judged by promises |

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
