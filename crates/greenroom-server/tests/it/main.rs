//! The command, the configuration, the API and every text that people read, as their users meet them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod asks;
mod bad_input;
mod command;
mod command_asks;
mod config;
mod config_command;
mod docs;
mod doctor;
mod events;
mod http;
mod journal;
mod mcp;
mod mcp_stdio;
mod memory;
mod metrics;
mod openapi;
mod plugin;
mod routing;
mod schema;
mod secret;
mod slow_clients;
mod support;
mod terminal;
mod texts;
mod tool_words;
mod tools;
mod tools_plugin;
mod tools_reach;
mod why;
mod words;
