//! Telling the parent: batches, what is held back, how a message gets there, and as whom the parent goes on.

mod agent_and_model;
mod batches;
mod busy;
mod delivery;
mod silenced;

use greenroom::ports::agent_server::Notice;

use crate::harness::Harness;
use crate::server::{CallKind, CallPayload};

/// Every message sent to anybody, in order.
fn notices(s: &Harness) -> Vec<Notice> {
    let calls = s.server.calls(CallKind::Notify).into_iter();
    calls
        .filter_map(|call| match call.payload {
            CallPayload::Notify(notice) => Some(*notice),
            _ => None,
        })
        .collect()
}
