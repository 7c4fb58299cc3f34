//! The HTTP API. [`app`] mounts it, [`guard`] checks access, [`input`] reads requests, [`error`] defines the error
//! format, [`connection`] and [`listener`] limit sockets, [`answer_budget`] their memory. [`operations`] lists every [`operation`]; the router and the document
//! ([`openapi`], rendered by [`docs`]) come from that list. Handlers are grouped by subject: [`tasks`], [`tools`],
//! [`sessions`], [`asks`], [`events`], [`limits`], [`bridges`], [`health`], [`metrics`].

pub mod answer_budget;
pub mod app;
pub mod asks;
pub mod bridges;
pub mod connection;
pub mod docs;
pub mod error;
pub mod events;
pub mod guard;
pub mod health;
pub mod input;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod openapi;
pub mod operation;
pub mod operations;
pub(crate) mod schemas;
pub mod sessions;
pub mod tasks;
pub mod tools;

pub use app::{Api, configure};
pub use error::ApiError;
