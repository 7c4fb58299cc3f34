//! Promise 5, **Truth**, of reverted sessions: "A reverted session is not touched." No prompt is sent to a reverted session,
//! unless a read that was answered at most 2 s before showed no revert.

use std::collections::BTreeMap;

use greenroom::domain::ids::SessionId;

use super::Promise;
use crate::explore::log::{Call, Entry, LogEvent};
use crate::explore::observed::ObservedState;

/// The maximum age of a read, in milliseconds.
const READ_AGE: i64 = 2000;

/// The reads of sessions.
#[derive(Debug, Default)]
pub(super) struct Reverts {
    /// The session of each read that took effect, and whether it was reverted.
    reads: BTreeMap<u64, (SessionId, bool)>,
    /// The time of the newest answer that showed no revert.
    shown: BTreeMap<SessionId, i64>,
}

impl Promise for Reverts {
    fn name(&self) -> &'static str {
        "5 Truth (reverts)"
    }

    fn check_entry(&mut self, _: usize, entry: &Entry, observed: &ObservedState) -> Option<String> {
        match &entry.event {
            LogEvent::CallApplied(number) => {
                if let Some(Call::Get(session)) = observed.call(*number) {
                    let known = observed.session(session);
                    let reverted = known.is_some_and(|known| known.reverted);
                    self.reads.insert(*number, (session.clone(), reverted));
                }
                None
            }
            LogEvent::CallReturned { number, answer } => {
                let (session, reverted) = self.reads.remove(number)?;
                if answer == "ok" && !reverted {
                    self.shown.insert(session, entry.at);
                }
                None
            }
            LogEvent::CallStarted {
                call:
                    call @ (Call::Prompt { session, .. }
                    | Call::Notify {
                        parent: session, ..
                    }),
                ..
            } => {
                let known = observed.session(session)?;
                let reverted = known.reverted && known.deleted.is_none();
                let shown = self.shown.get(session);
                let read = shown.is_some_and(|shown| shown + READ_AGE >= entry.at);
                let what = match call {
                    Call::Notify { .. } => "a message",
                    _ => "a prompt",
                };
                (reverted && !read).then(|| {
                    format!("{what} is sent to a reverted session without a read before: {session}")
                })
            }
            _ => None,
        }
    }
}
