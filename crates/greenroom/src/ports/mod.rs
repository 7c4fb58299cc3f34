//! Traits of the services that the system needs: the agent server and the journal.

pub mod agent_server;
pub mod journal;
