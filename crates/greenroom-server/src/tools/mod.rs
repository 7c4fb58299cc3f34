//! The tools that agents have: launch, read, cancel, steer, list. One place for all hosts of agents, the plugin behind
//! the bridge and MCP alike: [`orders`] says what each tool takes, [`arguments`] reads it, [`desk`] carries a
//! [`call`] out within the caller's [`reach`], [`words`] and [`pages`] say what the agent reads, [`catalogue`] describes
//! the tools.

pub mod arguments;
mod bridged;
pub mod call;
pub mod catalogue;
pub mod desk;
pub mod orders;
pub mod pages;
pub mod reach;
pub mod refusal;
pub mod words;

pub use call::{Caller, ToolReply};
pub use catalogue::{ToolInfo, catalogue};
pub use desk::Tools;
