//! The HTTP API: [`app`] mounts it, [`guard`] decides who may call, [`input`] reads requests, [`error`] is what every
//! refusal looks like, [`connection`] bounds a socket. The handlers stand by what they are about: [`tasks`], [`sessions`], [`events`], [`limits`],
//! [`health`].

pub mod app;
pub mod connection;
pub mod error;
pub mod events;
pub mod guard;
pub mod health;
pub mod input;
pub mod limits;
pub mod sessions;
pub mod tasks;

pub use app::{Api, configure};
pub use error::ApiError;
