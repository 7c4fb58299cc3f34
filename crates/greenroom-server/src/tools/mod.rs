//! The tools of agents: launch, read, cancel, send, list. The same for all hosts, behind the bridge and MCP. [`args`]
//! defines the arguments, [`parse`] reads them, [`dispatcher`] carries out a [`call`] within the caller's [`scope`],
//! [`text`] and [`pages`] write the replies, [`tool_error`] the errors, and [`mod@catalogue`] describes the tools.

pub mod args;
mod bridge;
pub mod call;
pub mod catalogue;
pub mod dispatcher;
pub mod pages;
pub mod parse;
pub mod scope;
pub mod text;
pub mod tool_error;

pub use call::{Caller, ToolReply};
pub use catalogue::{ToolInfo, catalogue};
pub use dispatcher::Tools;
