//! What happened in one scenario, in order: what the driver asked and was told, what reached the model of opencode and what
//! that did, and every change of a task. Whoever has something to say writes it here; each entry is shown to the ledger
//! and to every promise at once, so that a violation is found at the step that makes it.

mod display;

use std::sync::{Arc, Mutex, MutexGuard};

use greenroom::clock::Clock;
use greenroom::config::Limits;
use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::task::Task;
use greenroom::ports::agent_server::Notice;
use greenroom::{ShutdownReport, TaskChange};
use tokio::sync::broadcast;

use super::observed::ObservedState;
use super::promises::{Promise, Violation};
use crate::lock;

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When, in virtual milliseconds.
    pub at: i64,
    /// What.
    pub event: LogEvent,
}

/// What can happen.
#[derive(Debug, Clone)]
pub enum LogEvent {
    /// The driver asks the system for something.
    Requested(Request),
    /// The system has answered; `asked` is the place of the question in the log.
    Answered {
        request: usize,
        answer: Result<Option<Box<Task>>, String>,
    },
    /// The shutdown is done.
    ShutDown(ShutdownReport),
    /// A task has changed.
    TaskChanged(Arc<TaskChange>),
    /// A reader was told of a task, of which a change was published to nobody.
    TaskFound(Box<Task>),
    /// A call arrives at the server, or would if it could be reached.
    CallStarted { number: u64, call: Call },
    /// A call has its effect.
    CallApplied(u64),
    /// A call is answered.
    CallReturned { number: u64, answer: String },
    /// An event is handed to the system. `sign` if it is a sign of life.
    EventDelivered {
        session: SessionId,
        kind: String,
        sign: bool,
    },
    /// What is true of a session at the server.
    SessionFact { session: SessionId, fact: Fact },
    /// Whether events flow, as the system is told.
    LinkChanged(bool),
    /// Whether the server can be reached.
    ServerOnline(bool),
    /// From now on nothing goes wrong any more.
    Healed,
    /// An actor of ours is made to panic.
    FailpointHit(String),
    /// The process ends there.
    ProcessCrashed(String),
}

/// What the driver asks for.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are those of the handle's calls")]
pub enum Request {
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
    Created,
    /// It begins to work.
    Busy,
    /// It has nothing more to do.
    Idle,
    /// It says or does something that is output.
    Output,
    /// Its newest answer is whole.
    AnswerCompleted,
    /// So many todos are open.
    Todos(usize),
    /// Its run fails.
    Failed,
    /// It was aborted.
    Aborted,
    /// An abort of it was answered and lost.
    AbortLost,
    /// It works without a sign of life, and will not stop by itself.
    Hung,
    /// The provider makes it wait.
    Retrying,
    /// It waits for an answer.
    AwaitingInput,
    /// A prompt was accepted and nothing comes of it.
    NotTakenUp,
    /// Its user speaks.
    UserPrompted,
    /// Its user stops it.
    UserAborted,
    /// It is no more.
    Deleted,
    /// The server has forgotten what it did.
    StateLost,
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
    recorded_changes: usize,
    observed: ObservedState,
    promises: Vec<Box<dyn Promise>>,
    violation: Option<Violation>,
    calls: u64,
}

impl Log {
    /// An empty log that is judged by these promises.
    pub fn new(clock: Clock, observed: ObservedState, promises: Vec<Box<dyn Promise>>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            clock,
            entries: Vec::new(),
            changes: None,
            recorded_changes: 0,
            observed,
            promises,
            violation: None,
            calls: 0,
        })))
    }

    /// From now on changes of tasks are written down, each before whatever follows it.
    pub fn follow_changes(&self, changes: broadcast::Receiver<Arc<TaskChange>>) {
        self.inner().changes = Some(changes);
    }

    /// The process has ended at that place: nothing it still says is heard.
    pub fn record_crash(&self, place: &str) {
        let mut inner = self.inner();
        inner.drain_changes();
        inner.changes = None;
        inner.write(LogEvent::ProcessCrashed(place.to_owned()));
    }

    /// Every change that was ever durable: those that nobody was told of before the crash are written down now.
    pub fn replay_changes(&self, all: impl Iterator<Item = Arc<TaskChange>>) {
        let mut inner = self.inner();
        let known = inner.recorded_changes;
        for change in all.skip(known) {
            inner.write(LogEvent::TaskChanged(change));
        }
    }

    /// Writes something down and gives its place.
    pub fn push(&self, event: LogEvent) -> usize {
        let mut inner = self.inner();
        inner.drain_changes();
        inner.write(event);
        inner.entries.len() - 1
    }

    /// Writes a call down and gives its number.
    pub fn call(&self, call: Call) -> u64 {
        let mut inner = self.inner();
        inner.drain_changes();
        inner.calls += 1;
        let number = inner.calls;
        inner.write(LogEvent::CallStarted { number, call });
        number
    }

    /// Writes down what has changed meanwhile.
    pub fn drain_changes(&self) {
        self.inner().drain_changes();
    }

    /// The first promise that was broken.
    pub fn violation(&self) -> Option<Violation> {
        self.inner().violation.clone()
    }

    /// Something is wrong that no promise sees in the log.
    pub fn record_violation(&self, promise: &'static str, text: String) {
        self.inner().record_violation(promise, text);
    }

    /// What the ledger says.
    pub fn read<T>(&self, look: impl FnOnce(&ObservedState) -> T) -> T {
        let mut inner = self.inner();
        inner.drain_changes();
        look(&inner.observed)
    }

    /// Every promise looks at the end.
    pub fn check_end(&self) {
        let mut inner = self.inner();
        inner.drain_changes();
        let Inner {
            promises, observed, ..
        } = &mut *inner;
        let broken = promises
            .iter_mut()
            .find_map(|promise| Some((promise.name(), promise.check_end(observed)?)));
        if let Some((promise, text)) = broken {
            inner.record_violation(promise, text);
        }
    }

    /// Everything that happened, a line each.
    pub fn lines(&self) -> Vec<String> {
        let inner = self.inner();
        inner
            .entries
            .iter()
            .map(|entry| inner.observed.with_aliases(&entry.to_string()))
            .collect()
    }

    /// How many calls there were, and what the last was.
    pub fn calls(&self) -> (u64, String) {
        let inner = self.inner();
        let last = inner
            .entries
            .iter()
            .rev()
            .find(|entry| matches!(entry.event, LogEvent::CallStarted { .. }));
        (inner.calls, last.map(Entry::to_string).unwrap_or_default())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }
}

impl Inner {
    fn drain_changes(&mut self) {
        loop {
            let Some(changes) = &mut self.changes else {
                return;
            };
            match changes.try_recv() {
                Ok(change) => self.write(LogEvent::TaskChanged(change)),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {
                    self.record_violation(
                        "the explorer",
                        "changes were published faster than they were read".to_owned(),
                    );
                }
                Err(_) => return,
            }
        }
    }

    fn write(&mut self, event: LogEvent) {
        let entry = Entry {
            at: self.clock.now().as_millis(),
            event,
        };
        let index = self.entries.len();
        if matches!(entry.event, LogEvent::TaskChanged(_)) {
            self.recorded_changes += 1;
        }
        self.observed.apply(index, &entry);
        if self.violation.is_none() {
            let Self {
                promises, observed, ..
            } = self;
            let broken = promises.iter_mut().find_map(|promise| {
                Some((
                    promise.name(),
                    promise.check_entry(index, &entry, observed)?,
                ))
            });
            if let Some((promise, text)) = broken {
                self.record_violation(promise, text);
            }
        }
        self.entries.push(entry);
    }

    fn record_violation(&mut self, promise: &'static str, text: String) {
        if self.violation.is_none() {
            let text = self.observed.with_aliases(&text);
            self.violation = Some(Violation {
                promise,
                text,
                at: self.clock.now().as_millis(),
            });
        }
    }
}
