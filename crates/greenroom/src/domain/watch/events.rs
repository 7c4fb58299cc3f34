//! What the server tells of the session: signs of life, messages and parts, idle, errors, requests.

use super::{Act, Turn, Watch, failure_end};
use crate::domain::calls::Verdict;
use crate::domain::ids::MessageId;
use crate::domain::lifecycle::End;
use crate::domain::session_event::SessionEventKind;
use crate::domain::task::{Asking, Retrying, cut};
use crate::domain::time::Timestamp;
use crate::domain::transcript::{Message, Part};

impl Watch {
    /// An event of the session.
    pub fn event(&mut self, kind: &SessionEventKind, now: Timestamp) -> Vec<Act> {
        match kind {
            SessionEventKind::Message(message) => self.message(message, now),
            SessionEventKind::Part { message, part } => self.part(message.as_ref(), part, now),
            SessionEventKind::Delta { message } if self.is_users(message.as_ref()) => Vec::new(),
            SessionEventKind::Delta { .. } | SessionEventKind::Work => {
                let acts = self.activity(now);
                self.report(acts, now)
            }
            SessionEventKind::Busy => self.busy(now),
            SessionEventKind::Retry {
                attempt,
                message,
                until,
            } => {
                let retrying = Retrying {
                    attempt: *attempt,
                    message: message.clone(),
                    until: *until,
                };
                self.retry(retrying, now)
            }
            SessionEventKind::Idle => self.idle(now),
            SessionEventKind::Error { aborted, text } => self.error(*aborted, text),
            SessionEventKind::Asked { id, kind, what } => {
                let mut acts = self.sign(now);
                if !self.asking.iter().any(|ask| ask.id == *id) && self.asking.len() < 100 {
                    self.remark("asks", what.as_str());
                    self.asking.push(Asking {
                        id: id.clone(),
                        kind: *kind,
                        what: what.clone(),
                        since: now,
                    });
                }
                acts.push(Act::Changed);
                acts
            }
            SessionEventKind::Answered { id } => {
                let before = self.asking.len();
                self.asking.retain(|ask| ask.id != *id);
                if before == self.asking.len() {
                    return Vec::new();
                }
                let mut acts = self.sign(now);
                acts.push(Act::Changed);
                acts
            }
            SessionEventKind::Deleted => Vec::new(),
        }
    }

    pub(super) fn message(&mut self, message: &Message, now: Timestamp) -> Vec<Act> {
        match message.role.as_deref() {
            Some("user") => {
                if let Some(id) = &message.id
                    && !self.user_messages.contains(id)
                {
                    self.user_messages.push(id.clone());
                    // Parts follow their message closely; the newest few are all that is looked up.
                    if self.user_messages.len() > 64 {
                        self.user_messages.remove(0);
                    }
                }
                Vec::new()
            }
            Some("assistant") => {
                let acts = self.activity(now);
                let finished_at =
                    (message.is_finished_turn() && message.error.is_none()).then_some(now);
                match &mut self.turn {
                    // Updates of an older message do not replace what is known of the newest.
                    Some(turn) if turn.message == message.id => {
                        turn.finished_at = turn.finished_at.or(finished_at)
                    }
                    Some(turn) if turn.message > message.id && message.id.is_some() => {}
                    turn => {
                        *turn = Some(Turn {
                            message: message.id.clone(),
                            finished_at,
                        })
                    }
                }
                self.report(acts, now)
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn part(
        &mut self,
        message: Option<&MessageId>,
        part: &Part,
        now: Timestamp,
    ) -> Vec<Act> {
        if self.is_users(message) {
            return Vec::new();
        }
        let mut acts = self.activity(now);
        if part.is_tool() {
            if self.calls.count(part) {
                self.progress.tool_calls = self.progress.tool_calls.saturating_add(1);
                if part.tool.is_some() {
                    self.progress.last_tool.clone_from(&part.tool);
                }
                acts.push(Act::Changed);
            }
            match self.calls.judge(&self.config.safety) {
                Verdict::Fine => {}
                Verdict::Stop(reason) => acts.push(Act::End(End::cancelled(Some(reason)))),
            }
        }
        if part.kind == "text"
            && let Some(text) = part.text.as_deref().filter(|text| !text.trim().is_empty())
        {
            self.progress.last_message = Some(cut(text, 500).to_owned());
            self.progress.last_message_at = Some(now);
        }
        self.report(acts, now)
    }

    pub(super) fn busy(&mut self, seen_at: Timestamp) -> Vec<Act> {
        self.seen_busy = true;
        self.sign(seen_at)
    }

    pub(super) fn retry(&mut self, mut retrying: Retrying, seen_at: Timestamp) -> Vec<Act> {
        self.seen_busy = true;
        if let (true, Some(known)) = (retrying.message.is_empty(), &self.retrying) {
            retrying.message.clone_from(&known.message);
        }
        let mut acts = self.sign(seen_at);
        self.retry_deadline
            .get_or_insert(seen_at + self.config.lifecycle.retry_timeout);
        // Every poll sees the same wait again: that is no change.
        if self.retrying.as_ref() != Some(&retrying) {
            self.remark("the agent server backs off", retrying.message.as_str());
            self.retrying = Some(retrying);
            acts.push(Act::Changed);
        }
        acts
    }

    pub(super) fn idle(&mut self, now: Timestamp) -> Vec<Act> {
        self.idle_since.get_or_insert(now);
        self.retry_deadline = None;
        self.retrying = None;
        let answered = self
            .turn
            .as_ref()
            .and_then(|turn| turn.finished_at)
            .is_some_and(|at| at >= self.guard_from);
        if now < self.guard_ends() && !(self.seen_busy && answered) {
            self.deferred = true;
            return Vec::new();
        }
        self.remark("idle", "an event says so");
        self.begin_check(false, now)
    }

    pub(super) fn error(&mut self, aborted: bool, text: &str) -> Vec<Act> {
        if aborted && self.resumed && !self.seen_busy {
            // The echo of the abort that ended the run before.
            return Vec::new();
        }
        vec![Act::End(failure_end(aborted, text))]
    }

    /// A sign of life that is work: it moves `lastUpdate` and ends what the server's backing off had begun.
    pub(super) fn activity(&mut self, now: Timestamp) -> Vec<Act> {
        let mut acts = self.sign(now);
        self.progress.last_update = now;
        self.retry_deadline = None;
        if self.retrying.take().is_some() {
            acts.push(Act::Changed);
        }
        acts
    }

    pub(super) fn sign(&mut self, seen_at: Timestamp) -> Vec<Act> {
        self.last_sign = self.last_sign.max(seen_at);
        self.signs += 1;
        self.deferred = false;
        self.idle_since = None;
        self.absent_polls = 0;
        if self.holds_slot {
            Vec::new()
        } else {
            self.remark("works again", "");
            vec![Act::TakeSlotAgain]
        }
    }

    pub(super) fn is_users(&self, message: Option<&MessageId>) -> bool {
        message.is_some_and(|message| self.user_messages.contains(message))
    }
}
