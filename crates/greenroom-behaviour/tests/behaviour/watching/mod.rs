//! Watching a running task: events, idle, the completion check, failures, polling, silence, restarts.

mod activity;
mod asking;
mod check;
mod deleted;
mod failures;
mod idle;
mod poll;
mod remarks;
mod restart;
mod silence;
