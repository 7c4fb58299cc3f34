//! Greenroom runs background tasks for AI agents on an agent server, and wakes the parent session exactly once when its
//! batch is done.
//!
//! An agent hands work to background agents. Greenroom queues the tasks per concurrency key, keeps every limit, watches
//! each to a definite end by events and by polling, and tells the parent. It is an actor system on actix that anybody's
//! actix application can host; the agent server is a trait ([`ports::agent_server::AgentServer`]), and `greenroom-opencode`
//! implements it for opencode.
//!
//! # A map of the modules
//!
//! - [`Greenroom`] is what users hold: start, launch, resume, track, cancel, send, find, list, subscribe, shutdown.
//! - [`config`] has every knob, its default and its bounds.
//! - [`domain`] decides, purely: states, slots, batches, watching, wording.
//! - `actors` own: one mailbox around one domain value each.
//! - [`ports`] are what the system needs from outside.
//! - [`sabotage`] brings about the death of an actor, for tests.

#![deny(missing_docs)]

mod actors;
pub mod clock;
pub mod config;
pub mod domain;
mod handle;
mod lock;
mod maps;
pub mod ports;

pub use actors::failpoint;
pub use clock::Clock;
pub use config::Config;
pub use handle::*;
