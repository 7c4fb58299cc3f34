//! What the system needs from outside, as traits.

pub mod agent_server;
pub mod journal;
