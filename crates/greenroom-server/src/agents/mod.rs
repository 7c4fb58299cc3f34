//! The agent servers of one service, as one: opencode at a URL, opencode processes that are reached over bridges, or both.
//!
//! - [`carrier`]: a bridge's line as a carrier of opencode's calls.
//! - [`sessions`]: which process a session belongs to, and `newest`: as many of them as are remembered.
//! - [`routes`]: which way a call takes.
//! - `takeover`: who has a session whose process is gone.
//! - [`server`]: the port of the actor system.
//! - [`sink`]: events on their way to the actor system, and what is learned from them.

pub mod carrier;
mod newest;
pub mod routes;
pub mod server;
pub mod sessions;
pub mod sink;
mod takeover;

pub use routes::{Patience, RoutedServer, Upstream};
pub use sink::RoutedEvents;
