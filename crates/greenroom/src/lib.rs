//! Greenroom runs background tasks for AI agents on an agent server and wakes the parent session exactly once when its
//! batch is done.
//!
//! An agent delegates work to background agents. Greenroom queues the tasks per concurrency key, enforces every limit,
//! watches each task to a definite end by events and polling, and notifies the parent. It is an actor system on actix
//! that any actix application can host. The agent server is a trait ([`ports::agent_server::AgentServer`]);
//! `greenroom-opencode` implements the trait for opencode.
//!
//! # Modules
//!
//! - [`Greenroom`] is the handle: launch, resume, track, cancel, send, find, list, subscribe, shutdown.
//! - [`config`] holds the configuration, its defaults and its bounds.
//! - [`domain`] makes the decisions, without I/O: states, slots, batches, watching, message texts.
//! - `actors` owns the state: one actor around one domain value each.
//! - [`ports`] holds the traits of the services that the system needs.
//! - [`failpoint`] injects failures into actors, for tests.

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
