//! The decisions of the system, without actix, I/O or a clock; `now` is an argument.
//!
//! The types that callers, agent servers and journals use are public. The decisions themselves are not.

pub(crate) mod abort_grace;
pub mod batch;
pub mod concurrency;
pub mod correlation_tag;
pub mod decoded_event;
pub mod event_filter;
pub(crate) mod explanation;
pub mod foreign_text;
pub mod histories;
pub mod history;
pub mod idempotency;
pub mod ids;
pub mod instance;
pub mod lenient_json;
pub(crate) mod lifecycle;
pub mod notice;
pub(crate) mod notification;
pub mod outbox;
pub mod output;
pub(crate) mod parent_session;
pub mod restrictions;
pub(crate) mod retry_backoff;
pub mod session_event;
pub mod session_owner;
pub mod task;
pub mod time;
pub mod timeline;
pub(crate) mod tool_calls;
pub mod transcript;
pub(crate) mod validation;
pub(crate) mod wake_turn;
pub(crate) mod watch;
