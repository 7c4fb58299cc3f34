//! The log of one scenario: requests and answers of the driver, calls and facts of the model of opencode, and
//! every change of a task, in order. Each entry updates the observed state and is checked by every promise at
//! once, so a violation is found at the step that causes it.

mod display;

use std::sync::{Arc, Mutex, MutexGuard};

use greenroom::clock::Clock;
use greenroom::config::Limits;
use greenroom::domain::ids::{NoticeId, Run, SessionId, TaskId};
use greenroom::domain::task::Task;
use greenroom::ports::agent_server::Notice;
use greenroom::{ShutdownReport, TaskChange};
use tokio::sync::broadcast;

use super::observed::ObservedState;
use super::promises::{Promise, Violation};
use crate::lock;

/// An entry of the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The time, in virtual milliseconds.
    pub at: i64,
    /// The event.
    pub event: LogEvent,
}

/// An event.
#[derive(Debug, Clone)]
pub enum LogEvent {
    /// The driver sends a request to the system.
    Requested(Request),
    /// The system has answered; `request` is the index of the request in the log.
    Answered {
        request: usize,
        answer: Result<Option<Box<Task>>, String>,
    },
    /// The shutdown is complete.
    ShutDown(ShutdownReport),
    /// A task has changed.
    TaskChanged(Arc<TaskChange>),
    /// A lookup returned a task whose change may not have been published.
    TaskFound(Box<Task>),
    /// A call arrives at the server, or would arrive if the server were reachable.
    CallStarted { number: u64, call: Call },
    /// A call takes effect.
    CallApplied(u64),
    /// A call is answered.
    CallReturned { number: u64, answer: String },
    /// An event is delivered to the system. `sign` is true for a sign of life.
    EventDelivered {
        session: SessionId,
        kind: String,
        sign: bool,
    },
    /// A notification is stored in the history of its parent.
    NoticeStored {
        parent: SessionId,
        notice: NoticeId,
        wakes: bool,
    },
    /// The system reports a notification as delivered.
    ReportedDelivered { parent: SessionId, notice: NoticeId },
    /// The end of the instance, or the loss of its bridge, is reported to the system.
    InstanceEnded,
    /// The end of another process of the folder was reported to the system.
    SecondProcessEnded,
    /// A fact about a session at the server.
    SessionFact { session: SessionId, fact: Fact },
    /// The event stream is connected or broken, as reported to the system.
    LinkChanged(bool),
    /// The server becomes reachable or unreachable.
    ServerOnline(bool),
    /// No fault happens from here on.
    Healed,
    /// A failpoint makes an actor panic.
    FailpointHit(String),
    /// The process crashes at this place.
    ProcessCrashed(String),
}

/// A request of the driver.
#[derive(Debug, Clone)]
#[expect(
    missing_docs,
    reason = "the fields have the names of the handle's parameters"
)]
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
#[expect(
    missing_docs,
    reason = "the fields have the names of the port's parameters"
)]
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
    DefaultModel,
}

/// A fact about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// The session was created by a call of Greenroom.
    Created,
    /// The session becomes busy.
    Busy,
    /// The session becomes idle.
    Idle,
    /// The session produces output.
    Output,
    /// A message that calls tools is complete.
    StepCompleted,
    /// The newest answer is complete.
    AnswerCompleted,
    /// The number of open todos.
    Todos(usize),
    /// The turn fails.
    Failed,
    /// The session was aborted.
    Aborted,
    /// An abort was answered and lost.
    AbortLost,
    /// The session is busy forever, without a sign of life.
    Hung,
    /// The provider makes the session wait.
    Retrying,
    /// The session waits for an answer to a question.
    AwaitingInput,
    /// A prompt was accepted and never starts a turn.
    NotTakenUp,
    /// The user prompts the session.
    UserPrompted,
    /// The user aborts the session.
    UserAborted,
    /// The session was deleted.
    Deleted,
    /// The server lost the state of the session's turn.
    StateLost,
    /// The server aborted the turn itself, because its instance or process ended.
    CutOff,
    /// The turn could not start, because its agent or model is not configured any more.
    NotConfigured,
    /// The session was reverted.
    Reverted,
    /// The session is not reverted any more.
    Restored,
    /// A prompt has deleted what the revert had hidden.
    RevertedDeleted,
}

/// The log of one scenario. A cheap clone.
#[derive(Debug, Clone)]
pub struct Log(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    entries: Vec<Entry>,
    changes: Option<broadcast::Receiver<Arc<TaskChange>>>,
    /// The number of task changes in the log.
    recorded_changes: usize,
    observed: ObservedState,
    promises: Vec<Box<dyn Promise>>,
    violation: Option<Violation>,
    calls: u64,
}

impl Log {
    /// Returns an empty log that is checked by these promises.
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

    /// Starts to log changes of tasks, each before the entries that follow it.
    pub fn follow_changes(&self, changes: broadcast::Receiver<Arc<TaskChange>>) {
        self.inner().changes = Some(changes);
    }

    /// Logs a crash at this place. Later changes of the crashed process are ignored.
    pub fn record_crash(&self, place: &str) {
        let mut inner = self.inner();
        inner.drain_changes();
        inner.changes = None;
        inner.write(LogEvent::ProcessCrashed(place.to_owned()));
    }

    /// Logs the durable changes that the crashed process had not published.
    pub fn replay_changes(&self, all: impl Iterator<Item = Arc<TaskChange>>) {
        let mut inner = self.inner();
        let known = inner.recorded_changes;
        for change in all.skip(known) {
            inner.write(LogEvent::TaskChanged(change));
        }
    }

    /// Appends an event and returns its index.
    pub fn push(&self, event: LogEvent) -> usize {
        let mut inner = self.inner();
        inner.drain_changes();
        inner.write(event);
        inner.entries.len() - 1
    }

    /// Appends a call and returns its number.
    pub fn call(&self, call: Call) -> u64 {
        let mut inner = self.inner();
        inner.drain_changes();
        inner.calls += 1;
        let number = inner.calls;
        inner.write(LogEvent::CallStarted { number, call });
        number
    }

    /// Appends the changes that were published meanwhile.
    pub fn drain_changes(&self) {
        self.inner().drain_changes();
    }

    /// Returns the first broken promise.
    pub fn violation(&self) -> Option<Violation> {
        self.inner().violation.clone()
    }

    /// Records a violation that is not detected from the log.
    pub fn record_violation(&self, promise: &'static str, text: String) {
        self.inner().record_violation(promise, text);
    }

    /// Reads the observed state.
    pub fn read<T>(&self, look: impl FnOnce(&ObservedState) -> T) -> T {
        let mut inner = self.inner();
        inner.drain_changes();
        look(&inner.observed)
    }

    /// Runs the final check of every promise.
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

    /// Returns every entry as a line.
    pub fn lines(&self) -> Vec<String> {
        let inner = self.inner();
        inner
            .entries
            .iter()
            .map(|entry| inner.observed.with_aliases(&entry.to_string()))
            .collect()
    }

    /// Returns the number of calls, and the last one as a line.
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
