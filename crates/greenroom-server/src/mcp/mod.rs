//! The tools over MCP, for agents of any host. [`server`] is the protocol's side of them, on rmcp; [`desk`] is where its
//! calls go: to the tools of this process, or to a service elsewhere. [`shapes`] writes our tools and tasks in MCP's terms.
//! [`endpoint`] mounts it at `/mcp`, whose sessions [`sessions`] bounds; `greenroom mcp` speaks it on stdin and stdout.

pub mod desk;
pub mod endpoint;
pub mod server;
pub mod sessions;
pub mod shapes;

pub use desk::Desk;
pub use endpoint::Mcp;
pub use server::McpServer;
