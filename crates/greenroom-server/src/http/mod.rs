//! The HTTP API: [`app`] mounts it, [`guard`] decides who may call, [`input`] reads requests, [`error`] is what every
//! refusal looks like, [`connection`] bounds a socket. [`calls`] lists every [`call`]; the router and the document
//! ([`openapi`], shown by [`docs`]) are made of that list. The handlers stand by what they are about: [`tasks`],
//! [`tools`], [`sessions`], [`asks`], [`events`], [`limits`], [`health`], [`metrics`].

pub mod app;
pub mod asks;
pub mod call;
pub mod calls;
pub mod connection;
pub mod docs;
pub mod error;
pub mod events;
pub mod guard;
pub mod health;
pub mod input;
pub mod limits;
pub mod metrics;
pub mod openapi;
pub(crate) mod schemas;
pub mod sessions;
pub mod tasks;
pub mod tools;

pub use app::{Api, configure};
pub use error::ApiError;
