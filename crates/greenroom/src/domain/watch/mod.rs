//! Watching one run from its session to its end: every rule that reads events, polls and checks and says what follows.
//! Owned by the run's task actor, which does what the returned [`WatchAction`]s ask for; pure.
//!
//! Its rooms: here the run and its clocks, `events` what the server tells, `checking` whether it is done, `silence` what
//! polls see and when it has been silent for too long, `interest` what of that it must be told.

mod checking;
mod events;
mod polling;
mod silence;

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

/// What the owner of a run is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchAction {
    /// Read the session's messages and todos and come back with [`Watch::checked`].
    Check(CheckToken),
    /// Ask the server whether the session exists and come back with [`Watch::existence`].
    ReadSession,
    /// Reject a request nobody answered.
    Reject(Asking),
    /// Prompt the session to go on where it stopped and come back with [`Watch::prompt_accepted`].
    Continue,
    /// Give the slot back: the run is idle and waits only for tasks of its own.
    ReleaseSlot,
    /// Count again, above the limit if it must be.
    RetakeSlot,
    /// Something readers see has changed.
    Changed,
    /// The run has ended.
    End(End),
}

/// How many different things are remarked on between two prompts of a session.
const MAX_NOTED: usize = 20;

/// Names one completion check; a late answer of another is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckToken(u64);

/// What a poll saw of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolledStatus {
    /// It works.
    Busy,
    /// The server backs off.
    Retry(Retrying),
    /// Listed as idle.
    Idle,
    /// Not listed: idle, or not there.
    Absent,
    /// The status was not to be had; it says nothing.
    Unknown,
}

/// What a completion check found in the messages and todos of this run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckFindings {
    /// There is output of this run.
    pub output: bool,
    /// A prompt of this run is among the messages, or the session was made for this run: all in it is its own.
    pub prompted: bool,
    /// There is an assistant message of this run.
    pub answered: bool,
    /// The last assistant message of this run was begun and never finished.
    pub unfinished: bool,
    /// The last assistant message of this run carries an error.
    pub failed: Option<Failure>,
    /// Todos in any state but completed and cancelled.
    pub open_todos: usize,
}

/// An error that a message or event carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Somebody aborted the session.
    pub aborted: bool,
    /// The text.
    pub text: String,
}

/// The answer to a completion check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckAnswer {
    /// What was found.
    Found(CheckFindings),
    /// The server says there is no such session.
    Gone,
    /// It could not be answered.
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

/// One run, watched.
#[derive(Debug)]
pub struct Watch {
    config: Arc<Config>,
    resumed: bool,
    started: Timestamp,
    guard_from: Timestamp,
    prompt_accepted: Option<Timestamp>,
    /// What readers see of its work.
    pub progress: Progress,
    /// The server backs off for it.
    pub retrying: Option<Retrying>,
    /// What it waits for somebody to answer.
    pub asking: Vec<Asking>,
    /// What a reader should know of how it went.
    pub note: Option<String>,
    last_sign_of_life: Timestamp,
    /// Since when somebody listens: what was before is not known, and no silence.
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
    open_children: usize,
    has_pending: bool,
    sends_in_flight: usize,
    holds_slot: bool,
    continuations: u32,
    event_link_lost: bool,
    last_report: Timestamp,
    // Emptied after every look; a look adds a few at most.
    timeline: Vec<TimelineEntry>,
    // Since the session was prompted last, at most so many as fit.
    noted: Vec<TimelineEntry>,
}

impl Watch {
    /// A run that has its session now. `resumed` if the session is older than the run.
    pub fn new(
        config: Arc<Config>,
        mut progress: Progress,
        resumed: bool,
        holds_slot: bool,
        now: Timestamp,
    ) -> Self {
        // The time in line is no silence of the run.
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
            open_children: 0,
            has_pending: false,
            sends_in_flight: 0,
            holds_slot,
            continuations: 0,
            event_link_lost: false,
            last_report: now,
            timeline: Vec::new(),
            noted: Vec::new(),
        }
    }

    /// What was seen since the last call that the story of the task should tell.
    pub fn take_timeline(&mut self) -> Vec<TimelineEntry> {
        std::mem::take(&mut self.timeline)
    }

    /// Something worth telling. PollSubscription once, however often it is seen again before the session is prompted again.
    fn note_once(&mut self, what: &'static str, detail: impl Into<String>) {
        let entry = TimelineEntry::new(what, detail);
        if self.noted.len() < MAX_NOTED && !self.noted.contains(&entry) {
            self.noted.push(entry.clone());
            self.timeline.push(entry);
        }
    }

    /// When this run got its session.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// The server has accepted a prompt of this run. Polls asked before it say nothing of this run.
    pub fn prompt_accepted(&mut self, now: Timestamp) {
        self.prompt_accepted = Some(now);
        // Idle before it had anything to do says nothing of whether it takes it up.
        self.idle_since = self.idle_since.map(|_| now);
    }

    /// Nobody has listened until now: what the session did meanwhile is not known, and no silence of it.
    pub fn observed_since(&mut self, now: Timestamp) {
        self.last_sign_of_life = self.last_sign_of_life.max(now);
        self.observed_since = self.observed_since.max(now);
    }

    /// Events were lost since the run began, maybe because the server was restarted.
    pub fn event_link_lost(&mut self) {
        self.event_link_lost = true;
    }

    /// A further prompt is on its way to the session: until its fate is known the run does not complete.
    pub fn sending(&mut self) {
        self.sends_in_flight += 1;
        self.signs_of_life += 1;
    }

    /// A further prompt was not taken.
    pub fn not_sent(&mut self) {
        self.sends_in_flight = self.sends_in_flight.saturating_sub(1);
    }

    /// A further prompt was given to the session: activity.
    pub fn prompted_again(&mut self, now: Timestamp) -> Vec<WatchAction> {
        self.not_sent();
        let mut actions = self.activity(now);
        self.restart_idle_guard(now);
        actions.push(WatchAction::Changed);
        actions
    }

    /// A message of ours that wakes was accepted by this run's session: the guard begins again.
    pub fn wake_accepted(&mut self, now: Timestamp) {
        self.last_sign_of_life = now;
        self.restart_idle_guard(now);
    }

    /// What depends on this run's session: its open tasks, and whether a message of ours is owed to it. A change is a
    /// sign of life of the tasks below.
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

    /// The earliest time at which [`Watch::on_deadline`] has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
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

    /// What is due at `now`.
    pub fn on_deadline(&mut self, now: Timestamp) -> Vec<WatchAction> {
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
                "asked, and rejected after {} without an answer: {}",
                duration_text(limit),
                ask.what
            ));
            actions.extend(self.sign_of_life(now));
            self.note_once("question rejected", ask.what.as_str());
            actions.push(WatchAction::Reject(ask));
            actions.push(WatchAction::Changed);
        }
        if self.deferred && self.idle_guard_ends() <= now {
            self.deferred = false;
            actions.extend(self.begin_check(false));
        }
        actions
    }

    /// True if the run counts: one that was let go of meanwhile gives back a slot that arrives late.
    pub fn needs_slot(&self) -> bool {
        self.holds_slot
    }

    /// The slot was given back or taken again, as the actions asked.
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

    /// Mere activity is reported at most once a second: streamed text would double every message otherwise.
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
