//! The tools over MCP, for agents of any host.
//!
//! - [`server`] implements the protocol on rmcp.
//! - [`tool_dispatcher`] is the trait it calls: the tools of this process, or the tools of a service over HTTP.
//! - [`convert`] converts tools and tasks to MCP types.
//! - [`endpoint`] mounts the server at `/mcp`; [`sessions`] bounds its sessions. `greenroom mcp` runs the server on
//!   stdin and stdout.

pub mod convert;
pub mod endpoint;
pub mod server;
pub mod sessions;
pub mod tool_dispatcher;

pub use endpoint::Mcp;
pub use server::McpServer;
pub use tool_dispatcher::ToolDispatcher;
