//! Watching one run from its session to its end: every rule that reads events, polls and checks and says what follows.
//! Owned by the run's task actor, which does what the returned [`Act`]s ask for; pure.

use std::time::Duration;

use super::calls::{CallTally, Verdict};
use super::ids::MessageId;
use super::lifecycle::{End, Outcome};
use super::session_event::Happening;
use super::task::{Asking, Progress, Retrying, cut};
use super::time::{Timestamp, duration_text};
use super::transcript::{Message, Part};
use crate::config::{Config, FailedCheck};

/// What the owner of a run is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Read the session's messages and todos and come back with [`Watch::checked`].
    Check(CheckToken),
    /// Ask the server whether the session exists and come back with [`Watch::existence`].
    AskWhetherItExists,
    /// Reject a request nobody answered.
    Reject(Asking),
    /// Prompt the session to go on where it stopped and come back with [`Watch::prompt_accepted`].
    GoOn,
    /// Give the slot back: the run is idle and waits only for tasks of its own.
    LetGoOfSlot,
    /// Count again, above the limit if it must be.
    TakeSlotAgain,
    /// Something readers see has changed.
    Changed,
    /// The run has ended.
    End(End),
}

/// Names one completion check; a late answer of another is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckToken(u64);

/// What a poll saw of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
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
pub struct Findings {
    /// There is output of this run.
    pub output: bool,
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
    Found(Findings),
    /// The server says there is no such session.
    Gone,
    /// It could not be answered.
    Failed(String),
}

#[derive(Debug)]
struct Check {
    token: CheckToken,
    signs: u64,
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
    config: Config,
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
    last_sign: Timestamp,
    signs: u64,
    seen_busy: bool,
    turn: Option<Turn>,
    deferred: bool,
    idle_since: Option<Timestamp>,
    absent_polls: u32,
    check: Option<Check>,
    next_token: u64,
    failed_checks: u32,
    retry_deadline: Option<Timestamp>,
    calls: CallTally,
    user_messages: Vec<MessageId>,
    open_children: usize,
    owed: bool,
    sends_in_flight: usize,
    holds_slot: bool,
    go_ons: u32,
    link_broke: bool,
    reported: Timestamp,
}

impl Watch {
    /// A run that has its session now. `resumed` if the session is older than the run.
    pub fn new(
        config: Config,
        progress: Progress,
        resumed: bool,
        holds_slot: bool,
        now: Timestamp,
    ) -> Self {
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
            last_sign: now,
            signs: 0,
            seen_busy: false,
            turn: None,
            deferred: false,
            idle_since: None,
            absent_polls: 0,
            check: None,
            next_token: 0,
            failed_checks: 0,
            retry_deadline: None,
            calls: CallTally::default(),
            user_messages: Vec::new(),
            open_children: 0,
            owed: false,
            sends_in_flight: 0,
            holds_slot,
            go_ons: 0,
            link_broke: false,
            reported: now,
        }
    }

    /// When this run got its session.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// The server has accepted a prompt of this run. Polls asked before it say nothing of this run.
    pub fn prompt_accepted(&mut self, now: Timestamp) {
        self.prompt_accepted = Some(now);
    }

    /// Events were lost since the run began, maybe because the server was restarted.
    pub fn link_broke(&mut self) {
        self.link_broke = true;
    }

    /// A further prompt is on its way to the session: until its fate is known the run does not complete.
    pub fn sending(&mut self) {
        self.sends_in_flight += 1;
        self.signs += 1;
    }

    /// A further prompt was not taken.
    pub fn not_sent(&mut self) {
        self.sends_in_flight = self.sends_in_flight.saturating_sub(1);
    }

    /// A further prompt was given to the session: activity.
    pub fn prompted_again(&mut self, now: Timestamp) -> Vec<Act> {
        self.not_sent();
        let mut acts = self.activity(now);
        self.guard_again(now);
        acts.push(Act::Changed);
        acts
    }

    /// A message of ours that wakes was accepted by this run's session: the guard begins again.
    pub fn woken(&mut self, now: Timestamp) {
        self.last_sign = now;
        self.guard_again(now);
    }

    /// What depends on this run's session: its open tasks, and whether a message of ours is owed to it. A change is a
    /// sign of life of the tasks below.
    pub fn dependents(&mut self, open: usize, owed: bool, now: Timestamp) -> Vec<Act> {
        if open != self.open_children {
            self.last_sign = now;
        }
        self.open_children = open;
        self.owed = owed;
        self.let_go_if_waiting(now)
    }

    /// An event of the session.
    pub fn event(&mut self, what: &Happening, now: Timestamp) -> Vec<Act> {
        match what {
            Happening::Message(message) => self.message(message, now),
            Happening::Part { message, part } => self.part(message.as_ref(), part, now),
            Happening::Delta { message } if self.is_users(message.as_ref()) => Vec::new(),
            Happening::Delta { .. } | Happening::Work => {
                let acts = self.activity(now);
                self.report(acts, now)
            }
            Happening::Busy => self.busy(now),
            Happening::Retry {
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
            Happening::Idle => self.idle(now),
            Happening::Error { aborted, text } => self.error(*aborted, text),
            Happening::Asked { id, kind, what } => {
                let mut acts = self.sign(now);
                if !self.asking.iter().any(|ask| ask.id == *id) && self.asking.len() < 100 {
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
            Happening::Answered { id } => {
                let before = self.asking.len();
                self.asking.retain(|ask| ask.id != *id);
                if before == self.asking.len() {
                    return Vec::new();
                }
                let mut acts = self.sign(now);
                acts.push(Act::Changed);
                acts
            }
            Happening::Deleted => Vec::new(),
        }
    }

    /// What a poll saw, as of the moment it asked. Stale and silent runs are judged here.
    pub fn observed(
        &mut self,
        sighting: &Sighting,
        asked_at: Timestamp,
        now: Timestamp,
    ) -> Vec<Act> {
        let mut acts = match sighting {
            Sighting::Busy if self.idle_since.is_none_or(|idle| idle <= asked_at) => {
                self.busy(asked_at)
            }
            Sighting::Retry(retrying) if self.idle_since.is_none_or(|idle| idle <= asked_at) => {
                self.retry(retrying.clone(), asked_at)
            }
            Sighting::Idle | Sighting::Absent if !self.is_too_early(asked_at) => {
                self.absent_polls = if *sighting == Sighting::Absent {
                    self.absent_polls + 1
                } else {
                    0
                };
                self.idle_since.get_or_insert(asked_at);
                match sighting {
                    Sighting::Absent if self.absent_polls < 2 => Vec::new(),
                    _ => self.begin_check(false, now),
                }
            }
            _ => Vec::new(),
        };
        if !acts.iter().any(|act| matches!(act, Act::End(_))) {
            acts.extend(self.judge_silence(sighting, now));
        }
        acts
    }

    /// The earliest time at which [`Watch::time`] has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let deferred = self.deferred.then(|| self.guard_ends());
        let asks = self
            .asking
            .iter()
            .map(|ask| ask.since + self.config.lifecycle.ask_timeout);
        deferred
            .into_iter()
            .chain(self.retry_deadline)
            .chain(asks)
            .min()
    }

    /// What is due at `now`.
    pub fn time(&mut self, now: Timestamp) -> Vec<Act> {
        if let Some(deadline) = self.retry_deadline
            && deadline <= now
        {
            let said = self
                .retrying
                .as_ref()
                .map(|retrying| retrying.message.as_str());
            let text = said
                .filter(|text| !text.is_empty())
                .unwrap_or("the provider asks to wait");
            return vec![Act::End(End::error(text).with_note(format!(
                "the provider was retried for {} in vain",
                duration_text(self.config.lifecycle.retry_timeout)
            )))];
        }
        let mut acts = Vec::new();
        let limit = self.config.lifecycle.ask_timeout;
        let (late, open): (Vec<Asking>, Vec<Asking>) = self
            .asking
            .drain(..)
            .partition(|ask| ask.since + limit <= now);
        self.asking = open;
        for ask in late {
            self.note = Some(format!(
                "asked, and rejected after {} without an answer: {}",
                duration_text(limit),
                ask.what
            ));
            acts.extend(self.sign(now));
            acts.push(Act::Reject(ask));
            acts.push(Act::Changed);
        }
        if self.deferred && self.guard_ends() <= now {
            self.deferred = false;
            acts.extend(self.begin_check(false, now));
        }
        acts
    }

    /// The answer to a completion check. One that was overtaken by a sign of life says nothing.
    pub fn checked(&mut self, token: CheckToken, answer: CheckAnswer, now: Timestamp) -> Vec<Act> {
        let Some(check) = self.check.take_if(|check| check.token == token) else {
            return Vec::new();
        };
        if check.signs != self.signs {
            return Vec::new();
        }
        let findings = match answer {
            CheckAnswer::Found(findings) => findings,
            CheckAnswer::Gone => {
                return vec![Act::End(End::error("the session does not exist any more"))];
            }
            CheckAnswer::Failed(why) => return self.check_failed(why),
        };
        self.failed_checks = 0;
        if let Some(failure) = findings.failed {
            return vec![Act::End(failure_end(failure.aborted, &failure.text))];
        }
        if self.waits_for_others() {
            return Vec::new();
        }
        if findings.unfinished || (!findings.answered && self.link_broke) {
            return self.lost_by_server(now);
        }
        if findings.output && findings.open_todos == 0 {
            return vec![Act::End(End::completed())];
        }
        if check.stale {
            return vec![Act::End(self.stale_end(&findings))];
        }
        if !findings.answered
            && !findings.output
            && let (Some(limit), Some(idle)) = (self.config.lifecycle.not_taken_up, self.idle_since)
            && now.since(idle) >= limit
        {
            return vec![Act::End(End::interrupt("the prompt was not taken up"))];
        }
        if !findings.output && self.absent_polls >= 3 {
            return vec![Act::AskWhetherItExists];
        }
        Vec::new()
    }

    /// Whether the session exists; none if the server did not say.
    pub fn existence(&mut self, exists: Option<bool>) -> Vec<Act> {
        match exists {
            Some(false) => vec![Act::End(End::error("the session does not exist any more"))],
            _ => Vec::new(),
        }
    }

    /// The slot was given back or taken again, as the acts asked.
    pub fn holds_slot(&mut self, holds: bool) {
        self.holds_slot = holds;
    }

    fn message(&mut self, message: &Message, now: Timestamp) -> Vec<Act> {
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

    fn part(&mut self, message: Option<&MessageId>, part: &Part, now: Timestamp) -> Vec<Act> {
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

    fn busy(&mut self, seen_at: Timestamp) -> Vec<Act> {
        self.seen_busy = true;
        self.sign(seen_at)
    }

    fn retry(&mut self, mut retrying: Retrying, seen_at: Timestamp) -> Vec<Act> {
        self.seen_busy = true;
        if let (true, Some(known)) = (retrying.message.is_empty(), &self.retrying) {
            retrying.message.clone_from(&known.message);
        }
        let mut acts = self.sign(seen_at);
        self.retry_deadline
            .get_or_insert(seen_at + self.config.lifecycle.retry_timeout);
        // Every poll sees the same wait again: that is no change.
        if self.retrying.as_ref() != Some(&retrying) {
            self.retrying = Some(retrying);
            acts.push(Act::Changed);
        }
        acts
    }

    fn idle(&mut self, now: Timestamp) -> Vec<Act> {
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
        self.begin_check(false, now)
    }

    fn error(&mut self, aborted: bool, text: &str) -> Vec<Act> {
        if aborted && self.resumed && !self.seen_busy {
            // The echo of the abort that ended the run before.
            return Vec::new();
        }
        vec![Act::End(failure_end(aborted, text))]
    }

    /// A sign of life that is work: it moves `lastUpdate` and ends what the server's backing off had begun.
    fn activity(&mut self, now: Timestamp) -> Vec<Act> {
        let mut acts = self.sign(now);
        self.progress.last_update = now;
        self.retry_deadline = None;
        if self.retrying.take().is_some() {
            acts.push(Act::Changed);
        }
        acts
    }

    fn sign(&mut self, seen_at: Timestamp) -> Vec<Act> {
        self.last_sign = self.last_sign.max(seen_at);
        self.signs += 1;
        self.deferred = false;
        self.idle_since = None;
        self.absent_polls = 0;
        if self.holds_slot {
            Vec::new()
        } else {
            vec![Act::TakeSlotAgain]
        }
    }

    fn begin_check(&mut self, stale: bool, now: Timestamp) -> Vec<Act> {
        if self.waits_for_others() {
            return self.let_go_if_waiting(now);
        }
        if let Some(check) = &mut self.check
            && check.signs == self.signs
        {
            check.stale |= stale;
            return Vec::new();
        }
        self.next_token += 1;
        let token = CheckToken(self.next_token);
        self.check = Some(Check {
            token,
            signs: self.signs,
            stale,
        });
        vec![Act::Check(token)]
    }

    fn check_failed(&mut self, why: String) -> Vec<Act> {
        let FailedCheck::Retry { failures } = self.config.lifecycle.failed_check else {
            return Vec::new();
        };
        self.failed_checks += 1;
        if self.failed_checks < failures {
            return Vec::new();
        }
        vec![Act::End(End::completed().with_note(format!(
            "taken as done; its messages could not be read: {why}"
        )))]
    }

    /// The server forgot the run (it was restarted): the session is idle with an answer that was begun and not finished.
    fn lost_by_server(&mut self, now: Timestamp) -> Vec<Act> {
        let settled = self
            .idle_since
            .is_some_and(|idle| now.since(idle) >= self.config.lifecycle.poll_interval);
        if !settled {
            return Vec::new();
        }
        if self.go_ons >= self.config.lifecycle.restart_attempts {
            return vec![Act::End(End::interrupt(
                "the agent server lost the run and did not take it up again",
            ))];
        }
        self.go_ons += 1;
        self.guard_again(now);
        self.prompt_accepted = None;
        vec![Act::GoOn]
    }

    fn judge_silence(&mut self, sighting: &Sighting, now: Timestamp) -> Vec<Act> {
        let lifecycle = &self.config.lifecycle;
        // A prompt that is still under way has its own limits: the call's, and how long the server may be away.
        if self.prompt_accepted.is_none() || !self.asking.is_empty() {
            return Vec::new();
        }
        if matches!(sighting, Sighting::Busy | Sighting::Unknown) {
            if now.since(self.progress.last_update) <= lifecycle.task_ttl {
                return Vec::new();
            }
            let silent = duration_text(lifecycle.task_ttl);
            return vec![Act::End(End::error(format!(
                "no activity for {silent} though the session says it works"
            )))];
        }
        // While a task below it is open, that one is watched itself.
        let silent = matches!(sighting, Sighting::Idle | Sighting::Absent)
            && self.open_children == 0
            && now.since(self.started) >= lifecycle.stale_min_runtime
            && now.since(self.last_sign) > lifecycle.stale_timeout;
        if silent && !self.owed {
            self.begin_check(true, now)
        } else {
            Vec::new()
        }
    }

    fn stale_end(&self, findings: &Findings) -> End {
        let silence = minutes(self.config.lifecycle.stale_timeout);
        if !findings.output {
            return End::cancelled(Some(format!("Stale timeout (no activity for {silence})")));
        }
        let note = match findings.open_todos {
            0 => format!("no activity for {silence}"),
            1 => "1 todo left open".to_owned(),
            todos => format!("{todos} todos left open"),
        };
        End::completed().with_note(note)
    }

    fn let_go_if_waiting(&mut self, _now: Timestamp) -> Vec<Act> {
        let waits = self.open_children > 0 && self.idle_since.is_some() && !self.deferred;
        if waits && self.holds_slot {
            vec![Act::LetGoOfSlot]
        } else {
            Vec::new()
        }
    }

    fn waits_for_others(&self) -> bool {
        self.open_children > 0 || self.owed || self.sends_in_flight > 0
    }

    fn guard_again(&mut self, now: Timestamp) {
        self.guard_from = now;
        self.turn = None;
        self.idle_since = None;
        self.absent_polls = 0;
        self.deferred = false;
        self.signs += 1;
    }

    fn guard_ends(&self) -> Timestamp {
        self.guard_from + self.config.lifecycle.min_idle
    }

    fn is_too_early(&self, asked_at: Timestamp) -> bool {
        asked_at < self.guard_ends()
            || asked_at < self.last_sign
            || self
                .prompt_accepted
                .is_none_or(|accepted| asked_at < accepted)
    }

    fn is_users(&self, message: Option<&MessageId>) -> bool {
        message.is_some_and(|message| self.user_messages.contains(message))
    }

    /// Mere activity is reported at most once a second: streamed text would double every message otherwise.
    fn report(&mut self, mut acts: Vec<Act>, now: Timestamp) -> Vec<Act> {
        if !acts.contains(&Act::Changed) && now.since(self.reported) >= Duration::from_secs(1) {
            acts.push(Act::Changed);
        }
        if acts.contains(&Act::Changed) {
            self.reported = now;
        }
        acts
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

fn minutes(time: Duration) -> String {
    match (time.as_secs() / 60, time.as_secs() % 60) {
        (minutes, 0) if minutes > 0 => format!("{minutes}min"),
        _ => duration_text(time),
    }
}
