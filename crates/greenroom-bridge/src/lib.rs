//! The bridge: a websocket over which the plugin of an agent server sends events to Greenroom, uses its tools and makes
//! API calls for it. It works where the agent server listens on no port. It can be mounted into any actix-web app:
//!
//! ```no_run
//! use actix_web::App;
//! use greenroom_bridge::{BridgeOptions, configure};
//! fn mount(options: BridgeOptions) {
//!     let app = App::new().configure(|cfg| configure(cfg, options));
//!     // …
//! #   let _ = app;
//! }
//! ```
//!
//! - [`protocol`]: the frames of the websocket, and their parser.
//! - [`registry`]: the list of connected bridges.
//! - [`options`]: the settings that a host gives its bridge.
//! - [`channel`]: calls of the agent server's API over a bridge.
//! - [`endpoint`]: the HTTP route that accepts websockets.
//! - [`sink`]: the receiver of events.
//! - [`dispatcher`]: the receiver of tool calls.
//! - [`plugin`]: opencode's plugin file, as it is installed.
//! - [`token`]: the shared secret, compared in constant time.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod channel;
mod close;
pub mod dispatcher;
pub mod endpoint;
mod frame_header;
mod frames;
mod handshakes;
pub mod options;
pub mod plugin;
pub mod protocol;
pub mod registry;
mod send_queue;
pub mod sink;
mod socket;
pub mod token;
mod tool_calls;

pub use channel::{BridgeChannel, ChannelError, Request};
pub use close::REPLACED;
pub use dispatcher::{ToolAnswer, ToolCall, ToolContext, ToolDispatcher};
pub use endpoint::configure;
pub use options::{BridgeLimits, BridgeOptions};
pub use protocol::Response;
pub use registry::{BridgeInfo, BridgeKey, BridgeRegistry};
pub use sink::EventSink;
pub use token::Token;

/// Locks a mutex. A panic of another holder is ignored: no code of this crate panics in the middle of a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
