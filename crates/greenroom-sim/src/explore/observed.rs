//! The observed state of a scenario: every run, and every session at the server, as seen from outside.
//! Derived from the log alone and read by the promises. Of the system's own records it uses only the
//! published changes, so that an error in them is detected.

mod updates;

use std::collections::{BTreeMap, BTreeSet};

use greenroom::Config;
use greenroom::domain::ids::{ConcurrencyKey, NoticeId, Run, SessionId, TaskId};
use greenroom::domain::task::TaskStatus;

use super::log::{Call, Fact, Request};

/// A position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The index of the entry.
    pub index: usize,
    /// The time, in virtual milliseconds.
    pub at: i64,
}

/// A position after every entry.
pub const OPEN_ENDED: LogPosition = LogPosition {
    index: usize::MAX,
    at: i64::MAX,
};

/// An end of an instance up to this long before an abort explains the abort, in milliseconds.
const END_BEFORE: i64 = 6000;
/// The time after which the receipt of an event is written, however slow the disk is.
const WRITTEN_AFTER: i64 = 1500;
/// The time after which the judgement of an abort is written even if the grace began again and the disk is slow.
const JUDGED_AFTER: i64 = 6000;

/// The request that created a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A launch.
    Launch,
    /// A resume.
    Resume,
    /// A track.
    Track,
}

/// A run, as seen from outside.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is the moment it is called after")]
pub struct RunFacts {
    pub task: TaskId,
    pub run: Run,
    pub origin: Origin,
    pub key: ConcurrencyKey,
    /// True if the run counts against limits.
    pub counts: bool,
    pub parent: Option<SessionId>,
    /// The parent whose batch the run joined when it was accepted.
    pub batch_parent: Option<SessionId>,
    pub session: Option<SessionId>,
    pub accepted: LogPosition,
    /// The run was cut off here, and waits for a server and a slot again.
    pub requeued: Option<LogPosition>,
    /// The first create or prompt of the run.
    pub started: Option<LogPosition>,
    /// A create of the run took effect.
    pub created: bool,
    /// The first prompt of the run took effect.
    pub prompted: Option<LogPosition>,
    pub running: Option<LogPosition>,
    pub ended: Option<(LogPosition, TaskStatus)>,
    pub error: Option<String>,
    pub note: Option<String>,
    /// A cancel without notification of the parent was requested here.
    pub silent_cancel_requested: Option<LogPosition>,
    pub cancel_requested: Option<LogPosition>,
    /// The run got another parent here, while it was open.
    pub reparented: Option<LogPosition>,
    /// The run may have released its slot until here: it had open child tasks, and no sign of life since.
    pub may_be_released_until: Option<LogPosition>,
    /// An actor panicked while the run was open.
    pub actor_panicked: bool,
}

impl RunFacts {
    /// Returns true until the end of the run.
    pub fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    /// Returns the position since which the run waits for the slot of its present attempt.
    pub fn queued(&self) -> LogPosition {
        self.requeued.unwrap_or(self.accepted)
    }

    /// Returns true if the run holds its slot since its track, and none was granted.
    pub fn is_adopted(&self) -> bool {
        self.origin == Origin::Track && self.requeued.is_none()
    }

    /// Returns true from the first call of the attempt, or from the track, until the end of the attempt.
    pub fn occupies(&self) -> bool {
        self.is_open() && self.counts && (self.started.is_some() || self.is_adopted())
    }
}

/// The facts about a session.
#[derive(Debug, Clone, Default)]
#[expect(
    missing_docs,
    reason = "each field is the last moment of the fact in its name"
)]
pub struct SessionFacts {
    pub busy: bool,
    pub since: Option<LogPosition>,
    pub last_output: Option<LogPosition>,
    pub todos: usize,
    pub deleted: Option<LogPosition>,
    /// The session, or an ancestor that it had at that time, was deleted.
    pub orphaned: Option<LogPosition>,
    /// The newest failure, abort, hang, question, prompt not taken up, or lost state: a reason not to
    /// complete.
    pub last_failure: Option<(LogPosition, Fact)>,
    pub user_aborted: Option<LogPosition>,
    /// The abort by the user was reported to the system here.
    pub abort_delivered: Option<LogPosition>,
    /// Every reported abort. A report may be late, and a prompt after it may be unreported.
    pub reported_aborts: Vec<ReportedAbort>,
    /// When the turn began as far as it is reported: the last prompt of its task, or the first busy status.
    pub turn_reported: Option<LogPosition>,
    pub user_prompted: Option<LogPosition>,
    pub abort_lost: bool,
    /// The newest abort by the server itself.
    pub cut_off: Option<LogPosition>,
    /// The newest turn that ended without an answer and without a wish of its user.
    pub turn_lost: Option<LogPosition>,
    /// The newest turn that failed or was aborted. Without its event the turn looks cut off.
    pub turn_failed: Option<LogPosition>,
    pub reverted: bool,
    /// The newest error that was delivered.
    pub error_delivered: Option<LogPosition>,
    /// The task whose run used the session last.
    pub owner: Option<TaskId>,
}

/// A reported abort.
#[derive(Debug, Clone, Copy)]
pub struct ReportedAbort {
    /// When it was reported.
    pub at: LogPosition,
    /// When its turn began, as far as it was reported then.
    pub turn: Option<LogPosition>,
}

impl From<LogPosition> for ReportedAbort {
    fn from(at: LogPosition) -> Self {
        Self { at, turn: None }
    }
}

impl SessionFacts {
    /// Returns true if the newest prompt named an agent that does not exist, and its error was not delivered.
    pub fn has_silent_failure(&self) -> bool {
        let failure = self
            .last_failure
            .filter(|(_, fact)| *fact == Fact::NotConfigured);
        failure.is_some_and(|(at, _)| self.error_delivered < Some(at))
    }
}

/// The observed state.
#[derive(Debug)]
pub struct ObservedState {
    /// The initial configuration.
    pub config: Config,
    /// Every run, in order of acceptance.
    pub runs: Vec<RunFacts>,
    run_indices: BTreeMap<(TaskId, Run), usize>,
    newest: BTreeMap<TaskId, usize>,
    sessions: BTreeMap<SessionId, SessionFacts>,
    aliases: BTreeMap<String, String>,
    /// The new parents of settled tasks that were reparented. Only their records change.
    reassigned: BTreeMap<TaskId, SessionId>,
    /// The last index for each time with an entry.
    last_index_at: BTreeMap<i64, usize>,
    requests: BTreeMap<usize, Request>,
    /// Cancels without an answer. They may affect a run that is not published yet.
    open_cancels: BTreeMap<usize, (LogPosition, Request)>,
    /// The parents that each task had while it was open. Their histories contain the task.
    parents: BTreeMap<TaskId, BTreeSet<SessionId>>,
    calls: BTreeMap<u64, Call>,
    /// A shutdown was requested.
    pub shutdown_requested: Option<LogPosition>,
    /// The shutdown was completed.
    pub shutdown_completed: Option<LogPosition>,
    /// No fault happens from here on.
    pub healed: Option<LogPosition>,
    /// The last time at which a call failed or the event stream was broken.
    pub last_fault: Option<LogPosition>,
    /// True if a session was deleted.
    pub deletions: bool,
    /// The notifications that are stored, and those that the system reports as delivered.
    pub stored_notices: BTreeSet<NoticeId>,
    pub delivered_notices: BTreeSet<NoticeId>,
    /// The moments at which the end of the instance was reported to the system.
    pub instance_ends: Vec<LogPosition>,
    /// The aborts that were reported to the system.
    pub aborts: Vec<LogPosition>,
    /// The losses of the event stream.
    pub stream_losses: Vec<LogPosition>,
    /// The last crash of the process.
    pub process_crashed: Option<LogPosition>,
    /// All crashes of the process.
    pub crashes: Vec<LogPosition>,
    /// The number of calls at the last crash. Their ends show nothing about the server.
    calls_at_crash: u64,
    /// The last end of an instance, loss of the stream, outage or failed call. Crashes do not count.
    pub last_disruption: Option<LogPosition>,
    /// True if a change was published later than it was decided, because the disk is slow.
    pub delayed_publication: bool,
    /// True if a registry or a task's actor panicked.
    pub actor_panicked: bool,
    /// The last panic of the registry.
    pub registry_panicked: Option<LogPosition>,
    /// Unanswered tracks that may give a known task another parent, by the index of their request.
    pub reparenting: BTreeMap<usize, TaskId>,
    /// Tasks named by a track. The system may know such a task before it publishes a change of it.
    tracked: BTreeSet<TaskId>,
    /// The parents named in unanswered requests. A child of theirs may have been accepted and not published,
    /// or be lost in a crash.
    unpublished_parents: BTreeMap<usize, SessionId>,
    /// Unanswered cancels by the index of their request, of one task or of several. They may affect a run
    /// that is accepted meanwhile.
    open_cancel_targets: BTreeMap<usize, Option<TaskId>>,
}

impl ObservedState {
    /// Returns an empty state.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            runs: Vec::new(),
            run_indices: BTreeMap::new(),
            newest: BTreeMap::new(),
            sessions: BTreeMap::new(),
            aliases: BTreeMap::new(),
            reassigned: BTreeMap::new(),
            last_index_at: BTreeMap::new(),
            requests: BTreeMap::new(),
            open_cancels: BTreeMap::new(),
            parents: BTreeMap::new(),
            calls: BTreeMap::new(),
            shutdown_requested: None,
            shutdown_completed: None,
            healed: None,
            last_fault: None,
            deletions: false,
            stored_notices: BTreeSet::new(),
            delivered_notices: BTreeSet::new(),
            instance_ends: Vec::new(),
            aborts: Vec::new(),
            stream_losses: Vec::new(),
            process_crashed: None,
            crashes: Vec::new(),
            calls_at_crash: 0,
            last_disruption: None,
            delayed_publication: false,
            actor_panicked: false,
            registry_panicked: None,
            reparenting: BTreeMap::new(),
            tracked: BTreeSet::new(),
            unpublished_parents: BTreeMap::new(),
            open_cancel_targets: BTreeMap::new(),
        }
    }

    /// Returns the facts of a run.
    pub fn run(&self, task: &TaskId, run: Run) -> Option<&RunFacts> {
        self.run_indices
            .get(&(task.clone(), run))
            .map(|&index| &self.runs[index])
    }

    /// Returns the newest run of a task.
    pub fn newest(&self, task: &TaskId) -> Option<&RunFacts> {
        self.newest.get(task).map(|&index| &self.runs[index])
    }

    /// Returns the newest run of every task.
    pub fn newest_runs(&self) -> impl Iterator<Item = &RunFacts> {
        self.newest.values().map(|&index| &self.runs[index])
    }

    /// Returns every parent that a task had while it was open.
    pub fn parents(&self, task: &TaskId) -> impl Iterator<Item = &SessionId> {
        self.parents.get(task).into_iter().flatten()
    }

    /// Returns every parent that a task had while it was open, once.
    pub fn all_parents(&self) -> BTreeSet<SessionId> {
        self.parents.values().flatten().cloned().collect()
    }

    /// Returns the facts of a session.
    pub fn session(&self, session: &SessionId) -> Option<&SessionFacts> {
        self.sessions.get(session)
    }

    /// Returns true if the session or an ancestor was deleted, as far as runs name the ancestors.
    pub fn is_deleted(&self, session: &SessionId) -> bool {
        let deleted = |ancestor: &SessionId| {
            let known = self.sessions.get(ancestor);
            known.is_some_and(|known| known.deleted.is_some())
        };
        self.lineage(session).into_iter().any(deleted)
    }

    /// Returns the session and its ancestors, as far as runs name the ancestors.
    fn lineage<'a>(&'a self, session: &'a SessionId) -> BTreeSet<&'a SessionId> {
        let mut above = Some(session);
        let mut seen = BTreeSet::new();
        while let Some(current) = above.filter(|current| seen.insert(*current)) {
            let known = self.sessions.get(current);
            let owner = known.and_then(|known| known.owner.as_ref());
            above = owner.and_then(|owner| {
                let reassigned = self.reassigned.get(owner);
                reassigned.or(self.newest(owner)?.parent.as_ref())
            });
        }
        seen
    }

    /// Returns true if the parent of the run, or an ancestor that the parent had then, was deleted after the run was
    /// accepted.
    pub fn is_orphaned(&self, run: &RunFacts) -> bool {
        let parent = run.parent.as_ref();
        let known = parent.and_then(|parent| self.sessions.get(parent));
        known
            .and_then(|known| known.orphaned)
            .is_some_and(|orphaned| orphaned > run.accepted)
    }

    /// Returns true if the registry was down when the shutdown was requested. It is rebuilt half a minute
    /// later and stays open, a known limitation that is not checked.
    pub fn registry_down_at_shutdown(&self) -> bool {
        let dead = self.registry_panicked.zip(self.shutdown_requested);
        dead.is_some_and(|(died, shutdown_requested)| died.at + 31_000 > shutdown_requested.at)
    }

    /// Returns the number of sessions that their users have aborted, or that seem so.
    pub fn user_aborted(&self) -> usize {
        let user_aborted = self
            .sessions
            .values()
            .filter(|known| known.user_aborted.is_some() || self.may_be_taken_for_stopped(known));
        user_aborted.count()
    }

    /// Returns true if the end of the instance, or the loss of its bridge, was reported close enough to an abort at this
    /// time to show that no person was its cause.
    pub fn shows_cut_off(&self, abort: ReportedAbort) -> bool {
        let aborted = abort.at;
        let Some(grace) = self.config.lifecycle.abort_grace else {
            return false;
        };
        let grace = i64::try_from(grace.as_millis()).unwrap_or(0);
        // The grace of a directory begins again at each of its aborts.
        let mut end = aborted.at + grace;
        for next in &self.aborts {
            if (aborted.at..=end).contains(&next.at) {
                end = next.at + grace;
            }
        }
        let is_within = |positions: &[LogPosition], begin: i64| {
            let window = begin..end;
            positions.iter().any(|ended| window.contains(&ended.at))
        };
        // An end before the turn seems to have begun explains nothing.
        let begin = abort.turn.map_or(i64::MIN, |turn| turn.at + 1);
        is_within(&self.instance_ends, begin.max(aborted.at - END_BEFORE))
            || is_within(&self.stream_losses, aborted.at)
    }

    /// Returns true if the end of the instance was reported close enough to an abort at this time, and the judgement of the
    /// abort was written: no crash follows within the grace and the longest commits.
    pub fn surely_shows_cut_off(&self, abort: ReportedAbort) -> bool {
        let aborted = abort.at;
        let forgotten = |crash: &LogPosition| {
            (aborted.at - END_BEFORE..=aborted.at + JUDGED_AFTER).contains(&crash.at)
        };
        self.shows_cut_off(abort) && !self.crashes.iter().any(forgotten)
    }

    /// Returns true if the session was cut off, and the system cannot know that no person was the cause.
    pub fn may_be_taken_for_stopped(&self, known: &SessionFacts) -> bool {
        known.cut_off.is_some_and(|cut_off| {
            // An abort that is received after the loss of the stream is not explained by the loss.
            let mut aborts = known.reported_aborts.iter();
            !self.surely_shows_cut_off(cut_off.into())
                || aborts.any(|abort| !self.surely_shows_cut_off(*abort))
        })
    }

    /// Returns true if the receipt of an event may not have been written before a crash.
    pub fn may_be_unwritten(&self, received: LogPosition) -> bool {
        let window = received.at..=received.at + WRITTEN_AFTER;
        self.crashes.iter().any(|crash| window.contains(&crash.at))
    }

    /// Returns true if an abort by a person, reported here, must be judged so: no end of the instance explains it. A process
    /// that crashed before the judgement leaves it to the next, which probes the server.
    pub fn surely_shows_person(&self, aborted: LogPosition) -> bool {
        let window = aborted.at..=aborted.at + JUDGED_AFTER;
        let is_restored = self.crashes.iter().any(|crash| window.contains(&crash.at));
        let is_disrupted = self
            .last_disruption
            .is_some_and(|last| last.at >= aborted.at - END_BEFORE);
        let is_unsure = self.may_be_unwritten(aborted) || is_restored && is_disrupted;
        !is_unsure && !self.shows_cut_off(aborted.into())
    }

    /// Returns a call by its number.
    pub fn call(&self, number: u64) -> Option<&Call> {
        self.calls.get(&number)
    }

    /// Returns a request by its index in the log.
    pub fn request(&self, index: usize) -> Option<&Request> {
        self.requests.get(&index)
    }

    /// Returns the open runs of a parent.
    pub fn open_children<'a>(
        &'a self,
        session: &'a SessionId,
    ) -> impl Iterator<Item = &'a RunFacts> {
        self.runs
            .iter()
            .filter(move |run| run.is_open() && run.parent.as_ref() == Some(session))
    }

    /// Returns true if a child of that run may have been accepted without being published yet.
    pub fn may_wait_for_unpublished_child(&self, run: &RunFacts) -> bool {
        let mut named = self.unpublished_parents.values();
        named.any(|parent| run.session.as_ref() == Some(parent))
    }

    /// Returns the open runs.
    pub fn open(&self) -> impl Iterator<Item = &RunFacts> {
        self.runs.iter().filter(|run| run.is_open())
    }

    /// Returns a text with every generated id replaced by its alias.
    pub fn with_aliases(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if text.contains("bg_") {
            for (id, alias) in &self.aliases {
                if text.contains(id.as_str()) {
                    text = text.replace(id.as_str(), alias);
                }
            }
        }
        text
    }
}
