//! The bridge over real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hostile;
mod requests;
mod socket;
mod support;
mod tools;
