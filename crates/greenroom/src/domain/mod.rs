//! Decisions. Pure: no actix, no I/O, no clock; `now` comes in as an argument.

pub mod batch;
pub mod calls;
pub mod concurrency;
pub mod explanation;
pub mod history;
pub mod idempotency;
pub mod ids;
pub mod ledger;
pub mod lifecycle;
pub mod notice;
pub mod notification;
pub mod output;
pub mod parent_session;
pub mod restrictions;
pub mod session_event;
pub mod task;
pub mod time;
pub mod transcript;
pub mod validation;
pub mod watch;
