//! Integration tests of the command, the configuration, the API and all texts for people.

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
mod invalid_arguments;
mod journal;
mod mcp;
mod mcp_stdio;
mod memory;
mod metrics;
mod openapi;
mod plugin;
mod process;
mod routing;
mod schema;
mod secret;
mod secure;
mod slow_clients;
mod support;
mod terminal;
mod texts;
mod tool_texts;
mod tools;
mod tools_plugin;
mod tools_scope;
mod why;
