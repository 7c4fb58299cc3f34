//! TaskActor: owns one run from its granted slot to its end. It makes the session, sends the prompt, watches, and tells
//! the registry what came of it. Decisions about a running session are `domain/watch`; this is its mailbox, timers and
//! calls. Whatever it is told or told back carries the run, and nothing is prompted once the run is ending.
//!
//! Its rooms: `starting` (to the session and its prompt, with `lineage`), `watching` (with `hearing` of polls), `ending`
//! (with `abort`).

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

use self::messages::DeadlineReached;
pub(crate) use self::messages::{
    Dependents, Detach, EndAccepted, EndRefused, EndRun, EventLinkLost, RegistryRestarted,
    SendFailure, SendPrompt, SessionEventReceived, SlotManagerRestarted, StartMode, StartRecorded,
    StatusPolled, WakeSent,
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

/// What a start does once its wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StartStep {
    Lineage,
    Create,
    LookForCreate,
    Prompt,
    LookForPrompt,
}

/// The number of the prompt that a run begins with.
const FIRST_PROMPT: u32 = 1;

enum Phase {
    /// On the way to a session.
    Starting,
    /// The session is there, the registry has not said go.
    Started,
    /// Watched.
    Watching(Box<Watch>),
    /// The end is decided and not yet recorded.
    EndPending(End, Option<Box<Watch>>),
    /// Recorded.
    Ended,
}

pub(crate) struct TaskActor {
    env: Env,
    registry: ActorRef<TaskRegistry>,
    slots: ActorRef<SlotManager>,
    poller: ActorRef<Poller>,
    task: Arc<Task>,
    /// How deep below a session of a user's own, and that session.
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
    /// False once the run is ending: a call that was decided and not begun is not made any more.
    calls_allowed: Arc<AtomicBool>,
    /// A create may still answer, also long after it was given up: its session is aborted then.
    create_in_flight: bool,
    /// Given back once that session is aborted.
    late_abort: Option<AbortTicket>,
    /// Prompts on their way to the session.
    prompts_in_flight: usize,
    /// Given back once a prompt that was on its way when the run ended is known to have come, or not.
    late_prompt: Option<Arc<AbortTicket>>,
    /// The abort that its end has led to.
    aborting: Option<Box<abort::Aborted>>,
    /// The system shuts down and the run goes on without it.
    detached: bool,
    /// What the registry was told of the end, in case it did not hear it.
    ended: Option<Box<(End, RunSnapshot, Timestamp)>>,
    /// Orders to end it that came when an end was decided and not yet recorded; as many as callers wait.
    end_requests: Vec<EndRun>,
    dependents: (usize, bool),
    /// The end is decided and what exists instead is being asked for.
    explaining: bool,
    /// The text and number of the prompt whose acceptance is awaited.
    prompting: Option<(u32, Arc<str>)>,
    prompts: u32,
    tries: u32,
    unreachable_since: Option<Timestamp>,
    next_step: Option<(Timestamp, StartStep)>,
    timer: Option<(Timestamp, SpawnHandle)>,
    /// What the poller was told of how much it needs to hear.
    poll_subscription: PollSubscription,
}

/// The key that a run without a permit counts under: a launch or resume under its group, a tracked session only if a key
/// was given.
pub(crate) fn concurrency_key_of(task: &Task) -> Option<ConcurrencyKey> {
    match task.tracked && task.run == Run::FIRST {
        true => task.concurrency_key.clone(),
        false => Some(task.concurrency_group.clone()),
    }
}

impl TaskActor {
    pub(crate) fn new(
        env: Env,
        (registry, slots, poller): (
            ActorRef<TaskRegistry>,
            ActorRef<SlotManager>,
            ActorRef<Poller>,
        ),
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
            registry,
            slots,
            poller,
            run: task.run,
            depth: task.spawn_depth,
            root: task.root_session.clone(),
            attempt: 1,
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
            create_in_flight: false,
            late_abort: None,
            prompts_in_flight: 0,
            late_prompt: None,
            aborting: None,
            ended: None,
            end_requests: Vec::new(),
            dependents: (0, false),
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
            StartMode::Resume(session) => self.session_ready(session, ctx),
            StartMode::Watch(session, started) => {
                self.session = Some(session);
                let resumed = self.run > Run::FIRST;
                let mut watch = self.new_watch(resumed, started);
                watch.prompt_accepted(started);
                watch.observed_since(self.env.now());
                self.prompts = self.first_prompt_number();
                self.phase = Phase::Watching(watch);
            }
            StartMode::Reattach(session, started) => {
                self.session = Some(session);
                let mut watch = self.new_watch(self.run > Run::FIRST, started);
                watch.observed_since(self.env.now());
                self.phase = Phase::Watching(watch);
                self.prompts = self.first_prompt_number();
                self.prompting = Some((FIRST_PROMPT, self.task.prompt.clone()));
                self.step(StartStep::LookForPrompt, ctx);
            }
        }
    }

    /// Prompts of an actor before this one had numbers too, and theirs are not to be found under ours.
    fn first_prompt_number(&self) -> u32 {
        self.env.now().as_millis().rem_euclid(1 << 31) as u32
    }

    /// One timer for whatever is due first.
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
