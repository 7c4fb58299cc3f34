//! The journal on disk as the system uses it: what every journal does, what comes back after any end, and what is said
//! when the file is not as it should be.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod crash;
mod earlier_release;
mod full;
mod kept;
mod opening;
mod properties;
mod retention;
mod trouble;
