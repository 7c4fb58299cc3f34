//! The bridge over real sockets.
#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails it by a panic"
)]

mod hostile;
mod requests;
mod socket;
mod support;
mod tools;
