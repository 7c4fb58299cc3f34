//! Decisions. Pure: no actix, no I/O, no clock; `now` comes in as an argument.
//!
//! Public is what callers, agent servers and journals speak of; how it is decided is not.

pub mod batch;
pub(crate) mod calls;
pub mod concurrency;
pub(crate) mod explanation;
pub mod lenient_json;
pub mod heard;
pub mod histories;
pub mod history;
pub mod idempotency;
pub mod ids;
pub(crate) mod lifecycle;
pub mod correlation_tag;
pub mod notice;
pub(crate) mod notification;
pub mod outbox;
pub mod output;
pub(crate) mod parent_session;
pub(crate) mod patience;
pub mod restrictions;
pub mod session_event;
pub mod sift;
pub mod timeline;
pub mod task;
pub mod time;
pub mod transcript;
pub(crate) mod validation;
pub(crate) mod watch;
