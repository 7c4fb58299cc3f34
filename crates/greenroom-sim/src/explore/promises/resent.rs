//! Promise 3, **Wakes**, of messages that are sent again: "Delivered means stored." A message is sent again only after a
//! read without it, which follows an error or a wait of 10 s after its acceptance. A message stored still later may
//! be doubled, but is not sent again once a read has shown it. The repetition does not name an agent that an error
//! named, and a prompt to continue does not follow a newer prompt of the user.

use std::collections::BTreeMap;

use greenroom::domain::ids::{NoticeId, SessionId};
use greenroom::domain::notice::NoticeKind;
use greenroom::ports::agent_server::Notice;

use super::Promise;
use super::wakes::CONFIRM_WAIT;
use crate::explore::log::{Call, Entry, Fact, LogEvent};
use crate::explore::observed::{LogPosition, ObservedState};

/// The sent messages, the reads of their parents, and the errors about agents.
#[derive(Debug, Default)]
pub(super) struct Resent {
    sends: BTreeMap<NoticeId, Vec<Send>>,
    /// The message of each call that sends one.
    by_call: BTreeMap<u64, NoticeId>,
    stored: BTreeMap<NoticeId, LogPosition>,
    /// The messages stored in each session.
    stored_in: BTreeMap<SessionId, Vec<NoticeId>>,
    /// The newest stored message of each parent.
    newest_stored: BTreeMap<SessionId, LogPosition>,
    /// The reads in flight that took effect.
    open_reads: BTreeMap<u64, LogPosition>,
    /// The successful reads of each session.
    reads: BTreeMap<SessionId, Vec<Read>>,
    /// The agents that errors of each session named.
    unknown_agents: BTreeMap<SessionId, Vec<(LogPosition, String)>>,
    crashes: Vec<LogPosition>,
}

/// A call that sends a message.
#[derive(Debug)]
struct Send {
    number: u64,
    started: LogPosition,
    is_applied: bool,
    /// The end of the call, and whether it succeeded.
    returned: Option<(LogPosition, bool)>,
}

/// A successful read of a session's messages.
#[derive(Debug, Clone, Copy)]
struct Read {
    applied: LogPosition,
    returned: LogPosition,
}

impl Resent {
    /// Returns the newest read of a session that was answered by now. The messages of a task's session are read by its
    /// run as well, so those reads show nothing about a message to it.
    fn newest_read(&self, session: &SessionId, observed: &ObservedState) -> Option<Read> {
        let known = observed.session(session);
        if known.is_some_and(|known| known.owner.is_some()) {
            return None;
        }
        self.reads.get(session)?.last().copied()
    }

    fn check_sent(
        &self,
        parent: &SessionId,
        notice: &Notice,
        observed: &ObservedState,
    ) -> Option<String> {
        let read = self.newest_read(parent, observed);
        if notice.facts.kind == NoticeKind::Continue {
            let stored = self.newest_stored.get(parent);
            let prompted = observed.session(parent)?.user_prompted;
            let is_newer =
                prompted.filter(|prompted| stored.is_none_or(|stored| stored < prompted));
            if let Some((prompted, _)) = is_newer
                .zip(read)
                .filter(|(prompted, read)| *prompted < read.applied)
            {
                return Some(format!(
                    "prompts it to continue, but its user has prompted it at {}",
                    prompted.at
                ));
            }
        }
        if notice.retry_of.is_some() && notice.agent.is_some() {
            return Some("repeats a message whose turn failed, and names an agent".to_owned());
        }
        let stored = self.stored.get(&notice.id);
        if let Some((stored, _)) = stored
            .zip(read)
            .filter(|(stored, read)| **stored < read.applied)
        {
            return Some(format!(
                "is sent again, but is stored since {}, and was read",
                stored.at
            ));
        }
        self.check_agent(parent, notice)
    }

    /// Checks that a message sent again does not name an agent that an error named while the message was in flight.
    fn check_agent(&self, parent: &SessionId, notice: &Notice) -> Option<String> {
        let agent = notice.agent.as_ref()?;
        let before = self.sends.get(&notice.id)?;
        let named = self.unknown_agents.get(parent)?.iter().find(|(at, name)| {
            let in_flight = before.iter().any(|send| {
                let ends = send.returned.map(|(end, _)| end.at + CONFIRM_WAIT);
                // The next process reads the history at once; a later error belongs to another prompt.
                let mut crashes = self.crashes.iter();
                let is_of_this_process = !crashes.any(|crash| *crash > send.started);
                send.started < *at && ends.is_none_or(|ends| at.at < ends) && is_of_this_process
            });
            name == agent && in_flight
        });
        named.map(|(at, _)| {
            format!(
                "is sent again with the agent {agent}, which an error named at {}",
                at.at
            )
        })
    }

    /// Returns true if each repetition of the message followed a read that did not show the message.
    fn may_be_doubled(&self, parent: &SessionId, notice: &NoticeId) -> bool {
        let applied = || {
            let sends = self.sends.get(notice).into_iter().flatten();
            // A message is stored just before its call takes effect.
            sends.filter(|send| send.is_applied || send.returned.is_none())
        };
        applied().count() > 1
            && applied()
                .zip(applied().skip(1))
                .all(|(send, next)| self.may_be_sent_again(parent, notice, send, next))
    }

    fn may_be_sent_again(
        &self,
        parent: &SessionId,
        notice: &NoticeId,
        send: &Send,
        next: &Send,
    ) -> bool {
        let crash = self
            .crashes
            .iter()
            .find(|crash| **crash > send.started && **crash < next.started);
        let errors = self.unknown_agents.get(parent).into_iter().flatten();
        let error = errors
            .map(|(at, _)| at.at)
            .find(|at| *at >= send.started.at);
        let answered = match send.returned {
            Some((returned, true)) => {
                let waited = returned.at + CONFIRM_WAIT;
                Some(error.map_or(waited, |error| error.min(waited)))
            }
            Some((returned, false)) => Some(returned.at),
            None => None,
        };
        let Some(from) = answered
            .into_iter()
            .chain(crash.map(|crash| crash.at))
            .min()
        else {
            return false;
        };
        let stored = self.stored.get(notice);
        let reads = self.reads.get(parent).into_iter().flatten();
        let mut reads = reads.filter(|read| read.returned < next.started);
        reads.any(|read| {
            read.applied.at >= from && stored.is_none_or(|stored| read.applied < *stored)
        })
    }
}

impl Promise for Resent {
    fn name(&self) -> &'static str {
        "3 Wakes (sent again)"
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
                number,
                call: Call::Notify { parent, notice },
            } => {
                let violation = self.check_sent(parent, notice, observed);
                self.by_call.insert(*number, notice.id.clone());
                self.sends.entry(notice.id.clone()).or_default().push(Send {
                    number: *number,
                    started: position,
                    is_applied: false,
                    returned: None,
                });
                return violation.map(|violation| format!("{parent} {} {violation}", notice.id));
            }
            LogEvent::CallApplied(number) => match observed.call(*number) {
                Some(Call::Messages(_)) => {
                    self.open_reads.insert(*number, position);
                }
                Some(Call::Notify { .. }) => self.with_send(*number, |send| send.is_applied = true),
                _ => {}
            },
            LogEvent::CallReturned { number, answer } => {
                let succeeds = answer == "ok";
                if let Some(applied) = self.open_reads.remove(number) {
                    if let (true, Some(Call::Messages(session))) =
                        (succeeds, observed.call(*number))
                    {
                        let reads = self.reads.entry(session.clone()).or_default();
                        reads.push(Read {
                            applied,
                            returned: position,
                        });
                    }
                } else {
                    self.with_send(*number, |send| send.returned = Some((position, succeeds)));
                }
            }
            LogEvent::NoticeStored { parent, notice, .. } => {
                self.newest_stored.insert(parent.clone(), position);
                let stored_in = self.stored_in.entry(parent.clone()).or_default();
                stored_in.push(notice.clone());
                let is_first = !self.stored.contains_key(notice);
                if !is_first && !self.may_be_doubled(parent, notice) {
                    return Some(format!(
                        "{parent} got {notice} twice, and was not read without it before"
                    ));
                }
                self.stored.entry(notice.clone()).or_insert(position);
            }
            LogEvent::EventDelivered { session, kind, .. } => {
                if let Some(agent) = kind.strip_prefix("session.error unknown agent ") {
                    let known = self.unknown_agents.entry(session.clone()).or_default();
                    known.push((position, agent.to_owned()));
                }
            }
            // A message that its user has reverted and deleted is not in the history any more.
            LogEvent::SessionFact {
                session,
                fact: Fact::RevertedDeleted,
            } => {
                for notice in self.stored_in.remove(session).unwrap_or_default() {
                    self.stored.remove(&notice);
                }
            }
            LogEvent::ProcessCrashed(_) => self.crashes.push(position),
            _ => {}
        }
        None
    }
}

impl Resent {
    fn with_send(&mut self, number: u64, change: impl FnOnce(&mut Send)) {
        let sends = self.by_call.get(&number);
        let sends = sends.and_then(|notice| self.sends.get_mut(notice));
        let send = sends.and_then(|sends| sends.iter_mut().find(|send| send.number == number));
        if let Some(send) = send {
            change(send);
        }
    }
}
