//! What happened in one scenario, in order: what the driver asked and was told, what reached the model of opencode and what
//! that did, and every change of a task. Whoever has something to say writes it here; each entry is shown to the ledger
//! and to every promise at once, so that a violation is found at the step that makes it.

mod display;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use greenroom::clock::Clock;
use greenroom::config::Limits;
use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::task::Task;
use greenroom::ports::agent_server::Notice;
use greenroom::{ShutdownReport, TaskChange};
use tokio::sync::broadcast;

use super::observed::Ledger;
use super::promises::{Promise, Violation};

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When, in virtual milliseconds.
    pub at: i64,
    /// What.
    pub what: What,
}

/// What can happen.
#[derive(Debug, Clone)]
pub enum What {
    /// The driver asks the system for something.
    Asked(Order),
    /// The system has answered; `asked` is the place of the question in the log.
    Told {
        asked: usize,
        answer: Result<Option<Box<Task>>, String>,
    },
    /// The shutdown is done.
    Closed(ShutdownReport),
    /// A task has changed.
    Changed(Arc<TaskChange>),
    /// A reader was told of a task, of which a change was published to nobody.
    Found(Box<Task>),
    /// A call arrives at the server, or would if it could be reached.
    Call { number: u64, call: Call },
    /// A call has its effect.
    Effect(u64),
    /// A call is answered.
    Returned { number: u64, answer: String },
    /// An event is handed to the system. `sign` if it is a sign of life.
    Event {
        session: SessionId,
        kind: String,
        sign: bool,
    },
    /// What is true of a session at the server.
    Truth { session: SessionId, fact: Fact },
    /// Whether events flow, as the system is told.
    Link(bool),
    /// Whether the server can be reached.
    Online(bool),
    /// From now on nothing goes wrong any more.
    Healed,
    /// An actor of ours is made to panic.
    Sabotaged(String),
    /// The process ends there.
    Crashed(String),
}

/// What the driver asks for.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are those of the handle's calls")]
pub enum Order {
    Launch {
        alias: String,
        parent: Option<SessionId>,
    },
    Cancel {
        task: TaskId,
        skip: bool,
        abort: bool,
        only_pending: bool,
    },
    CancelAll {
        below: Option<SessionId>,
    },
    Resume {
        session: SessionId,
        parent: Option<SessionId>,
    },
    Send {
        task: TaskId,
    },
    Track {
        task: TaskId,
        session: SessionId,
        parent: SessionId,
    },
    SetLimits(Box<Limits>),
    Shutdown,
}

/// A call of the agent server.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are those of the port")]
pub enum Call {
    Create {
        task: TaskId,
        run: Run,
        parent: Option<SessionId>,
    },
    Prompt {
        session: SessionId,
        task: TaskId,
        run: Run,
        prompt: u64,
    },
    Notify {
        parent: SessionId,
        notice: Box<Notice>,
    },
    Abort(SessionId),
    Get(SessionId),
    Messages(SessionId),
    Todos(SessionId),
    Below(Option<SessionId>),
    Reject(SessionId),
    Statuses,
    Health,
}

/// What can be true of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// It is there: a call of ours has made it.
    Made,
    /// It begins to work.
    Busy,
    /// It has nothing more to do.
    Idle,
    /// It says or does something that is output.
    Said,
    /// Its newest answer is whole.
    Answered,
    /// So many todos are open.
    Todos(usize),
    /// Its run fails.
    Failed,
    /// It was aborted.
    Aborted,
    /// An abort of it was answered and lost.
    AbortLost,
    /// It works without a sign of life, and will not stop by itself.
    Hangs,
    /// The provider makes it wait.
    Retries,
    /// It waits for an answer.
    Asks,
    /// A prompt was accepted and nothing comes of it.
    NotTakenUp,
    /// Its user speaks.
    Spoken,
    /// Its user stops it.
    Stopped,
    /// It is no more.
    Deleted,
    /// The server has forgotten what it did.
    Forgotten,
}

/// The log of one scenario. A cheap clone.
#[derive(Debug, Clone)]
pub struct Log(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    entries: Vec<Entry>,
    changes: Option<broadcast::Receiver<Arc<TaskChange>>>,
    /// How many changes are written down.
    changed: usize,
    ledger: Ledger,
    promises: Vec<Box<dyn Promise>>,
    violation: Option<Violation>,
    calls: u64,
}

impl Log {
    /// An empty log that is judged by these promises.
    pub fn new(clock: Clock, ledger: Ledger, promises: Vec<Box<dyn Promise>>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            clock,
            entries: Vec::new(),
            changes: None,
            changed: 0,
            ledger,
            promises,
            violation: None,
            calls: 0,
        })))
    }

    /// From now on changes of tasks are written down, each before whatever follows it.
    pub fn listen(&self, changes: broadcast::Receiver<Arc<TaskChange>>) {
        self.inner().changes = Some(changes);
    }

    /// The process has ended at that place: nothing it still says is heard.
    pub fn crashed(&self, place: &str) {
        let mut inner = self.inner();
        inner.catch_up();
        inner.changes = None;
        inner.write(What::Crashed(place.to_owned()));
    }

    /// Every change that was ever durable: those that nobody was told of before the crash are written down now.
    pub fn go_on_with(&self, all: impl Iterator<Item = Arc<TaskChange>>) {
        let mut inner = self.inner();
        let known = inner.changed;
        for change in all.skip(known) {
            inner.write(What::Changed(change));
        }
    }

    /// Writes something down and gives its place.
    pub fn push(&self, what: What) -> usize {
        let mut inner = self.inner();
        inner.catch_up();
        inner.write(what);
        inner.entries.len() - 1
    }

    /// Writes a call down and gives its number.
    pub fn call(&self, call: Call) -> u64 {
        let mut inner = self.inner();
        inner.catch_up();
        inner.calls += 1;
        let number = inner.calls;
        inner.write(What::Call { number, call });
        number
    }

    /// Writes down what has changed meanwhile.
    pub fn catch_up(&self) {
        self.inner().catch_up();
    }

    /// The first promise that was broken.
    pub fn violation(&self) -> Option<Violation> {
        self.inner().violation.clone()
    }

    /// Something is wrong that no promise sees in the log.
    pub fn violate(&self, promise: &'static str, text: String) {
        self.inner().violate(promise, text);
    }

    /// What the ledger says.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        let mut inner = self.inner();
        inner.catch_up();
        look(&inner.ledger)
    }

    /// Every promise looks at the end.
    pub fn judge_end(&self) {
        let mut inner = self.inner();
        inner.catch_up();
        let Inner {
            promises, ledger, ..
        } = &mut *inner;
        let broken = promises
            .iter_mut()
            .find_map(|promise| Some((promise.name(), promise.at_end(ledger)?)));
        if let Some((promise, text)) = broken {
            inner.violate(promise, text);
        }
    }

    /// Everything that happened, a line each.
    pub fn lines(&self) -> Vec<String> {
        let inner = self.inner();
        inner
            .entries
            .iter()
            .map(|entry| inner.ledger.readable(&entry.to_string()))
            .collect()
    }

    /// How many calls there were, and what the last was.
    pub fn calls(&self) -> (u64, String) {
        let inner = self.inner();
        let last = inner
            .entries
            .iter()
            .rev()
            .find(|entry| matches!(entry.what, What::Call { .. }));
        (inner.calls, last.map(Entry::to_string).unwrap_or_default())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn catch_up(&mut self) {
        loop {
            let Some(changes) = &mut self.changes else {
                return;
            };
            match changes.try_recv() {
                Ok(change) => self.write(What::Changed(change)),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {
                    self.violate(
                        "the explorer",
                        "changes came faster than they were read".to_owned(),
                    );
                }
                Err(_) => return,
            }
        }
    }

    fn write(&mut self, what: What) {
        let entry = Entry {
            at: self.clock.now().as_millis(),
            what,
        };
        let place = self.entries.len();
        if matches!(entry.what, What::Changed(_)) {
            self.changed += 1;
        }
        self.ledger.see(place, &entry);
        if self.violation.is_none() {
            let Self {
                promises, ledger, ..
            } = self;
            let broken = promises
                .iter_mut()
                .find_map(|promise| Some((promise.name(), promise.see(place, &entry, ledger)?)));
            if let Some((promise, text)) = broken {
                self.violate(promise, text);
            }
        }
        self.entries.push(entry);
    }

    fn violate(&mut self, promise: &'static str, text: String) {
        if self.violation.is_none() {
            let text = self.ledger.readable(&text);
            self.violation = Some(Violation {
                promise,
                text,
                at: self.clock.now().as_millis(),
            });
        }
    }
}
