//! All agent servers of one service behind one port: opencode at a URL, opencode processes behind bridges, or both.
//!
//! - [`carrier`]: sends opencode requests over a bridge.
//! - [`sessions`]: the table of sessions and their owners, on the bounded map in `generational_cache`.
//! - [`routes`]: selects the agent server for a call.
//! - `takeover`: finds a new owner for the sessions of a lost process.
//! - [`server`]: implements the port of the actor system.
//! - [`sink`]: records session state from events and passes the events to the actor system.

pub mod carrier;
mod generational_cache;
pub mod routes;
pub mod server;
pub mod sessions;
pub mod sink;
mod takeover;

pub use routes::{RoutedServer, Timeouts, Upstream};
pub use sink::RoutedEvents;
