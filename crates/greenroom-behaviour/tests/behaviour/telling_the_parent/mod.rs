//! Telling the parent: batches, what is held back, how a message gets there, and as whom the parent goes on.

mod batches;
mod busy;
mod delivery;
mod silenced;
mod voice;

use greenroom::ports::agent_server::Notice;

use crate::server::{On, What};
use crate::stage::Stage;

/// Every message sent to anybody, in order.
fn notices(s: &Stage) -> Vec<Notice> {
    let calls = s.server.calls(On::Notify).into_iter();
    calls
        .filter_map(|call| match call.what {
            What::Notify(notice) => Some(*notice),
            _ => None,
        })
        .collect()
}
