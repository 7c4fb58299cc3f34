//! TaskActor: owns one run from its granted slot to its end. It makes the session, sends the prompt, watches, and tells
//! the registry what came of it. Decisions about a running session are `domain/watch.rs`; this is its mailbox, timers and
//! calls. Whatever it is told or told back carries the run, and nothing is prompted once the run is ending.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::{Actor, AsyncContext, Context, Handler, Message, SpawnHandle};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::abort::abort_session;
use super::desk::Desk;
use super::env::{Env, reach_backoff, within};
use super::registry::{
    AbortDone, RunChanged, RunEnded, RunSnapshot, RunStarted, TaskRegistry, Unreachable,
};
use super::slot_manager::{Adopt, Adopted, SlotManager, SlotPermit};
use super::task_start::{Lineage, find_created, new_session, prompt_arrived, read_lineage};
use crate::config::FailedCheck;
use crate::domain::ids::{ConcurrencyKey, Run, SessionId};
use crate::domain::lifecycle::End;
use crate::domain::output::{RunScope, findings};
use crate::domain::session_event::Happening;
use crate::domain::task::{Asking, Task};
use crate::domain::time::{Timestamp, duration_text};
use crate::domain::watch::{Act, CheckAnswer, CheckToken, Findings, Sighting, Watch};
use crate::ports::agent_server::{NewSession, ServerError, TaskPrompt};

/// How a run begins.
#[derive(Debug, Clone)]
pub(crate) enum Beginning {
    /// A session is made; the lineage is known if the parent is a session of ours or there is none.
    Launch(Option<Lineage>),
    /// The same, but an actor before this one may have made the session: it is looked for first.
    Relaunch(Option<Lineage>),
    /// The session of an earlier run is prompted again.
    Resume(SessionId),
    /// A session started elsewhere, or before this actor, is watched as it is.
    Watch(SessionId, Timestamp),
}

/// Something happened in the session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Happened(pub(crate) Arc<Happening>);

/// What a poll saw, as of the moment it asked.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Observed {
    pub(crate) run: Run,
    pub(crate) sighting: Sighting,
    pub(crate) asked_at: Timestamp,
}

/// Ends the run, unless it is ending already: the answer says which.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndRun {
    pub(crate) end: End,
    pub(crate) reply: Option<oneshot::Sender<bool>>,
}

/// The registry has recorded the start: the prompt may be sent.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Go;

/// The registry has recorded the end.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndAccepted {
    /// Set when somebody prompts the session again.
    pub(crate) superseded: Arc<AtomicBool>,
}

/// The run cannot complete now: something depends on its session that it had not heard of.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndRefused;

/// What depends on the session has changed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Dependents {
    pub(crate) open: usize,
    pub(crate) owed: bool,
}

/// A message of ours that wakes was accepted by the session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Woken;

/// Events may have been missed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LinkBroke;

/// A further prompt for the session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SendPrompt {
    pub(crate) text: String,
    pub(crate) reply: oneshot::Sender<Result<(), SendFailure>>,
}

/// Why a further prompt was not given.
#[derive(Debug)]
pub(crate) enum SendFailure {
    NotRunning,
    Server(ServerError),
}

#[derive(Message)]
#[rtype(result = "()")]
struct LineageRead(Result<Lineage, ServerError>);

#[derive(Message)]
#[rtype(result = "()")]
struct CreateAnswered(Result<SessionId, ServerError>);

#[derive(Message)]
#[rtype(result = "()")]
struct CreateTimedOut;

#[derive(Message)]
#[rtype(result = "()")]
struct CreateLookedUp(Result<Option<SessionId>, ServerError>);

#[derive(Message)]
#[rtype(result = "()")]
struct PromptAnswered {
    prompt: u32,
    answer: Result<(), ServerError>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct PromptLookedUp {
    prompt: u32,
    arrived: Result<bool, ServerError>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct SentFurther;

#[derive(Message)]
#[rtype(result = "()")]
struct Checked(CheckToken, CheckAnswer);

#[derive(Message)]
#[rtype(result = "()")]
struct Existence(Option<bool>);

#[derive(Message)]
#[rtype(result = "()")]
struct TimeUp;

/// What a start does once its wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Lineage,
    Create,
    LookForCreate,
    Prompt,
    LookForPrompt,
}

enum Phase {
    /// On the way to a session.
    Starting,
    /// The session is there, the registry has not said go.
    Started,
    /// Watched.
    Watching(Box<Watch>),
    /// The end is decided and not yet recorded.
    Ending(End, Option<Box<Watch>>),
    /// Recorded.
    Ended,
}

pub(crate) struct TaskActor {
    env: Env,
    registry: Desk<TaskRegistry>,
    slots: Desk<SlotManager>,
    task: Task,
    run: Run,
    attempt: u32,
    beginning: Beginning,
    counts: Option<ConcurrencyKey>,
    permit: Option<SlotPermit>,
    phase: Phase,
    session: Option<SessionId>,
    directory: Option<String>,
    creating: Option<NewSession>,
    /// A create may still answer, also long after it was given up: its session is aborted then.
    create_in_flight: bool,
    /// What the registry is told once that session is aborted.
    late_done: Option<AbortDone>,
    dependents: (usize, bool),
    /// The text and number of the prompt whose acceptance is awaited.
    prompting: Option<(u32, String)>,
    prompts: u32,
    tries: u32,
    unreachable_since: Option<Timestamp>,
    next_step: Option<(Timestamp, Step)>,
    timer: Option<(Timestamp, SpawnHandle)>,
}

impl TaskActor {
    pub(crate) fn new(
        env: Env,
        registry: Desk<TaskRegistry>,
        slots: Desk<SlotManager>,
        task: Task,
        beginning: Beginning,
        permit: Option<SlotPermit>,
    ) -> Self {
        // A launch or resume counts under its group; a tracked session counts only if a key was given.
        let counts = match (&permit, task.tracked && task.run == Run::FIRST) {
            (Some(permit), _) => Some(permit.key().clone()),
            (None, true) => task.concurrency_key.clone(),
            (None, false) => Some(task.concurrency_group.clone()),
        };
        Self {
            env,
            registry,
            slots,
            run: task.run,
            attempt: 1,
            beginning,
            counts,
            permit,
            phase: Phase::Starting,
            session: None,
            directory: task.directory.clone(),
            task,
            creating: None,
            create_in_flight: false,
            late_done: None,
            dependents: (0, false),
            prompting: None,
            prompts: 0,
            tries: 0,
            unreachable_since: None,
            next_step: None,
            timer: None,
        }
    }

    fn begin(&mut self, ctx: &mut Context<Self>) {
        match self.beginning.clone() {
            Beginning::Launch(Some(lineage)) | Beginning::Relaunch(Some(lineage)) => {
                self.with_lineage(lineage, ctx)
            }
            Beginning::Launch(None) | Beginning::Relaunch(None) => self.step(Step::Lineage, ctx),
            Beginning::Resume(session) => self.session_is_there(session, ctx),
            Beginning::Watch(session, started) => {
                self.session = Some(session);
                let resumed = self.run > Run::FIRST;
                let mut watch = self.new_watch(resumed, started);
                watch.prompt_accepted(started);
                if self.counts.is_some() && self.permit.is_none() {
                    self.take_slot(ctx);
                }
                self.phase = Phase::Watching(watch);
            }
        }
    }

    fn new_watch(&self, resumed: bool, started: Timestamp) -> Box<Watch> {
        let config = (*self.env.config).clone();
        let mut watch = Box::new(Watch::new(
            config,
            self.task.progress.clone(),
            resumed,
            true,
            started,
        ));
        // Nothing is idle yet, so that this asks for nothing.
        watch.dependents(self.dependents.0, self.dependents.1, started);
        watch
    }

    /// Does one step of the start, or of going on.
    fn step(&mut self, step: Step, ctx: &mut Context<Self>) {
        let (env, me) = (self.env.clone(), ctx.address());
        match step {
            Step::Lineage => {
                let registry = self.registry.clone();
                let Some(parent) = self.task.parent_session.clone() else {
                    return self.with_lineage(
                        Lineage {
                            depth: 1,
                            ..Lineage::default()
                        },
                        ctx,
                    );
                };
                actix_rt::spawn(async move {
                    let lineage = read_lineage(&env, &registry, &parent).await;
                    me.do_send(LineageRead(lineage));
                });
            }
            Step::Create => {
                let Some(session) = self.creating.clone() else {
                    return;
                };
                let limit = self.env.config.calls.create;
                self.create_in_flight = true;
                actix_rt::spawn(async move {
                    let mut call = env.server.create(session);
                    let mut answer = within(limit, &mut call).await;
                    if matches!(answer, Err(ServerError::TimedOut(_))) {
                        me.do_send(CreateTimedOut);
                        // The answer is awaited far beyond its limit: a session that comes late must be aborted.
                        answer = within(limit.saturating_mul(20), call).await;
                    }
                    me.do_send(CreateAnswered(answer));
                });
            }
            Step::LookForCreate => {
                let Some(session) = self.creating.clone() else {
                    return;
                };
                actix_rt::spawn(async move {
                    let found = find_created(&env, &session).await;
                    me.do_send(CreateLookedUp(found));
                });
            }
            Step::Prompt => {
                let (Some(session), Some((prompt, text))) =
                    (self.session.clone(), self.prompting.clone())
                else {
                    return;
                };
                let request = self.prompt_request(prompt, text);
                let directory = self.directory.clone();
                actix_rt::spawn(async move {
                    let call = env.server.prompt(&session, directory.as_deref(), request);
                    let answer = within(env.config.calls.prompt, call).await;
                    me.do_send(PromptAnswered { prompt, answer });
                });
            }
            Step::LookForPrompt => {
                let (Some(session), Some((prompt, _))) =
                    (self.session.clone(), self.prompting.clone())
                else {
                    return;
                };
                let metadata = self.prompt_metadata(prompt);
                actix_rt::spawn(async move {
                    let arrived = prompt_arrived(&env, &session, &metadata).await;
                    me.do_send(PromptLookedUp { prompt, arrived });
                });
            }
        }
    }

    fn prompt_metadata(&self, prompt: u32) -> Value {
        json!({ "greenroom": { "task": self.task.id, "run": self.run, "attempt": self.attempt, "prompt": prompt } })
    }

    fn prompt_request(&self, prompt: u32, text: String) -> TaskPrompt {
        TaskPrompt {
            agent: self.task.agent.clone(),
            model: self.task.model.clone(),
            system: self.task.skill_content.clone(),
            text,
            metadata: self.prompt_metadata(prompt),
        }
    }

    fn with_lineage(&mut self, lineage: Lineage, ctx: &mut Context<Self>) {
        let limit = self.env.config.safety.max_depth;
        if lineage.depth > limit {
            return self.end(
                End::error(format!("depth {} is more than {limit}", lineage.depth)),
                ctx,
            );
        }
        self.task.spawn_depth = lineage.depth;
        self.task.root_session = lineage.root;
        let directory = self
            .task
            .directory
            .clone()
            .or(lineage.directory)
            .unwrap_or_else(|| self.env.config.directory.clone());
        self.directory = Some(directory.clone());
        self.creating = Some(new_session(&self.env, &self.task, directory, self.attempt));
        let made_before = matches!(self.beginning, Beginning::Relaunch(_));
        self.step(
            if made_before {
                Step::LookForCreate
            } else {
                Step::Create
            },
            ctx,
        );
    }

    fn session_is_there(&mut self, session: SessionId, _ctx: &mut Context<Self>) {
        self.session = Some(session.clone());
        self.reached();
        self.phase = Phase::Started;
        self.registry.send(RunStarted {
            task: self.task.id.clone(),
            run: self.run,
            session,
            directory: self.directory.clone(),
            depth: self.task.spawn_depth,
            root: self.task.root_session.clone(),
            slot: self
                .permit
                .as_ref()
                .map(|permit| (permit.id(), permit.key().clone())),
            at: self.env.now(),
        });
    }

    fn reached(&mut self) {
        self.tries = 0;
        self.unreachable_since = None;
    }

    /// A call did not get there, or its fate is unknown: the start keeps its place and is tried again with backoff, until
    /// the server has been away for too long.
    fn try_again(&mut self, step: Step, failure: &ServerError, ctx: &mut Context<Self>) {
        let now = self.env.now();
        let since = *self.unreachable_since.get_or_insert(now);
        let patience = self.env.config.lifecycle.server_down;
        if now.since(since) >= patience {
            let text = format!(
                "the agent server was not reached for {}: {failure}",
                duration_text(patience)
            );
            return self.end(End::error(text), ctx);
        }
        self.tries += 1;
        self.next_step = Some((now + reach_backoff(self.tries), step));
        if matches!(failure, ServerError::Unreachable(_)) {
            self.registry.send(Unreachable);
        }
    }

    fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting)
    }

    fn take_slot(&mut self, ctx: &mut Context<Self>) {
        if let Some(key) = self.counts.clone() {
            self.slots.send(Adopt {
                key,
                to: ctx.address().recipient(),
            });
        }
    }

    fn snapshot(&self, watch: Option<&Watch>) -> RunSnapshot {
        RunSnapshot {
            progress: watch.map_or_else(
                || self.task.progress.clone(),
                |watch| watch.progress.clone(),
            ),
            retrying: watch.and_then(|watch| watch.retrying.clone()),
            asking: watch.map(|watch| watch.asking.clone()).unwrap_or_default(),
            note: watch.and_then(|watch| watch.note.clone()),
            slot: self
                .permit
                .as_ref()
                .map(|permit| (permit.id(), permit.key().clone())),
        }
    }

    /// Decides the end. The registry records it; until then nothing else is decided.
    fn end(&mut self, end: End, _ctx: &mut Context<Self>) {
        let watch = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Watching(watch) => Some(watch),
            Phase::Starting | Phase::Started => None,
            ended @ (Phase::Ending(..) | Phase::Ended) => {
                self.phase = ended;
                return;
            }
        };
        self.next_step = None;
        let snapshot = self.snapshot(watch.as_deref());
        self.phase = Phase::Ending(end.clone(), watch);
        self.registry.send(RunEnded {
            task: self.task.id.clone(),
            run: self.run,
            session: self.session.clone(),
            end,
            snapshot,
            at: self.env.now(),
        });
    }

    fn act(&mut self, acts: Vec<Act>, ctx: &mut Context<Self>) {
        let mut changed = false;
        for act in acts {
            match act {
                Act::Changed => changed = true,
                Act::Check(token) => self.check(token, ctx),
                Act::AskWhetherItExists => self.ask_whether_it_exists(ctx),
                Act::Reject(ask) => self.reject(ask),
                Act::GoOn => self.go_on(ctx),
                Act::LetGoOfSlot => {
                    self.permit = None;
                    self.watch(|watch| watch.holds_slot(false));
                    changed = true;
                }
                Act::TakeSlotAgain => {
                    self.watch(|watch| watch.holds_slot(true));
                    self.take_slot(ctx);
                }
                Act::End(end) => {
                    self.end(end, ctx);
                    changed = false;
                    break;
                }
            }
        }
        if changed {
            self.tell_changed();
        }
    }

    fn tell_changed(&self) {
        if let Phase::Watching(watch) = &self.phase {
            let snapshot = self.snapshot(Some(watch));
            self.registry.send(RunChanged {
                task: self.task.id.clone(),
                run: self.run,
                snapshot,
            });
        }
    }

    fn watch(&mut self, change: impl FnOnce(&mut Watch)) {
        if let Phase::Watching(watch) = &mut self.phase {
            change(watch);
        }
    }

    fn watched(
        &mut self,
        look: impl FnOnce(&mut Watch, Timestamp) -> Vec<Act>,
        ctx: &mut Context<Self>,
    ) {
        let now = self.env.now();
        if let Phase::Watching(watch) = &mut self.phase {
            let acts = look(watch, now);
            self.act(acts, ctx);
        }
        self.arm(ctx);
    }

    fn check(&mut self, token: CheckToken, ctx: &mut Context<Self>) {
        let (Some(session), Phase::Watching(watch)) = (self.session.clone(), &self.phase) else {
            return;
        };
        let scope = RunScope {
            task: self.task.id.clone(),
            run: self.run,
            started: watch.started(),
            own_session: self.run == Run::FIRST,
        };
        let (env, me) = (self.env.clone(), ctx.address());
        actix_rt::spawn(async move {
            let answer = read_for_check(&env, &session, &scope).await;
            me.do_send(Checked(token, answer));
        });
    }

    fn ask_whether_it_exists(&mut self, ctx: &mut Context<Self>) {
        let Some(session) = self.session.clone() else {
            return;
        };
        let (env, me) = (self.env.clone(), ctx.address());
        actix_rt::spawn(async move {
            let exists = match within(env.config.calls.other, env.server.session(&session)).await {
                Ok(_) => Some(true),
                Err(ServerError::NotFound(_)) => Some(false),
                Err(_) => None,
            };
            me.do_send(Existence(exists));
        });
    }

    fn reject(&mut self, ask: Asking) {
        let Some(session) = self.session.clone() else {
            return;
        };
        let env = self.env.clone();
        actix_rt::spawn(async move {
            for _ in 0..3 {
                let call = env.server.reject_ask(&session, &ask.id, ask.kind);
                match within(env.config.calls.other, call).await {
                    Ok(()) | Err(ServerError::NotFound(_)) => return,
                    Err(failure) => {
                        tracing::warn!(ask = %ask.id, %failure, "a request could not be rejected")
                    }
                }
            }
        });
    }

    /// The server lost the run: its session is told to go on where it stopped.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        let text = "The agent server was restarted and your last turn was cut off. Go on where you stopped.";
        self.send_prompt(text.to_owned(), ctx);
    }

    fn send_prompt(&mut self, text: String, ctx: &mut Context<Self>) {
        self.prompts += 1;
        self.prompting = Some((self.prompts, text));
        self.step(Step::Prompt, ctx);
    }

    /// One timer for whatever is due first.
    fn arm(&mut self, ctx: &mut Context<Self>) {
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
            self.timer = Some((at, ctx.notify_later(TimeUp, self.env.until(at))));
        }
    }

    /// A session that nobody asked for any more: it was created for a run that has ended meanwhile.
    fn abort_late(&mut self, session: SessionId) {
        let (env, directory) = (self.env.clone(), self.directory.clone());
        let (registry, done) = (self.registry.clone(), self.late_done.take());
        let answered = move || {
            if let Some(done) = done {
                registry.send(done);
            }
        };
        actix_rt::spawn(abort_session(
            env,
            session,
            directory,
            Arc::new(AtomicBool::new(false)),
            answered,
        ));
    }

    /// The create of a run that has ended failed after all: there is nothing to abort.
    fn nothing_came(&mut self) {
        if let Some(done) = self.late_done.take() {
            self.registry.send(done);
        }
    }
}

async fn read_for_check(env: &Env, session: &SessionId, scope: &RunScope) -> CheckAnswer {
    let trusting = env.config.lifecycle.failed_check == FailedCheck::CountsAsPassed;
    let limit = env.config.calls.other;
    let mut found = match within(limit, env.server.messages(session, Some(200))).await {
        Ok(messages) => findings(&messages, scope),
        Err(ServerError::NotFound(_)) => return CheckAnswer::Gone,
        Err(_) if trusting => Findings {
            output: true,
            answered: true,
            ..Findings::default()
        },
        Err(failure) => return CheckAnswer::Failed(failure.to_string()),
    };
    if found.output && found.failed.is_none() {
        match within(limit, env.server.todos(session)).await {
            Ok(todos) => found.open_todos = todos.iter().filter(|todo| todo.is_open()).count(),
            Err(_) if trusting => {}
            Err(failure) => return CheckAnswer::Failed(failure.to_string()),
        }
    }
    CheckAnswer::Found(found)
}

impl Actor for TaskActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.begin(ctx);
        self.arm(ctx);
    }
}

impl Handler<LineageRead> for TaskActor {
    type Result = ();

    fn handle(&mut self, read: LineageRead, ctx: &mut Context<Self>) {
        if self.is_starting() {
            match read.0 {
                Ok(lineage) => self.with_lineage(lineage, ctx),
                Err(failure) => self.try_again(Step::Lineage, &failure, ctx),
            }
        }
        self.arm(ctx);
    }
}

impl Handler<CreateAnswered> for TaskActor {
    type Result = ();

    fn handle(&mut self, answered: CreateAnswered, ctx: &mut Context<Self>) {
        self.create_in_flight = false;
        match answered.0 {
            Ok(session) if self.is_starting() => self.session_is_there(session, ctx),
            Ok(session) => self.abort_late(session),
            Err(_) if !self.is_starting() => self.nothing_came(),
            Err(failure @ ServerError::Unreachable(_)) => {
                self.try_again(Step::Create, &failure, ctx)
            }
            Err(failure @ ServerError::FateUnknown(_)) => {
                self.try_again(Step::LookForCreate, &failure, ctx)
            }
            Err(failure) => self.end(End::error(failure.to_string()), ctx),
        }
        self.arm(ctx);
    }
}

impl Handler<CreateTimedOut> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: CreateTimedOut, ctx: &mut Context<Self>) {
        if self.is_starting() {
            let limit = duration_text(self.env.config.calls.create);
            self.end(
                End::error(format!("the session was not created within {limit}")),
                ctx,
            );
        }
        self.arm(ctx);
    }
}

impl Handler<CreateLookedUp> for TaskActor {
    type Result = ();

    fn handle(&mut self, looked: CreateLookedUp, ctx: &mut Context<Self>) {
        match looked.0 {
            Ok(Some(session)) if self.is_starting() => self.session_is_there(session, ctx),
            Ok(Some(session)) => self.abort_late(session),
            _ if !self.is_starting() => {}
            Ok(None) => self.step(Step::Create, ctx),
            Err(failure) => self.try_again(Step::LookForCreate, &failure, ctx),
        }
        self.arm(ctx);
    }
}

impl Handler<Go> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: Go, ctx: &mut Context<Self>) {
        if matches!(self.phase, Phase::Started) {
            let resumed = self.run > Run::FIRST;
            self.phase = Phase::Watching(self.new_watch(resumed, self.env.now()));
            self.send_prompt(self.task.prompt.clone(), ctx);
        }
        self.arm(ctx);
    }
}

impl Handler<PromptAnswered> for TaskActor {
    type Result = ();

    fn handle(&mut self, answered: PromptAnswered, ctx: &mut Context<Self>) {
        let current = self
            .prompting
            .as_ref()
            .is_some_and(|(prompt, _)| *prompt == answered.prompt);
        if !current || !matches!(self.phase, Phase::Watching(_)) {
            return;
        }
        match answered.answer {
            Ok(()) => {
                self.prompting = None;
                self.reached();
                let now = self.env.now();
                self.watch(|watch| watch.prompt_accepted(now));
            }
            Err(failure @ ServerError::Unreachable(_)) => {
                self.try_again(Step::Prompt, &failure, ctx)
            }
            Err(failure @ ServerError::FateUnknown(_)) => {
                self.try_again(Step::LookForPrompt, &failure, ctx)
            }
            Err(failure @ ServerError::TimedOut(_)) => {
                self.end(
                    End::interrupt(format!("the prompt was not accepted: {failure}")),
                    ctx,
                );
            }
            Err(failure) => self.end(End::interrupt(failure.to_string()), ctx),
        }
        self.arm(ctx);
    }
}

impl Handler<PromptLookedUp> for TaskActor {
    type Result = ();

    fn handle(&mut self, looked: PromptLookedUp, ctx: &mut Context<Self>) {
        let current = self
            .prompting
            .as_ref()
            .is_some_and(|(prompt, _)| *prompt == looked.prompt);
        if !current || !matches!(self.phase, Phase::Watching(_)) {
            return;
        }
        match looked.arrived {
            Ok(true) => {
                self.prompting = None;
                self.reached();
                let now = self.env.now();
                self.watch(|watch| watch.prompt_accepted(now));
            }
            Ok(false) => self.step(Step::Prompt, ctx),
            Err(failure) => self.try_again(Step::LookForPrompt, &failure, ctx),
        }
        self.arm(ctx);
    }
}

impl Handler<Happened> for TaskActor {
    type Result = ();

    fn handle(&mut self, happened: Happened, ctx: &mut Context<Self>) {
        self.watched(|watch, now| watch.event(&happened.0, now), ctx);
    }
}

impl Handler<Observed> for TaskActor {
    type Result = ();

    fn handle(&mut self, observed: Observed, ctx: &mut Context<Self>) {
        if observed.run == self.run {
            self.watched(
                |watch, now| watch.observed(&observed.sighting, observed.asked_at, now),
                ctx,
            );
        }
    }
}

impl Handler<Checked> for TaskActor {
    type Result = ();

    fn handle(&mut self, checked: Checked, ctx: &mut Context<Self>) {
        self.watched(|watch, now| watch.checked(checked.0, checked.1, now), ctx);
    }
}

impl Handler<Existence> for TaskActor {
    type Result = ();

    fn handle(&mut self, existence: Existence, ctx: &mut Context<Self>) {
        self.watched(|watch, _| watch.existence(existence.0), ctx);
    }
}

impl Handler<Dependents> for TaskActor {
    type Result = ();

    fn handle(&mut self, dependents: Dependents, ctx: &mut Context<Self>) {
        self.dependents = (dependents.open, dependents.owed);
        self.watched(
            |watch, now| watch.dependents(dependents.open, dependents.owed, now),
            ctx,
        );
    }
}

impl Handler<Woken> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: Woken, ctx: &mut Context<Self>) {
        self.watched(
            |watch, now| {
                watch.woken(now);
                Vec::new()
            },
            ctx,
        );
    }
}

impl Handler<LinkBroke> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: LinkBroke, _: &mut Context<Self>) {
        self.watch(Watch::link_broke);
    }
}

impl Handler<Adopted> for TaskActor {
    type Result = ();

    fn handle(&mut self, adopted: Adopted, _: &mut Context<Self>) {
        // A run that has ended meanwhile drops the permit, which gives the slot back.
        if matches!(self.phase, Phase::Watching(_)) {
            self.permit = Some(adopted.0);
            self.tell_changed();
        }
    }
}

impl Handler<SendPrompt> for TaskActor {
    type Result = ();

    fn handle(&mut self, send: SendPrompt, ctx: &mut Context<Self>) {
        let (Phase::Watching(_), Some(session)) = (&self.phase, self.session.clone()) else {
            let _ = send.reply.send(Err(SendFailure::NotRunning));
            return;
        };
        self.prompts += 1;
        let request = self.prompt_request(self.prompts, send.text);
        let (env, me, directory) = (self.env.clone(), ctx.address(), self.directory.clone());
        actix_rt::spawn(async move {
            let metadata = request.metadata.clone();
            let call = env.server.prompt(&session, directory.as_deref(), request);
            let mut answer = within(env.config.calls.notify, call).await;
            if answer.as_ref().is_err_and(ServerError::fate_is_unknown)
                && prompt_arrived(&env, &session, &metadata).await == Ok(true)
            {
                answer = Ok(());
            }
            if answer.is_ok() {
                me.do_send(SentFurther);
            }
            // A caller that has gone away needs no answer.
            let _ = send.reply.send(answer.map_err(SendFailure::Server));
        });
    }
}

impl Handler<SentFurther> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: SentFurther, ctx: &mut Context<Self>) {
        self.watched(|watch, now| watch.prompted_again(now), ctx);
    }
}

impl Handler<EndRun> for TaskActor {
    type Result = ();

    fn handle(&mut self, order: EndRun, ctx: &mut Context<Self>) {
        let open = !matches!(self.phase, Phase::Ending(..) | Phase::Ended);
        if open {
            self.end(order.end, ctx);
            self.arm(ctx);
        }
        if let Some(reply) = order.reply {
            // A caller that has gone away needs no answer.
            let _ = reply.send(open);
        }
    }
}

impl Handler<EndRefused> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: EndRefused, ctx: &mut Context<Self>) {
        if let Phase::Ending(end, Some(watch)) = std::mem::replace(&mut self.phase, Phase::Ended) {
            tracing::debug!(task = %self.task.id, outcome = ?end.outcome, "goes on: something depends on its session");
            self.phase = Phase::Watching(watch);
        }
        self.arm(ctx);
    }
}

impl Handler<EndAccepted> for TaskActor {
    type Result = ();

    fn handle(&mut self, accepted: EndAccepted, ctx: &mut Context<Self>) {
        let Phase::Ending(end, _) = std::mem::replace(&mut self.phase, Phase::Ended) else {
            return;
        };
        self.permit = None;
        self.arm(ctx);
        let done = AbortDone {
            task: self.task.id.clone(),
            run: self.run,
        };
        let registry = self.registry.clone();
        match self.session.clone().filter(|_| end.abort_session) {
            Some(session) => {
                let (env, directory) = (self.env.clone(), self.directory.clone());
                actix_rt::spawn(abort_session(
                    env,
                    session,
                    directory,
                    accepted.superseded,
                    move || {
                        registry.send(done);
                    },
                ));
            }
            None if self.create_in_flight => self.late_done = Some(done),
            None => {
                registry.send(done);
            }
        }
    }
}

impl Handler<TimeUp> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: TimeUp, ctx: &mut Context<Self>) {
        self.timer = None;
        let now = self.env.now();
        if let Some((_, step)) = self.next_step.take_if(|(at, _)| *at <= now) {
            self.step(step, ctx);
        }
        self.watched(Watch::time, ctx);
    }
}
