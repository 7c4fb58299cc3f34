//! The bridge: a websocket by which an agent server's plugin hands its events to Greenroom. It works where the agent
//! server listens on no port, and it can be mounted into any actix-web app:
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
//! - [`protocol`]: the frames, and how one is read.
//! - [`registry`]: which bridges are connected.
//! - [`options`]: what a host gives its bridge.
//! - [`line`]: calls of the agent server's API over a bridge, and what becomes of them when it is cut.
//! - [`endpoint`]: where sockets come in.
//! - [`sink`]: where events go.
//! - [`desk`]: who answers the tools that agents use.
//! - [`plugin`]: the file that opencode loads, as it is installed.
//! - [`token`]: the shared secret, compared in constant time.

mod calls;
pub mod desk;
mod ending;
pub mod endpoint;
mod frames;
mod heads;
pub mod line;
pub mod options;
mod outbox;
pub mod plugin;
pub mod protocol;
pub mod registry;
pub mod sink;
mod socket;
pub mod token;

pub use desk::{ToolAnswer, ToolCall, ToolContext, ToolDesk};
pub use ending::REPLACED;
pub use endpoint::configure;
pub use line::{Line, LineError, Request};
pub use options::{BridgeLimits, BridgeOptions};
pub use protocol::Response;
pub use registry::{BridgeInfo, BridgeKey, Bridges};
pub use sink::EventSink;
pub use token::Token;
