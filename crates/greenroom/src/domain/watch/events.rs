//! Server events of the session: signs of life, messages and parts, idle, errors, requests.

use super::{Turn, Watch, WatchAction, failure_end};
use crate::domain::ids::MessageId;
use crate::domain::lifecycle::End;
use crate::domain::session_event::SessionEventKind;
use crate::domain::task::{Asking, Retrying, cut};
use crate::domain::time::Timestamp;
use crate::domain::tool_calls::BreakerVerdict;
use crate::domain::transcript::{Message, Part};

impl Watch {
    /// Processes an event of the session.
    pub fn event(&mut self, kind: &SessionEventKind, now: Timestamp) -> Vec<WatchAction> {
        match kind {
            SessionEventKind::Message(message) => self.message(message, now),
            SessionEventKind::Part { message, part } => self.part(message.as_ref(), part, now),
            SessionEventKind::Delta { message } if self.is_user_message(message.as_ref()) => {
                Vec::new()
            }
            SessionEventKind::Delta { .. } | SessionEventKind::Work => {
                let actions = self.activity(now);
                self.report(actions, now)
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
            SessionEventKind::AskOpened { id, kind, what } => {
                let mut actions = self.sign_of_life(now);
                if !self.asking.iter().any(|ask| ask.id == *id) && self.asking.len() < 100 {
                    self.note_once("asks", what.clone());
                    self.asking.push(Asking {
                        id: id.clone(),
                        kind: *kind,
                        what: what.clone(),
                        since: now,
                    });
                }
                actions.push(WatchAction::Changed);
                actions
            }
            SessionEventKind::Answered { id } => {
                let before = self.asking.len();
                self.asking.retain(|ask| ask.id != *id);
                if before == self.asking.len() {
                    return Vec::new();
                }
                let mut actions = self.sign_of_life(now);
                actions.push(WatchAction::Changed);
                actions
            }
            SessionEventKind::Updated { .. } | SessionEventKind::Deleted => Vec::new(),
        }
    }

    pub(super) fn message(&mut self, message: &Message, now: Timestamp) -> Vec<WatchAction> {
        match message.role.as_deref() {
            Some("user") => {
                if let Some(id) = &message.id
                    && !self.user_messages.contains(id)
                {
                    self.user_messages.push(id.clone());
                    // Parts follow their message closely; only the newest few messages are looked up.
                    if self.user_messages.len() > 64 {
                        self.user_messages.remove(0);
                    }
                }
                Vec::new()
            }
            Some("assistant") => {
                // While the server backs off, an abort shows only as a message completed without a reason.
                let is_abort = message.aborted
                    || (self.retrying.is_some()
                        && message.completed.is_some()
                        && message.finish.is_none()
                        && message.error.is_none());
                if is_abort && self.continues_cut_off_runs() {
                    // A late event of an earlier attempt: the aborted message is older than the prompt of this one, or than
                    // another message of the agent.
                    let newest = self.turn.as_ref().and_then(|turn| turn.message.as_ref());
                    let is_older = message.id.as_ref().is_some_and(|id| newest > Some(id));
                    let created = message.created.zip(self.prompt_began);
                    if is_older || created.is_some_and(|(at, began)| at.is_wall_before(began)) {
                        return Vec::new();
                    }
                    return self.aborted();
                }
                if message.completed.is_some()
                    && message.finish.is_some()
                    && message.error.is_none()
                {
                    self.has_finished_message = true;
                }
                let actions = self.activity(now);
                let finished_at =
                    (message.is_finished_turn() && message.error.is_none()).then_some(now);
                match &mut self.turn {
                    // Updates of an older message do not replace the newest one.
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
                self.report(actions, now)
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn part(
        &mut self,
        message: Option<&MessageId>,
        part: &Part,
        now: Timestamp,
    ) -> Vec<WatchAction> {
        if self.is_user_message(message) {
            return Vec::new();
        }
        let mut actions = self.activity(now);
        if part.is_tool() {
            if self.calls.count(part) {
                self.progress.tool_calls = self.progress.tool_calls.saturating_add(1);
                if part.tool.is_some() {
                    self.progress.last_tool.clone_from(&part.tool);
                }
                actions.push(WatchAction::Changed);
            }
            match self.calls.judge(&self.config.safety) {
                BreakerVerdict::Fine => {}
                BreakerVerdict::Stop(reason) => {
                    actions.push(WatchAction::End(End::cancelled(Some(reason))))
                }
            }
        }
        if part.kind == "text"
            && let Some(text) = part.text.as_deref().filter(|text| !text.trim().is_empty())
        {
            self.progress.last_message = Some(cut(text, 500).to_owned());
            self.progress.last_message_at = Some(now);
        }
        self.report(actions, now)
    }

    pub(super) fn busy(&mut self, seen_at: Timestamp) -> Vec<WatchAction> {
        self.seen_busy = true;
        self.sign_of_life(seen_at)
    }

    pub(super) fn retry(&mut self, mut retrying: Retrying, seen_at: Timestamp) -> Vec<WatchAction> {
        self.seen_busy = true;
        if retrying.message.is_empty()
            && let Some(known) = &self.retrying
        {
            retrying.message.clone_from(&known.message);
        }
        let mut actions = self.sign_of_life(seen_at);
        self.retry_deadline
            .get_or_insert(seen_at + self.config.lifecycle.retry_timeout);
        // Every poll reports the same wait again, which is not a change.
        if self.retrying.as_ref() != Some(&retrying) {
            self.note_once("the agent server backs off", retrying.message.clone());
            self.retrying = Some(retrying);
            actions.push(WatchAction::Changed);
        }
        actions
    }

    pub(super) fn idle(&mut self, now: Timestamp) -> Vec<WatchAction> {
        self.idle_since.get_or_insert(now);
        self.retry_deadline = None;
        self.retrying = None;
        if self.abort_pending {
            return Vec::new();
        }
        let answered = self
            .turn
            .as_ref()
            .and_then(|turn| turn.finished_at)
            .is_some_and(|at| at >= self.guard_from);
        if now < self.idle_guard_ends() && !(self.seen_busy && answered) {
            self.deferred = true;
            return Vec::new();
        }
        self.note_once("idle", "by an event");
        self.begin_check(false)
    }

    pub(super) fn error(&mut self, aborted: bool, text: &str) -> Vec<WatchAction> {
        if aborted && self.expects_echo && !self.seen_busy {
            // A late event of the abort that ended the previous run.
            return Vec::new();
        }
        if aborted && self.continues_cut_off_runs() {
            return self.aborted();
        }
        if self.awaits_prompt && !aborted {
            // A late event of the turn before.
            return Vec::new();
        }
        if self.abort_pending {
            // An error that follows the abort does not judge it.
            return Vec::new();
        }
        vec![WatchAction::End(failure_end(aborted, text))]
    }

    /// Handles an abort of the session that the system did not request. A run that continues its session ignores it
    /// until it was seen busy: it is a late event of the abort before.
    fn aborted(&mut self) -> Vec<WatchAction> {
        if self.expects_echo && !self.seen_busy {
            return Vec::new();
        }
        self.hold_for_abort();
        vec![WatchAction::Aborted]
    }

    /// Records activity: a sign of life that moves `lastUpdate` and ends the server's backoff.
    pub(super) fn activity(&mut self, now: Timestamp) -> Vec<WatchAction> {
        let mut actions = self.sign_of_life(now);
        self.progress.last_update = now;
        self.retry_deadline = None;
        if self.retrying.take().is_some() {
            actions.push(WatchAction::Changed);
        }
        actions
    }

    pub(super) fn sign_of_life(&mut self, seen_at: Timestamp) -> Vec<WatchAction> {
        self.last_sign_of_life = self.last_sign_of_life.max(seen_at);
        self.signs_of_life += 1;
        self.deferred = false;
        self.idle_since = None;
        self.absent_polls = 0;
        if self.holds_slot {
            Vec::new()
        } else {
            self.note_once("works again", "");
            vec![WatchAction::RetakeSlot]
        }
    }

    pub(super) fn is_user_message(&self, message: Option<&MessageId>) -> bool {
        message.is_some_and(|message| self.user_messages.contains(message))
    }
}
