//! The ledger of a scenario: every run with what is known of it from outside, and what is true of every session at the
//! server. Kept from the log alone; the promises read it. It knows nothing of the system's own records but the changes it
//! publishes, so that an error in there cannot hide itself.

mod updates;

use std::collections::{BTreeMap, BTreeSet};

use greenroom::Config;
use greenroom::domain::ids::{ConcurrencyKey, Run, SessionId, TaskId};
use greenroom::domain::task::TaskStatus;

use super::log::{Call, Fact, Request};

/// A place in the log and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The place.
    pub index: usize,
    /// The time, in virtual milliseconds.
    pub at: i64,
}

/// No end in sight.
pub const OPEN_ENDED: LogPosition = LogPosition {
    index: usize::MAX,
    at: i64::MAX,
};

/// How a run came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Launched.
    Launch,
    /// Resumed.
    Resume,
    /// Tracked.
    Track,
}

/// One run, seen from outside.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is the moment it is called after")]
pub struct RunFacts {
    pub task: TaskId,
    pub run: Run,
    pub origin: Origin,
    pub key: ConcurrencyKey,
    /// True if it counts against limits.
    pub counts: bool,
    pub parent: Option<SessionId>,
    /// Whose batch it joined when it was accepted.
    pub batch_parent: Option<SessionId>,
    pub session: Option<SessionId>,
    pub accepted: LogPosition,
    /// The first create or prompt for it.
    pub started: Option<LogPosition>,
    /// A create for it has had its effect.
    pub created: bool,
    /// Its first prompt has had its effect.
    pub prompted: Option<LogPosition>,
    pub running: Option<LogPosition>,
    pub ended: Option<(LogPosition, TaskStatus)>,
    pub error: Option<String>,
    pub note: Option<String>,
    /// Somebody asked to cancel it without a word to its parent, from here on.
    pub silent_cancel_requested: Option<LogPosition>,
    pub cancel_requested: Option<LogPosition>,
    /// It got another parent while it was open, from here on.
    pub reparented: Option<LogPosition>,
    /// It may have let go of its slot until here: it had open tasks of its own, and no sign of life since.
    pub may_be_released_until: Option<LogPosition>,
    /// An actor was made to panic while it was open.
    pub actor_panicked: bool,
}

impl RunFacts {
    /// True until its end.
    pub fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    /// True from its first call until its end, and from a track until its end.
    pub fn occupies(&self) -> bool {
        self.is_open() && self.counts && (self.started.is_some() || self.origin == Origin::Track)
    }
}

/// What is true of a session.
#[derive(Debug, Clone, Default)]
#[expect(
    missing_docs,
    reason = "each field is the last moment of what it is called after"
)]
pub struct SessionFacts {
    pub busy: bool,
    pub since: Option<LogPosition>,
    pub last_output: Option<LogPosition>,
    pub todos: usize,
    pub deleted: Option<LogPosition>,
    /// The newest of failed, aborted, hanging, asked, not taken up, forgotten: a reason not to complete.
    pub last_failure: Option<(LogPosition, Fact)>,
    pub user_aborted: Option<LogPosition>,
    /// The system was handed the event of that stop.
    pub abort_delivered: Option<LogPosition>,
    pub user_prompted: Option<LogPosition>,
    pub abort_lost: bool,
    /// The task whose run had it last.
    pub owner: Option<TaskId>,
}

/// The ledger.
#[derive(Debug)]
pub struct ObservedState {
    /// The configuration it all began with.
    pub config: Config,
    /// Every run, in order of acceptance.
    pub runs: Vec<RunFacts>,
    run_indices: BTreeMap<(TaskId, Run), usize>,
    newest: BTreeMap<TaskId, usize>,
    sessions: BTreeMap<SessionId, SessionFacts>,
    aliases: BTreeMap<String, String>,
    /// The parents that settled tasks were given: of these only the record has changed.
    reassigned: BTreeMap<TaskId, SessionId>,
    /// The last place of every time there was an entry at.
    last_index_at: BTreeMap<i64, usize>,
    requests: BTreeMap<usize, Request>,
    /// Cancels that are not answered: what they meet may be a run that nobody has heard of yet.
    open_cancels: BTreeMap<usize, (LogPosition, Request)>,
    /// Whose children each task was while it was open: what their histories keep.
    parents: BTreeMap<TaskId, BTreeSet<SessionId>>,
    calls: BTreeMap<u64, Call>,
    /// Asked to shut down.
    pub shutdown_requested: Option<LogPosition>,
    /// Shut down.
    pub shutdown_completed: Option<LogPosition>,
    /// Nothing goes wrong from here on.
    pub healed: Option<LogPosition>,
    /// The last time that calls failed or events did not flow.
    pub last_fault: Option<LogPosition>,
    /// Some session was deleted.
    pub deletions: bool,
    /// The last time the process ended.
    pub process_crashed: Option<LogPosition>,
    /// A change was told later than it was decided: the disk is slow.
    pub delayed_publication: bool,
    /// Actors were made to panic.
    pub actor_panicked: bool,
    /// The registry was made to panic last.
    pub registry_panicked: Option<LogPosition>,
    /// Tasks whose change of parent was asked for and not answered.
    pub reparenting: BTreeSet<TaskId>,
    /// The parents that orders not answered name: what depends on their runs may have been decided, and nobody told yet, or
    /// ever, if the process ended over it.
    unpublished_parents: BTreeMap<usize, SessionId>,
    /// Cancels that are not answered, by their place in the log, of one task or of several: a run that is accepted
    /// meanwhile may be one of those meant.
    open_cancel_targets: BTreeMap<usize, Option<TaskId>>,
}

impl ObservedState {
    /// An empty ledger.
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
            process_crashed: None,
            delayed_publication: false,
            actor_panicked: false,
            registry_panicked: None,
            reparenting: BTreeSet::new(),
            unpublished_parents: BTreeMap::new(),
            open_cancel_targets: BTreeMap::new(),
        }
    }

    /// What is known of a run.
    pub fn run(&self, task: &TaskId, run: Run) -> Option<&RunFacts> {
        self.run_indices
            .get(&(task.clone(), run))
            .map(|&index| &self.runs[index])
    }

    /// The newest run of a task.
    pub fn newest(&self, task: &TaskId) -> Option<&RunFacts> {
        self.newest.get(task).map(|&index| &self.runs[index])
    }

    /// The newest run of every task.
    pub fn newest_runs(&self) -> impl Iterator<Item = &RunFacts> {
        self.newest.values().map(|&index| &self.runs[index])
    }

    /// Every parent a task had while it was open.
    pub fn parents(&self, task: &TaskId) -> impl Iterator<Item = &SessionId> {
        self.parents.get(task).into_iter().flatten()
    }

    /// What is true of a session.
    pub fn session(&self, session: &SessionId) -> Option<&SessionFacts> {
        self.sessions.get(session)
    }

    /// True if that session or one above it was deleted, as far as runs say who is above.
    pub fn is_deleted(&self, session: &SessionId) -> bool {
        let mut above = Some(session);
        let mut seen = BTreeSet::new();
        while let Some(current) = above.filter(|current| seen.insert((*current).clone())) {
            let known = self.sessions.get(current);
            if known.is_some_and(|known| known.deleted.is_some()) {
                return true;
            }
            let owner = known.and_then(|known| known.owner.as_ref());
            above = owner.and_then(|owner| {
                let reassigned = self.reassigned.get(owner);
                reassigned.or(self.newest(owner)?.parent.as_ref())
            });
        }
        false
    }

    /// A registry that is dead when it is told to close comes back half a minute later, and open: known, and not looked for.
    pub fn registry_down_at_shutdown(&self) -> bool {
        let dead = self.registry_panicked.zip(self.shutdown_requested);
        dead.is_some_and(|(died, shutdown_requested)| died.at + 31_000 > shutdown_requested.at)
    }

    /// How many sessions their users have stopped.
    pub fn user_aborted(&self) -> usize {
        let user_aborted = self
            .sessions
            .values()
            .filter(|known| known.user_aborted.is_some());
        user_aborted.count()
    }

    /// A call by its number.
    pub fn call(&self, number: u64) -> Option<&Call> {
        self.calls.get(&number)
    }

    /// An order by its place in the log.
    pub fn request(&self, index: usize) -> Option<&Request> {
        self.requests.get(&index)
    }

    /// Open runs whose parent is that session.
    pub fn open_children<'a>(
        &'a self,
        session: &'a SessionId,
    ) -> impl Iterator<Item = &'a RunFacts> {
        self.runs
            .iter()
            .filter(move |run| run.is_open() && run.parent.as_ref() == Some(session))
    }

    /// True if a task below that run may have been accepted, and nobody was told of it yet.
    pub fn may_wait_for_unpublished_child(&self, run: &RunFacts) -> bool {
        let mut named = self.unpublished_parents.values();
        named.any(|parent| run.session.as_ref() == Some(parent))
    }

    /// Runs that are open.
    pub fn open(&self) -> impl Iterator<Item = &RunFacts> {
        self.runs.iter().filter(|run| run.is_open())
    }

    /// A text with every generated id replaced by its alias.
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
