//! Greenroom's side of opencode: its HTTP API as the [`AgentServer`](greenroom::ports::agent_server::AgentServer) port,
//! its event stream, and a supervised `opencode serve` to talk to. Nothing here decides anything about tasks.
//!
//! - [`client`]: one attempt per call, and the truth about what is known of its fate
//! - [`carrier`]: how a call gets to the server: by HTTP, or by what a host brings
//! - [`events`]: the stream of `/global/event`, sifted, watched and reconnected, into an [`EventSink`]
//! - [`health`]: waits until a server that boots can be used
//! - [`install`]: finds opencode, or installs the pinned version
//! - [`hermetic`]: a folder in which opencode sees nothing of the user's real setup
//! - [`child`]: `opencode serve` under supervision

mod address;
mod backoff;
pub mod carrier;
pub mod child;
mod child_log;
pub mod client;
pub mod events;
mod failure;
pub mod health;
pub mod hermetic;
pub mod install;
mod npm;
mod sse;
mod supervisor;
mod transport;
mod wire;

pub use address::{AddressError, ServerAddress};
pub use carrier::{Answer, Call, Carrier, Method};
pub use child::{ChildError, ChildState, OpencodeChild, ServeOptions};
pub use client::OpencodeServer;
pub use events::{EventSink, EventStream, StreamTuning};
pub use health::{HealthError, wait_until_healthy};
pub use transport::Transport;
