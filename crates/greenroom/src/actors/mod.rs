//! The actors. Each owns a mailbox, timers and I/O around one domain value; its decisions are in `domain/`.

pub(crate) mod actor_ref;
pub(crate) mod durability;
pub(crate) mod env;
pub mod failpoint;
pub(crate) mod health;
pub(crate) mod inbox;
pub(crate) mod key_queue;
pub(crate) mod parent_notifier;
pub(crate) mod pending_publications;
pub(crate) mod poller;
pub(crate) mod registry;
pub(crate) mod runtime_state;
pub(crate) mod slot_manager;
pub(crate) mod supervisor;
pub(crate) mod task;
pub(crate) mod toaster;
