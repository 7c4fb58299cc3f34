//! The ledger of a scenario: every run with what is known of it from outside, and what is true of every session at the
//! server. Kept from the log alone; the promises read it. It knows nothing of the system's own records but the changes it
//! publishes, so that an error in there cannot hide itself.

mod updates;

use std::collections::{BTreeMap, BTreeSet};

use greenroom::Config;
use greenroom::domain::ids::{ConcurrencyKey, Run, SessionId, TaskId};
use greenroom::domain::task::TaskStatus;

use super::log::{Call, Fact, Order};

/// A place in the log and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The place.
    pub place: usize,
    /// The time, in virtual milliseconds.
    pub at: i64,
}

/// No end in sight.
pub const STILL: Mark = Mark {
    place: usize::MAX,
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
    pub joined: Option<SessionId>,
    pub session: Option<SessionId>,
    pub accepted: Mark,
    /// The first create or prompt for it.
    pub started: Option<Mark>,
    /// A create for it has had its effect.
    pub created: bool,
    /// Its first prompt has had its effect.
    pub prompted: Option<Mark>,
    pub running: Option<Mark>,
    pub ended: Option<(Mark, TaskStatus)>,
    pub error: Option<String>,
    pub note: Option<String>,
    /// Somebody asked to cancel it without a word to its parent, from here on.
    pub skip_asked: Option<Mark>,
    pub cancel_asked: Option<Mark>,
    /// It got another parent while it was open, from here on.
    pub moved: Option<Mark>,
    /// It may have let go of its slot until here: it had open tasks of its own, and no sign of life since.
    pub lenient_until: Option<Mark>,
    /// An actor was made to panic while it was open.
    pub sabotaged: bool,
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
    pub since: Option<Mark>,
    pub said: Option<Mark>,
    pub todos: usize,
    pub deleted: Option<Mark>,
    /// The newest of failed, aborted, hanging, asked, not taken up, forgotten: a reason not to complete.
    pub troubled: Option<(Mark, Fact)>,
    pub stopped: Option<Mark>,
    /// The system was handed the event of that stop.
    pub stop_heard: Option<Mark>,
    pub spoken: Option<Mark>,
    pub lost_abort: bool,
    /// The task whose run had it last.
    pub owner: Option<TaskId>,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    /// The configuration it all began with.
    pub config: Config,
    /// Every run, in order of acceptance.
    pub runs: Vec<RunFacts>,
    index: BTreeMap<(TaskId, Run), usize>,
    newest: BTreeMap<TaskId, usize>,
    sessions: BTreeMap<SessionId, SessionFacts>,
    aliases: BTreeMap<String, String>,
    /// The parents that settled tasks were given: of these only the record has changed.
    given: BTreeMap<TaskId, SessionId>,
    /// The last place of every time there was an entry at.
    moments: BTreeMap<i64, usize>,
    orders: BTreeMap<usize, Order>,
    /// Cancels that are not answered: what they meet may be a run that nobody has heard of yet.
    cancels: BTreeMap<usize, (Mark, Order)>,
    /// Whose children each task was while it was open: what their histories keep.
    parents: BTreeMap<TaskId, BTreeSet<SessionId>>,
    calls: BTreeMap<u64, Call>,
    /// Asked to shut down.
    pub closing: Option<Mark>,
    /// Shut down.
    pub closed: Option<Mark>,
    /// Nothing goes wrong from here on.
    pub healed: Option<Mark>,
    /// The last time that calls failed or events did not flow.
    pub trouble: Option<Mark>,
    /// Some session was deleted.
    pub deletions: bool,
    /// The last time the process ended.
    pub crashed: Option<Mark>,
    /// A change was told later than it was decided: the disk is slow.
    pub slow: bool,
    /// Actors were made to panic.
    pub sabotaged: bool,
    /// The registry was made to panic last.
    pub registry_died: Option<Mark>,
    /// Tasks whose change of parent was asked for and not answered.
    pub moving: BTreeSet<TaskId>,
    /// The parents that orders not answered name: what depends on their runs may have been decided, and nobody told yet, or
    /// ever, if the process ended over it.
    depending: BTreeMap<usize, SessionId>,
    /// Cancels that are not answered, by their place in the log, of one task or of several: a run that is accepted
    /// meanwhile may be one of those meant.
    cancelling: BTreeMap<usize, Option<TaskId>>,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            runs: Vec::new(),
            index: BTreeMap::new(),
            newest: BTreeMap::new(),
            sessions: BTreeMap::new(),
            aliases: BTreeMap::new(),
            given: BTreeMap::new(),
            moments: BTreeMap::new(),
            orders: BTreeMap::new(),
            cancels: BTreeMap::new(),
            parents: BTreeMap::new(),
            calls: BTreeMap::new(),
            closing: None,
            closed: None,
            healed: None,
            trouble: None,
            deletions: false,
            crashed: None,
            slow: false,
            sabotaged: false,
            registry_died: None,
            moving: BTreeSet::new(),
            depending: BTreeMap::new(),
            cancelling: BTreeMap::new(),
        }
    }

    /// What is known of a run.
    pub fn run(&self, task: &TaskId, run: Run) -> Option<&RunFacts> {
        self.index
            .get(&(task.clone(), run))
            .map(|&place| &self.runs[place])
    }

    /// The newest run of a task.
    pub fn newest(&self, task: &TaskId) -> Option<&RunFacts> {
        self.newest.get(task).map(|&place| &self.runs[place])
    }

    /// The newest run of every task.
    pub fn newest_runs(&self) -> impl Iterator<Item = &RunFacts> {
        self.newest.values().map(|&place| &self.runs[place])
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
    pub fn is_gone(&self, session: &SessionId) -> bool {
        let mut above = Some(session);
        let mut seen = BTreeSet::new();
        while let Some(current) = above.filter(|current| seen.insert((*current).clone())) {
            let known = self.sessions.get(current);
            if known.is_some_and(|known| known.deleted.is_some()) {
                return true;
            }
            let owner = known.and_then(|known| known.owner.as_ref());
            above = owner.and_then(|owner| {
                let given = self.given.get(owner);
                given.or(self.newest(owner)?.parent.as_ref())
            });
        }
        false
    }

    /// A registry that is dead when it is told to close comes back half a minute later, and open: known, and not looked for.
    pub fn died_before_closing(&self) -> bool {
        let dead = self.registry_died.zip(self.closing);
        dead.is_some_and(|(died, closing)| died.at + 31_000 > closing.at)
    }

    /// How many sessions their users have stopped.
    pub fn stopped(&self) -> usize {
        let stopped = self
            .sessions
            .values()
            .filter(|known| known.stopped.is_some());
        stopped.count()
    }

    /// A call by its number.
    pub fn call(&self, number: u64) -> Option<&Call> {
        self.calls.get(&number)
    }

    /// An order by its place in the log.
    pub fn order(&self, place: usize) -> Option<&Order> {
        self.orders.get(&place)
    }

    /// Open runs whose parent is that session.
    pub fn open_below<'a>(&'a self, session: &'a SessionId) -> impl Iterator<Item = &'a RunFacts> {
        self.runs
            .iter()
            .filter(move |run| run.is_open() && run.parent.as_ref() == Some(session))
    }

    /// True if a task below that run may have been accepted, and nobody was told of it yet.
    pub fn may_wait_unseen(&self, run: &RunFacts) -> bool {
        let mut named = self.depending.values();
        named.any(|parent| run.session.as_ref() == Some(parent))
    }

    /// Runs that are open.
    pub fn open(&self) -> impl Iterator<Item = &RunFacts> {
        self.runs.iter().filter(|run| run.is_open())
    }

    /// A text with every generated id replaced by its alias.
    pub fn readable(&self, text: &str) -> String {
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
