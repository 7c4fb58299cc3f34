//! The crate against scripted sockets and processes, and, with `GREENROOM_E2E=1`, against the real agent server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod child;
mod client;
mod real;
mod stream;
mod support;
mod whole;
