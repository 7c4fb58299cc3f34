//! The adapter for opencode: its HTTP API as the [`AgentServer`](greenroom::ports::agent_server::AgentServer) port, its
//! event stream, and a supervised `opencode serve`. It makes no decisions about tasks.
//!
//! - [`client`]: one attempt per call, with an error that describes its known effect
//! - [`transport`]: how a call reaches the server: over HTTP, or over what a host provides
//! - [`events`]: the stream of `/global/event`, filtered, monitored and reconnected, into an [`EventSink`]
//! - [`health`]: waits until a starting server is usable
//! - [`install`]: finds opencode, or installs the pinned version
//! - [`hermetic`]: a folder in which opencode sees nothing of the user's setup
//! - [`child`]: `opencode serve` under supervision

use std::sync::{Mutex, MutexGuard, PoisonError};

mod address;
mod backoff;
mod body;
pub mod child;
mod child_log;
pub mod client;
pub mod events;
mod failure;
pub mod health;
pub mod hermetic;
mod http_transport;
pub mod install;
mod messages;
mod npm;
mod sse;
mod supervisor;
pub mod transport;
mod wire;

pub use address::{AddressError, ServerAddress};
pub use child::{ChildError, ChildState, OpencodeChild, ServeOptions};
pub use client::OpencodeServer;
pub use events::{EventSink, EventStream, StreamTuning};
pub use health::{HealthError, wait_until_healthy};
pub use http_transport::HttpTransport;
pub use transport::{ApiCall, ApiResponse, Method, Transport};

/// Locks a mutex. A panic of another holder is ignored: no code of this crate panics in the middle of a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
