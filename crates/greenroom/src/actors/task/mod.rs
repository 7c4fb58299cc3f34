//! TaskActor: owns one run from its granted slot to its end. It creates the session, sends the prompt, watches the session,
//! and reports to the registry. Decisions about a running session are in `domain/watch`; this actor is the mailbox, timers
//! and calls around them. Every message from and to the actor names the run. No prompt is sent once the end is decided.
//!
//! Its modules: `starting` (session and prompt, with `lineage`), `watching` (with `polling`), `end` (with `abort`).

pub(crate) mod abort;
mod end;
pub(crate) mod lineage;
mod messages;
mod polling;
mod starting;
mod watching;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::{Actor, AsyncContext, Context, SpawnHandle};

use self::lineage::SearchScope;
use self::messages::DeadlineReached;
pub(crate) use self::messages::{
    AbortHeld, AbortJudged, CutOffAccepted, Dependents, Detach, EndAccepted, EndRefused, EndRun,
    EventLinkLost, RecordChanged, RegistryRestarted, SendFailure, SendPrompt, SessionEventReceived,
    SlotManagerRestarted, StartMode, StartRecorded, StatusPolled, WakeSent,
};
use super::actor_ref::ActorRef;
use super::env::Env;
use super::poller::Poller;
use super::registry::{RunSnapshot, TaskRegistry};
use super::runtime_state::AbortTicket;
use super::slot_manager::{SlotManager, SlotPermit};
use crate::domain::ids::{ConcurrencyKey, Run, SessionId};
use crate::domain::lifecycle::End;
use crate::domain::task::Task;
use crate::domain::time::Timestamp;
use crate::domain::watch::{PollSubscription, Watch};

/// The steps of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StartStep {
    Lineage,
    Create,
    LookForCreate,
    Prompt,
    LookForPrompt,
}

/// The prompt that continues a turn which was cut off.
const CONTINUE_PROMPT: &str =
    "The agent server was restarted and your last turn was cut off. Go on where you stopped.";

/// The number of the first prompt of an attempt.
const FIRST_PROMPT: u32 = 1;

enum Phase {
    /// There is no session yet.
    Starting,
    /// The session exists; the registry has not recorded the start yet.
    Started,
    /// The session is watched.
    Watching(Box<Watch>),
    /// The run was cut off; the registry has not recorded it yet. Another end can still be decided.
    CutOff(Box<Watch>, CutOffDecided),
    /// The end is decided; the registry has not recorded it yet.
    EndPending(End, Option<Box<Watch>>),
    /// The end is recorded.
    Ended,
}

/// A cut-off as reported to the registry.
#[derive(Clone)]
struct CutOffDecided {
    snapshot: RunSnapshot,
    answered: bool,
}

/// The end of a run as reported to the registry. Kept until it is recorded, since a report can be lost.
#[derive(Clone)]
struct DecidedEnd {
    end: End,
    snapshot: RunSnapshot,
    at: Timestamp,
}

/// The actors that a task actor sends messages to.
pub(crate) struct TaskActorRefs {
    pub(crate) registry: ActorRef<TaskRegistry>,
    pub(crate) slots: ActorRef<SlotManager>,
    pub(crate) poller: ActorRef<Poller>,
}

pub(crate) struct TaskActor {
    env: Env,
    registry: ActorRef<TaskRegistry>,
    slots: ActorRef<SlotManager>,
    poller: ActorRef<Poller>,
    task: Arc<Task>,
    /// The depth below the session at the top, and that session.
    depth: u32,
    root: Option<SessionId>,
    run: Run,
    attempt: u32,
    start_mode: StartMode,
    slot_key: Option<ConcurrencyKey>,
    permit: Option<SlotPermit>,
    phase: Phase,
    session: Option<SessionId>,
    started_at: Timestamp,
    directory: Option<Arc<str>>,
    /// Set to false once the end is decided. Read by calls that wait for the journal: they are not made then.
    calls_allowed: Arc<AtomicBool>,
    /// The scopes in which this actor has created its session, one for each parent that the task had.
    create_scopes: Vec<SearchScope>,
    /// True while a create is not answered, also long after its time limit: its session is aborted then.
    create_in_flight: bool,
    /// The ticket for the abort of that session; dropped once the abort is done.
    late_abort: Option<AbortTicket>,
    /// The number of prompts that are not answered.
    prompts_in_flight: usize,
    /// A ticket that is held until the prompts in flight at the end of the run are answered.
    late_prompt: Option<Arc<AbortTicket>>,
    /// The abort that follows the end of the run.
    aborting: Option<Box<abort::SessionToAbort>>,
    /// True if the system shuts down and the session goes on.
    detached: bool,
    decided_end: Option<Box<DecidedEnd>>,
    /// Requests to end the run that arrived while an end was pending. Bounded by the waiting callers.
    end_requests: Vec<EndRun>,
    dependents: Dependents,
    /// True while the models are read for the error text of the decided end.
    explaining: bool,
    /// The number and text of the prompt whose acceptance is awaited.
    prompting: Option<(u32, Arc<str>)>,
    prompts: u32,
    tries: u32,
    unreachable_since: Option<Timestamp>,
    next_step: Option<(Timestamp, StartStep)>,
    timer: Option<(Timestamp, SpawnHandle)>,
    /// The poll interest that was sent to the poller.
    poll_subscription: PollSubscription,
}

/// Returns the key whose slot a run without a permit takes: the group for a launch or resume; for a tracked session, the
/// given key if there is one.
pub(crate) fn concurrency_key_of(task: &Task) -> Option<ConcurrencyKey> {
    if task.tracked && task.run == Run::FIRST {
        task.concurrency_key.clone()
    } else {
        Some(task.concurrency_group.clone())
    }
}

impl TaskActor {
    pub(crate) fn new(
        env: Env,
        refs: TaskActorRefs,
        task: Arc<Task>,
        start_mode: StartMode,
        permit: Option<SlotPermit>,
    ) -> Self {
        env.failpoints.hit("task: start");
        let slot_key = match &permit {
            Some(permit) => Some(permit.key().clone()),
            None => concurrency_key_of(&task),
        };
        Self {
            env,
            registry: refs.registry,
            slots: refs.slots,
            poller: refs.poller,
            run: task.run,
            depth: task.spawn_depth,
            root: task.root_session.clone(),
            attempt: match &start_mode {
                StartMode::Continue(_) => task.attempt() + 1,
                _ => task.attempt().max(1),
            },
            start_mode,
            slot_key,
            permit,
            phase: Phase::Starting,
            session: None,
            started_at: Timestamp::default(),
            directory: task.directory.clone(),
            task,
            calls_allowed: Arc::new(AtomicBool::new(true)),
            detached: false,
            create_scopes: Vec::new(),
            create_in_flight: false,
            late_abort: None,
            prompts_in_flight: 0,
            late_prompt: None,
            aborting: None,
            decided_end: None,
            end_requests: Vec::new(),
            dependents: Dependents::default(),
            explaining: false,
            prompting: None,
            prompts: 0,
            tries: 0,
            unreachable_since: None,
            next_step: None,
            timer: None,
            poll_subscription: PollSubscription::default(),
        }
    }

    fn begin(&mut self, ctx: &mut Context<Self>) {
        match self.start_mode.clone() {
            StartMode::Launch(Some(lineage)) | StartMode::Relaunch(Some(lineage)) => {
                self.apply_lineage(lineage, ctx)
            }
            StartMode::Launch(None) | StartMode::Relaunch(None) => {
                self.step(StartStep::Lineage, ctx)
            }
            StartMode::Resume(session) | StartMode::Continue(session) => {
                self.session_ready(session)
            }
            StartMode::Watch(session, started) => {
                self.session = Some(session);
                let mut watch = self.new_watch(started);
                watch.prompt_accepted(started);
                watch.observed_since(self.env.now());
                self.prompts = self.first_prompt_number();
                self.phase = Phase::Watching(watch);
            }
            StartMode::Reattach(session, started) => {
                self.session = Some(session);
                let mut watch = self.new_watch(started);
                watch.observed_since(self.env.now());
                self.phase = Phase::Watching(watch);
                self.prompts = self.first_prompt_number();
                self.prompting = Some((FIRST_PROMPT, self.first_prompt()));
                self.step(StartStep::LookForPrompt, ctx);
            }
        }
    }

    /// Returns the text of the first prompt of this attempt.
    pub(super) fn first_prompt(&self) -> Arc<str> {
        if self.attempt > 1 {
            CONTINUE_PROMPT.into()
        } else {
            self.task.prompt.clone()
        }
    }

    /// Returns a prompt number derived from the time: an actor that attaches to a running session must not reuse the prompt
    /// numbers of earlier actors.
    fn first_prompt_number(&self) -> u32 {
        self.env.now().as_millis().rem_euclid(1 << 31) as u32
    }

    /// Sets the one timer to the earliest deadline.
    pub(super) fn arm(&mut self, ctx: &mut Context<Self>) {
        let watch = match &self.phase {
            Phase::Watching(watch) => watch.next_deadline(),
            _ => None,
        };
        let step = self.next_step.map(|(at, _)| at);
        let due = watch.into_iter().chain(step).min();
        if due == self.timer.as_ref().map(|(at, _)| *at) {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
        if let Some(at) = due {
            self.timer = Some((
                at,
                ctx.notify_later(DeadlineReached, self.env.time_until(at)),
            ));
        }
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting)
    }
}

impl Actor for TaskActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.begin(ctx);
        self.arm(ctx);
    }
}
