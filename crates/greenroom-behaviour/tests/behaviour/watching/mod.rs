//! Watching a running task: events, idle, the completion check, failures, polling, staleness, restarts.

mod activity;
mod asks;
mod check;
mod deleted;
mod failures;
mod idle;
mod poll;
mod restart;
mod staleness;
mod timeline;
