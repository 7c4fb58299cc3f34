//! Greenroom as a service and a command. [`config`] reads what the user wants, [`host`] runs the actor system behind
//! [`http`] and the bridge, [`agents`] makes one agent server of all there are, [`tools`] is what agents call, also over
//! [`mcp`], [`cli`] is the `greenroom` command, which starts a service or talks to one.

pub mod agents;
pub mod cli;
pub mod config;
pub mod host;
pub mod http;
pub mod logging;
pub mod mcp;
pub mod tools;
