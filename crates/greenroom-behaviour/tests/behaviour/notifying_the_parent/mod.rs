//! Notifying the parent: batches, held messages, delivery, agent and model.

mod agent_and_model;
mod batches;
mod busy;
mod delivery;
mod reverted;
mod silenced;
mod stored;
mod turns;

use greenroom::ports::agent_server::Notice;

use crate::harness::Harness;
use crate::server::{CallKind, CallPayload};

/// Returns every message to any parent, in order.
fn notices(s: &Harness) -> Vec<Notice> {
    let calls = s.server.calls(CallKind::Notify).into_iter();
    calls
        .filter_map(|call| match call.payload {
            CallPayload::Notify(notice) => Some(*notice),
            _ => None,
        })
        .collect()
}
