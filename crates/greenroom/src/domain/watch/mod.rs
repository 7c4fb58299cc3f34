//! The watch over one run from its session to its end: every rule that turns events, polls and checks into actions.
//! Owned by the run's task actor, which carries out the returned [`WatchAction`]s; pure.
//!
//! This file holds the run and its deadlines; `events` handles server events, `checking` the completion check,
//! `silence` polled statuses and stale runs, `polling` the subscription to polls.

mod checking;
mod events;
mod polling;
mod silence;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

pub use self::polling::{PollContext, PollInterest, PollSubscription, PollView};
use super::ids::MessageId;
use super::lifecycle::{End, Outcome};
use super::task::{Asking, Progress, Retrying};
use super::time::{Timestamp, duration_text};
use super::timeline::TimelineEntry;
use super::tool_calls::ToolCallCounter;
use crate::config::Config;

/// An action for the owner of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchAction {
    /// Read the session's messages and todos, then call [`Watch::checked`].
    Check(CheckToken),
    /// Check whether the session exists, then call [`Watch::existence`].
    ReadSession,
    /// Reject an unanswered request.
    Reject(Asking),
    /// Prompt the session to continue, then call [`Watch::prompt_accepted`].
    Continue,
    /// Release the slot: the run is idle and waits only for its own tasks.
    ReleaseSlot,
    /// Take a slot again, above the limit if necessary.
    RetakeSlot,
    /// The record of the task has changed.
    Changed,
    /// The session was aborted, not by the system: the registry judges the abort, then calls [`Watch::abort_judged`].
    Aborted,
    /// The run was cut off: it continues in its session in the next attempt.
    CutOff {
        /// True if an assistant message was finished in this attempt.
        answered: bool,
    },
    /// The run has ended.
    End(End),
}

/// The number of different timeline entries between two prompts of a session.
const MAX_NOTED: usize = 20;

/// Identifies one completion check; late answers to other checks are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckToken(u64);

/// The status of a session in a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolledStatus {
    /// The session is busy.
    Busy,
    /// The server backs off.
    Retry(Retrying),
    /// The session is listed as idle.
    Idle,
    /// The session is not listed: it is idle or does not exist.
    Absent,
    /// The status is unknown, because the call failed.
    Unknown,
    /// The process that ran the session has ended.
    ProcessEnded,
}

/// The findings of a completion check in the messages and todos of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckFindings {
    /// The run has output.
    pub output: bool,
    /// An assistant message of the run is finished.
    pub finished: bool,
    /// A prompt of the run is among the messages, or the session was created for the run and all messages belong to it.
    pub prompted: bool,
    /// The run has an assistant message.
    pub answered: bool,
    /// The last assistant message of the run was started and never finished.
    pub unfinished: bool,
    /// The error of the last assistant message of the run.
    pub failed: Option<Failure>,
    /// The number of todos that are neither completed nor cancelled.
    pub open_todos: usize,
}

/// The error of a message or event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// True if the session was aborted.
    pub aborted: bool,
    /// The text.
    pub text: String,
}

/// The answer to a completion check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckAnswer {
    /// The findings.
    Found(CheckFindings),
    /// The session does not exist.
    Gone,
    /// The check failed.
    Failed(String),
}

#[derive(Debug)]
struct Check {
    token: CheckToken,
    signs_of_life: u64,
    stale: bool,
}

#[derive(Debug)]
struct Turn {
    message: Option<MessageId>,
    finished_at: Option<Timestamp>,
}

/// The watch over one run.
#[derive(Debug)]
pub struct Watch {
    config: Arc<Config>,
    resumed: bool,
    started: Timestamp,
    guard_from: Timestamp,
    prompt_accepted: Option<Timestamp>,
    /// The progress, published to readers.
    pub progress: Progress,
    /// The server's backoff, if any.
    pub retrying: Option<Retrying>,
    /// The open requests.
    pub asking: Vec<Asking>,
    /// A note for readers.
    pub note: Option<String>,
    last_sign_of_life: Timestamp,
    /// The time since which the session is observed. Earlier silence is unknown and does not count.
    observed_since: Timestamp,
    signs_of_life: u64,
    seen_busy: bool,
    turn: Option<Turn>,
    deferred: bool,
    idle_since: Option<Timestamp>,
    absent_polls: u32,
    check: Option<Check>,
    next_token: u64,
    failed_checks: u32,
    retry_deadline: Option<Timestamp>,
    calls: ToolCallCounter,
    user_messages: Vec<MessageId>,
    /// True if the abort that ended the run or attempt before may still be reported: this watch began in its session. Not
    /// after a restart of the service, long after that abort.
    expects_echo: bool,
    /// When the prompt of this attempt was sent, if this watch began before.
    prompt_began: Option<Timestamp>,
    open_children: usize,
    has_pending: bool,
    sends_in_flight: usize,
    holds_slot: bool,
    continuations: u32,
    event_link_lost: bool,
    /// True while an abort waits for its judgement.
    abort_pending: bool,
    /// True until the prompt of a run in an older session is sent: errors until then are of an earlier turn.
    awaits_prompt: bool,
    /// The number of times that the run was cut off in a row before this attempt.
    cut_offs: u32,
    /// An assistant message was finished in this attempt.
    has_finished_message: bool,
    last_report: Timestamp,
    // Emptied after every call, which adds few entries.
    timeline: Vec<TimelineEntry>,
    // The entries since the last prompt, at most `MAX_NOTED`.
    noted: Vec<TimelineEntry>,
}

impl Watch {
    /// Creates the watch over a run that has its session now. `resumed` is true if the session is older than the run.
    pub fn new(
        config: Arc<Config>,
        mut progress: Progress,
        resumed: bool,
        holds_slot: bool,
        now: Timestamp,
    ) -> Self {
        // The time in the queue does not count as silence of the run.
        progress.last_update = progress.last_update.max(now);
        Self {
            config,
            resumed,
            started: now,
            guard_from: now,
            prompt_accepted: None,
            progress,
            retrying: None,
            asking: Vec::new(),
            note: None,
            last_sign_of_life: now,
            observed_since: now,
            signs_of_life: 0,
            seen_busy: false,
            turn: None,
            deferred: false,
            idle_since: None,
            absent_polls: 0,
            check: None,
            next_token: 0,
            failed_checks: 0,
            retry_deadline: None,
            calls: ToolCallCounter::default(),
            user_messages: Vec::new(),
            expects_echo: false,
            prompt_began: None,
            open_children: 0,
            has_pending: false,
            sends_in_flight: 0,
            holds_slot,
            continuations: 0,
            event_link_lost: false,
            abort_pending: false,
            awaits_prompt: false,
            cut_offs: 0,
            has_finished_message: false,
            last_report: now,
            timeline: Vec::new(),
            noted: Vec::new(),
        }
    }

    /// Returns the new timeline entries since the last call.
    pub fn take_timeline(&mut self) -> Vec<TimelineEntry> {
        std::mem::take(&mut self.timeline)
    }

    /// Adds a timeline entry, once between two prompts of the session.
    fn note_once(&mut self, what: &'static str, detail: impl Into<Cow<'static, str>>) {
        let entry = TimelineEntry::new(what, detail);
        if self.noted.len() < MAX_NOTED && !self.noted.contains(&entry) {
            self.noted.push(entry.clone());
            self.timeline.push(entry);
        }
    }

    /// Returns the start of the run's session.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Records that the prompt of the run is not sent yet.
    pub fn awaits_prompt(&mut self) {
        self.awaits_prompt = self.resumed;
        self.expects_echo = self.resumed;
    }

    /// Records that the prompt of the run is being sent.
    pub fn prompt_begins(&mut self, now: Timestamp) {
        self.awaits_prompt = false;
        self.prompt_began = Some(now);
    }

    /// Returns when the prompt of this attempt was sent; none after a restart of the service.
    pub fn prompt_began(&self) -> Option<Timestamp> {
        self.prompt_began
    }

    /// Records that the server accepted a prompt of the run. Polls from before it do not concern the run.
    pub fn prompt_accepted(&mut self, now: Timestamp) {
        self.prompt_accepted = Some(now);
        self.awaits_prompt = false;
        // Idle time before the prompt does not count as refusing to take it up.
        self.idle_since = self.idle_since.map(|_| now);
    }

    /// Records that the session was not observed until now: its silence before is unknown and does not count.
    pub fn observed_since(&mut self, now: Timestamp) {
        self.last_sign_of_life = self.last_sign_of_life.max(now);
        self.observed_since = self.observed_since.max(now);
    }

    /// Records that events were lost since the start of the run, maybe because of a restart of the server.
    pub fn event_link_lost(&mut self) {
        self.event_link_lost = true;
    }

    /// Sets the number of times that the run was cut off in a row before this attempt.
    pub fn set_cut_offs(&mut self, cut_offs: u32) {
        self.cut_offs = cut_offs;
    }

    /// Returns true while an abort of the session waits for its judgement.
    pub fn is_abort_pending(&self) -> bool {
        self.abort_pending
    }

    /// Records that an abort of the session waits for its judgement. No check begins until then.
    pub fn hold_for_abort(&mut self) {
        self.abort_pending = true;
        self.signs_of_life += 1;
    }

    /// Processes the judgement of the session's abort.
    pub fn abort_judged(&mut self, cut_off: bool) -> Vec<WatchAction> {
        self.abort_pending = false;
        if cut_off {
            return self.cut_off("the instance of its session ended");
        }
        self.note_once("aborted", "a person stopped its session");
        vec![WatchAction::End(failure_end(true, ""))]
    }

    /// Handles a run whose turn was cut off: it continues, unless that was in vain before.
    pub(super) fn cut_off(&mut self, why: &'static str) -> Vec<WatchAction> {
        let in_vain = if self.has_finished_message {
            0
        } else {
            self.cut_offs
        };
        if in_vain >= self.config.lifecycle.restart_attempts {
            return vec![WatchAction::End(End::interrupt("cut off again"))];
        }
        self.note_once("cut off", why);
        vec![WatchAction::CutOff {
            answered: self.has_finished_message,
        }]
    }

    /// Returns true if runs that are cut off continue in a new attempt.
    fn continues_cut_off_runs(&self) -> bool {
        self.config.lifecycle.abort_grace.is_some()
    }

    /// Records that a further prompt is in flight. The run does not complete until its outcome is known.
    pub fn sending(&mut self) {
        self.sends_in_flight += 1;
        self.signs_of_life += 1;
    }

    /// Records that a further prompt failed.
    pub fn not_sent(&mut self) {
        self.sends_in_flight = self.sends_in_flight.saturating_sub(1);
    }

    /// Records that a further prompt was accepted, which counts as activity.
    pub fn prompted_again(&mut self, now: Timestamp) -> Vec<WatchAction> {
        self.not_sent();
        let mut actions = self.activity(now);
        self.restart_idle_guard(now);
        actions.push(WatchAction::Changed);
        actions
    }

    /// Records that the run's session accepted a waking message: the idle guard restarts.
    pub fn wake_accepted(&mut self, now: Timestamp) {
        self.last_sign_of_life = now;
        self.restart_idle_guard(now);
    }

    /// Sets the number of open tasks below this run's session, and whether a message to the session is pending. A
    /// change of the number is a sign of life of these tasks.
    pub fn dependents(
        &mut self,
        open: usize,
        has_pending: bool,
        now: Timestamp,
    ) -> Vec<WatchAction> {
        if open != self.open_children {
            self.last_sign_of_life = now;
        }
        self.open_children = open;
        self.has_pending = has_pending;
        self.release_slot_if_waiting()
    }

    /// Returns the time of the next call of [`Watch::on_deadline`].
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.abort_pending {
            return None;
        }
        let deferred = self.deferred.then(|| self.idle_guard_ends());
        let ask_deadlines = self
            .asking
            .iter()
            .map(|ask| ask.since + self.config.lifecycle.ask_timeout);
        deferred
            .into_iter()
            .chain(self.retry_deadline)
            .chain(ask_deadlines)
            .min()
    }

    /// Returns the actions that are due at `now`.
    pub fn on_deadline(&mut self, now: Timestamp) -> Vec<WatchAction> {
        if self.abort_pending {
            return Vec::new();
        }
        if let Some(deadline) = self.retry_deadline
            && deadline <= now
        {
            let reason = self
                .retrying
                .as_ref()
                .map(|retrying| retrying.message.as_str());
            let text = reason
                .filter(|text| !text.is_empty())
                .unwrap_or("the provider asks to wait");
            return vec![WatchAction::End(End::error(text).with_note(format!(
                "the provider was retried for {} in vain",
                duration_text(self.config.lifecycle.retry_timeout)
            )))];
        }
        let mut actions = Vec::new();
        let limit = self.config.lifecycle.ask_timeout;
        let (overdue, open): (Vec<Asking>, Vec<Asking>) = self
            .asking
            .drain(..)
            .partition(|ask| ask.since + limit <= now);
        self.asking = open;
        for ask in overdue {
            self.note = Some(format!(
                "request rejected after {} without an answer: {}",
                duration_text(limit),
                ask.what
            ));
            actions.extend(self.sign_of_life(now));
            self.note_once("question rejected", ask.what.clone());
            actions.push(WatchAction::Reject(ask));
            actions.push(WatchAction::Changed);
        }
        if self.deferred && self.idle_guard_ends() <= now {
            self.deferred = false;
            actions.extend(self.begin_check(false));
        }
        actions
    }

    /// Returns true if the run holds its slot or needs one. A run that released it gives back a slot that arrives late.
    pub fn needs_slot(&self) -> bool {
        self.holds_slot
    }

    /// Records that the slot was released or taken again.
    pub fn set_holds_slot(&mut self, holds: bool) {
        self.holds_slot = holds;
    }

    fn release_slot_if_waiting(&mut self) -> Vec<WatchAction> {
        let waits = self.open_children > 0 && self.idle_since.is_some() && !self.deferred;
        if waits && self.holds_slot {
            self.note_once(
                "slot given back",
                match self.open_children {
                    1 => "it waits for a task of its own".to_owned(),
                    open => format!("it waits for {open} tasks of its own"),
                },
            );
            vec![WatchAction::ReleaseSlot]
        } else {
            Vec::new()
        }
    }

    fn waits_for_others(&self) -> bool {
        self.open_children > 0 || self.has_pending || self.sends_in_flight > 0
    }

    fn restart_idle_guard(&mut self, now: Timestamp) {
        self.guard_from = now;
        self.noted.clear();
        self.turn = None;
        self.idle_since = None;
        self.absent_polls = 0;
        self.deferred = false;
        self.signs_of_life += 1;
    }

    fn idle_guard_ends(&self) -> Timestamp {
        self.guard_from + self.config.lifecycle.min_idle
    }

    /// Limits updates to one per second, since streamed text would double every message.
    fn report(&mut self, mut actions: Vec<WatchAction>, now: Timestamp) -> Vec<WatchAction> {
        if !actions.contains(&WatchAction::Changed)
            && now.since(self.last_report) >= Duration::from_secs(1)
        {
            actions.push(WatchAction::Changed);
        }
        if actions.contains(&WatchAction::Changed) {
            self.last_report = now;
        }
        actions
    }
}

fn failure_end(aborted: bool, text: &str) -> End {
    if aborted {
        return End::new(
            Outcome::Interrupt,
            Some("the session was aborted from outside".to_owned()),
        );
    }
    End::error(text)
}
