//! Promise 3, **Wakes**, of their answers: "A stored wake without an answer: the parent is prompted once to continue"; "a
//! final that is stored but whose turn failed on its agent or model is sent once more". A stored message that wakes is
//! followed by a finished answer, by a reason that the system cannot change, or by another message.

use std::collections::{BTreeMap, BTreeSet};

use greenroom::domain::ids::{NoticeId, SessionId};
use greenroom::domain::notice::NoticeKind;

use super::Promise;
use super::wakes::CONFIRM_WAIT;
use crate::explore::log::{Call, Entry, Fact, LogEvent};
use crate::explore::observed::{LogPosition, ObservedState};

/// The newest message that wakes each parent and has no answer yet.
#[derive(Debug)]
pub(super) struct Answers {
    /// True if every event of the server is delivered.
    reliable: bool,
    open: BTreeMap<SessionId, Wake>,
    /// The stored messages. A message that is stored twice has done its work with the first.
    stored: BTreeSet<NoticeId>,
    /// The messages that prompt a parent to continue or repeat another message.
    last: BTreeSet<NoticeId>,
    /// When each message was sent first, and last.
    sent: BTreeMap<NoticeId, (LogPosition, LogPosition)>,
}

impl Answers {
    pub(super) fn new(reliable: bool) -> Self {
        Self {
            reliable,
            open: BTreeMap::new(),
            stored: BTreeSet::new(),
            last: BTreeSet::new(),
            sent: BTreeMap::new(),
        }
    }
}

#[derive(Debug)]
struct Wake {
    notice: NoticeId,
    stored: LogPosition,
    /// How its turn ended without an answer.
    ended: Option<Fact>,
    /// True once the turn has output: its agent and model exist.
    has_begun: bool,
    /// True if an error was delivered since that end.
    is_reported: bool,
    /// True if it prompts the parent to continue, or repeats another message: nothing more is sent after it.
    is_last: bool,
}

impl Promise for Answers {
    fn name(&self) -> &'static str {
        "3 Wakes (answers)"
    }

    fn check_entry(
        &mut self,
        index: usize,
        entry: &Entry,
        observed: &ObservedState,
    ) -> Option<String> {
        let position = LogPosition {
            index,
            at: entry.at,
        };
        match &entry.event {
            LogEvent::CallStarted {
                call: Call::Notify { notice, .. },
                ..
            } => {
                let sent = self.sent.entry(notice.id.clone());
                sent.or_insert((position, position)).1 = position;
                if notice.facts.kind == NoticeKind::Continue || notice.retry_of.is_some() {
                    self.last.insert(notice.id.clone());
                }
            }
            // A late copy begins the turn again.
            LogEvent::NoticeStored {
                parent,
                notice,
                wakes: true,
            } if self.stored.contains(notice) => {
                let wake = self.open.get_mut(parent);
                if let Some(wake) = wake.filter(|wake| wake.notice == *notice) {
                    (wake.ended, wake.has_begun) = (None, false);
                }
            }
            LogEvent::NoticeStored {
                parent,
                notice,
                wakes: true,
            } => {
                self.stored.insert(notice.clone());
                // In the history a message that is stored late precedes the prompts of the user since it was sent.
                let prompted = observed.session(parent).and_then(|it| it.user_prompted);
                let sent = self.sent.get(notice);
                if prompted > sent.map(|(first, _)| *first) {
                    self.open.remove(parent);
                    return None;
                }
                // After its wait an individual message is merged into the next, and its late turn is not watched.
                let is_late = sent.is_some_and(|(_, last)| position.at > last.at + CONFIRM_WAIT);
                if is_late && !self.last.contains(notice) {
                    return None;
                }
                self.open.insert(
                    parent.clone(),
                    Wake {
                        notice: notice.clone(),
                        stored: position,
                        ended: None,
                        has_begun: false,
                        is_reported: false,
                        is_last: self.last.contains(notice),
                    },
                );
            }
            LogEvent::EventDelivered { session, kind, .. } if kind.starts_with("session.error") => {
                if let Some(wake) = self.open.get_mut(session) {
                    wake.is_reported |= wake.ended.is_some();
                }
            }
            LogEvent::SessionFact { session, fact } => match fact {
                Fact::CutOff | Fact::StateLost | Fact::NotConfigured => {
                    // The turn of a later silent message is another turn, as is the turn of a late message.
                    let wake = self.open.get_mut(session);
                    let is_other = |wake: &Wake| wake.has_begun && *fact == Fact::NotConfigured;
                    if let Some(wake) = wake.filter(|wake| !is_other(wake)) {
                        wake.ended.get_or_insert(*fact);
                    }
                }
                Fact::Output => {
                    if let Some(wake) = self.open.get_mut(session) {
                        wake.has_begun = true;
                        wake.ended = wake.ended.filter(|ended| *ended != Fact::NotConfigured);
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
            let ended = wake.ended.filter(|_| of_parents(parent) && !wake.is_last)?;
            // Only an event shows why a turn could not start.
            if ended == Fact::NotConfigured && !(self.reliable && wake.is_reported) {
                return None;
            }
            let known = observed.session(parent);
            let mut aborts = known.into_iter().flat_map(|known| &known.reported_aborts);
            let is_reported = aborts.any(|abort| abort.at > wake.stored);
            if ended == Fact::CutOff && !self.reliable && !is_reported {
                return None;
            }
            // An abort counts as a person's if the end of the instance was not reported in time.
            let unknown = known.is_some_and(|known| observed.may_be_taken_for_stopped(known));
            if matches!(ended, Fact::CutOff | Fact::StateLost) && unknown {
                return None;
            }
            Some(format!(
                "the turn of a stored wake ended without an answer ({ended:?}), and no message followed: {parent} {}, stored at {}",
                wake.notice, wake.stored.at
            ))
        })
    }
}
