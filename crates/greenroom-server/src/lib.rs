//! Greenroom as a service and a command.
//!
//! - [`config`] reads the configuration.
//! - [`host`] runs the actor system, the HTTP API and the bridge endpoint.
//! - [`http`] is the HTTP API, [`mcp`] the same tools over MCP.
//! - [`agents`] combines all agent servers into one.
//! - [`tools`] implements the tools that agents call.
//! - [`cli`] is the `greenroom` command.

pub mod agents;
pub mod cli;
pub mod config;
pub mod description;
pub mod host;
pub mod http;
pub mod logging;
pub mod mcp;
pub mod secret_file;
mod sync;
pub mod tools;
