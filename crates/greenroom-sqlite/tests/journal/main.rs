//! The journal on disk: conformance, recovery after a crash, retention, and errors of files that cannot be used.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod crash;
mod earlier_release;
mod failures;
mod full;
mod opening;
mod properties;
mod retention;
mod support;
