//! Promise 3, **Wakes**, of their answers: "A stored wake without an answer: the parent is prompted once to continue"; "a
//! final that is stored but whose turn failed on its agent or model is sent once more". A stored message that wakes is
//! followed by a finished answer, by a reason that the system cannot change, or by another message.

use std::collections::BTreeMap;

use greenroom::domain::ids::{NoticeId, SessionId};

use super::Promise;
use crate::explore::log::{Entry, Fact, LogEvent};
use crate::explore::observed::{LogPosition, ObservedState};

/// The newest message that wakes each parent and has no answer yet.
#[derive(Debug, Default)]
pub(super) struct Answers {
    open: BTreeMap<SessionId, Wake>,
}

#[derive(Debug)]
struct Wake {
    notice: NoticeId,
    stored: LogPosition,
    /// How its turn ended without an answer.
    ended: Option<Fact>,
}

impl Promise for Answers {
    fn name(&self) -> &'static str {
        "3 Wakes (answers)"
    }

    fn check_entry(&mut self, index: usize, entry: &Entry, _: &ObservedState) -> Option<String> {
        match &entry.event {
            LogEvent::NoticeStored {
                parent,
                notice,
                wakes: true,
            } => {
                let stored = LogPosition {
                    index,
                    at: entry.at,
                };
                self.open.insert(
                    parent.clone(),
                    Wake {
                        notice: notice.clone(),
                        stored,
                        ended: None,
                    },
                );
            }
            LogEvent::SessionFact { session, fact } => match fact {
                Fact::CutOff | Fact::StateLost | Fact::NotConfigured => {
                    if let Some(wake) = self.open.get_mut(session) {
                        wake.ended = Some(*fact);
                    }
                }
                Fact::AnswerCompleted
                | Fact::Failed
                | Fact::Aborted
                | Fact::UserAborted
                | Fact::UserPrompted
                | Fact::Deleted
                | Fact::Hung
                | Fact::NotTakenUp
                | Fact::Reverted => {
                    self.open.remove(session);
                }
                _ => {}
            },
            _ => {}
        }
        None
    }

    fn check_end(&mut self, observed: &ObservedState) -> Option<String> {
        if observed.shutdown_requested.is_some() {
            return None;
        }
        // A session of a task is prompted for its runs.
        let of_parents = |session: &SessionId| {
            observed
                .session(session)
                .is_none_or(|known| known.owner.is_none())
        };
        self.open.iter().find_map(|(parent, wake)| {
            let ended = wake.ended.filter(|_| of_parents(parent))?;
            Some(format!(
                "the turn of a stored wake ended without an answer ({ended:?}), and no message followed: {parent} {}, stored at {}",
                wake.notice, wake.stored.at
            ))
        })
    }
}
