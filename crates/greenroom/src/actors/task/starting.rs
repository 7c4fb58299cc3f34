//! The start of a run: session and prompt. A cancel wins at every point: answers that arrive after the end of the run are
//! dropped, and a session that was created late is aborted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{AsyncContext, Context, Handler};

use super::lineage::SearchScope;
use super::lineage::{
    Lineage, earlier_scopes, find_created, new_session, prompt_arrived, read_lineage,
};
use super::messages::{
    CreateAnswered, CreateLookedUp, CreateTimedOut, LineageRead, PromptAnswer, PromptAnswered,
    PromptBegins, PromptLookedUp,
};
use super::{Phase, RecordChanged, StartMode, StartRecorded, StartStep, TaskActor};
use crate::actors::env::{REVERT_READ_LIMIT, connect_backoff, panic_error, spawn_call, within};
use crate::actors::registry::{RunPrompted, RunStarted, Unreachable};
use crate::actors::runtime_state::CallId;
use crate::domain::correlation_tag::CorrelationTag;
use crate::domain::ids::{Run, SessionId};
use crate::domain::lifecycle::End;
use crate::domain::time::{Timestamp, duration_text};
use crate::domain::timeline::TimelineEntry;
use crate::domain::watch::Watch;
use crate::ports::agent_server::{NewSession, ServerError, TaskPrompt};

/// Returns the error of a call that was not made because the run has ended.
pub(super) fn run_ended_error() -> ServerError {
    ServerError::Unreachable("the run has ended".to_owned())
}

impl TaskActor {
    /// Performs one step of the start, or of a continuation.
    pub(super) fn step(&mut self, step: StartStep, ctx: &mut Context<Self>) {
        let (env, addr) = (self.env.clone(), ctx.address());
        match step {
            StartStep::Lineage => {
                let registry = self.registry.clone();
                let Some(parent) = self.task.parent_session.clone() else {
                    return self.apply_lineage(Lineage::unknown(), ctx);
                };
                spawn_call(
                    &self.env,
                    "task: lineage is read",
                    async move { read_lineage(&env, &registry, &parent).await },
                    |_| Ok(Lineage::unknown()),
                    move |lineage| addr.do_send(LineageRead(lineage)),
                );
            }
            StartStep::Create => {
                let Some(session) = self.session_request() else {
                    return;
                };
                let limit = self.env.config.calls.create;
                let scope = SearchScope {
                    parent: session.parent.clone(),
                    directory: Arc::clone(&session.directory),
                };
                if !self.create_scopes.contains(&scope) {
                    self.create_scopes.push(scope);
                }
                self.create_in_flight = true;
                let call = self.env.calls_in_flight.begin(self.create_call_id());
                let actor = addr.clone();
                let (durable, calls_allowed) =
                    (self.env.durable(), Arc::clone(&self.calls_allowed));
                spawn_call(
                    &self.env,
                    "task: create is answered",
                    async move {
                        let _call = call;
                        durable.await;
                        if !calls_allowed.load(Ordering::Acquire) {
                            return Err(run_ended_error());
                        }
                        let mut call = env.server.create(session);
                        let answer = within(limit, &mut call).await;
                        if matches!(answer, Err(ServerError::TimedOut(_))) {
                            actor.do_send(CreateTimedOut);
                            // The answer is awaited far beyond the limit: a session created late must be aborted.
                            return within(limit.saturating_mul(20), call).await;
                        }
                        answer
                    },
                    |panic| Err(panic_error(panic)),
                    move |answer| addr.do_send(CreateAnswered(answer)),
                );
            }
            StartStep::LookForCreate => {
                let Some(session) = self.session_request() else {
                    return;
                };
                let name = self.create_call_id();
                let mut others = match self.start_mode {
                    StartMode::Relaunch(_) => {
                        earlier_scopes(&self.env, &self.task, &session.directory)
                    }
                    _ => Vec::new(),
                };
                others.extend(self.create_scopes.iter().cloned());
                spawn_call(
                    &self.env,
                    "task: created session is looked for",
                    async move {
                        // The call of an earlier actor may still be in flight.
                        let limit = env.config.calls.create;
                        let is_over = env.calls_in_flight.finished(&name, limit).await;
                        let found = find_created(&env, &session, others).await;
                        CreateLookedUp { found, is_over }
                    },
                    |panic| CreateLookedUp {
                        found: Err(panic_error(panic)),
                        is_over: true,
                    },
                    move |looked| addr.do_send(looked),
                );
            }
            StartStep::Prompt => {
                let (Some(session), Some((prompt, text))) =
                    (self.session.clone(), self.prompting.clone())
                else {
                    return;
                };
                let request = self.prompt_request(prompt, text);
                let directory = self.directory.clone();
                self.prompts_in_flight += 1;
                let reads_revert = self.may_be_reverted();
                let begins = addr.clone();
                let call = self.env.calls_in_flight.begin(self.prompt_call_id(prompt));
                let (durable, calls_allowed) =
                    (self.env.durable(), Arc::clone(&self.calls_allowed));
                spawn_call(
                    &self.env,
                    "task: prompt is answered",
                    async move {
                        let _call = call;
                        durable.await;
                        if !calls_allowed.load(Ordering::Acquire) {
                            return PromptAnswer::Server(Err(run_ended_error()));
                        }
                        if reads_revert {
                            let read = env.server.session(&session);
                            match within(REVERT_READ_LIMIT, read).await {
                                Ok(record) if record.reverted => return PromptAnswer::Reverted,
                                Ok(_) => {}
                                Err(failure @ ServerError::NotFound(_)) => {
                                    return PromptAnswer::Server(Err(failure));
                                }
                                Err(failure) => return PromptAnswer::NotRead(failure),
                            }
                            if !calls_allowed.load(Ordering::Acquire) {
                                return PromptAnswer::Server(Err(run_ended_error()));
                            }
                        }
                        begins.do_send(PromptBegins { prompt });
                        let call = env.server.prompt(&session, directory.as_deref(), request);
                        PromptAnswer::Server(within(env.config.calls.prompt, call).await)
                    },
                    |panic| PromptAnswer::Server(Err(panic_error(panic))),
                    move |answer| addr.do_send(PromptAnswered { prompt, answer }),
                );
            }
            StartStep::LookForPrompt => {
                let (Some(session), Some((prompt, _))) =
                    (self.session.clone(), self.prompting.clone())
                else {
                    return;
                };
                let tag = self.prompt_tag(prompt);
                let name = self.prompt_call_id(prompt);
                spawn_call(
                    &self.env,
                    "task: prompt is looked for",
                    async move {
                        let limit = env.config.calls.prompt;
                        env.calls_in_flight.finished(&name, limit).await;
                        prompt_arrived(&env, &session, &tag).await
                    },
                    |panic| Err(panic_error(panic)),
                    move |arrived| addr.do_send(PromptLookedUp { prompt, arrived }),
                );
            }
        }
    }

    /// Returns true if the user may have reverted messages of the session: it is older than this attempt.
    fn may_be_reverted(&self) -> bool {
        let is_new = self.run == Run::FIRST && self.attempt == 1 && !self.task.tracked;
        self.env.config.notifications.revert_check.is_some() && !is_new
    }

    /// Returns the request for the session of this attempt; the same on every call.
    fn session_request(&self) -> Option<NewSession> {
        let directory = self.directory.clone()?;
        Some(new_session(
            &self.env,
            &self.task,
            self.depth,
            directory,
            self.attempt,
        ))
    }

    /// Returns the id of this attempt's create call.
    fn create_call_id(&self) -> CallId {
        CallId::Create(self.task.id.clone(), self.run, self.attempt)
    }

    /// Returns the id of a prompt call of this run.
    fn prompt_call_id(&self, prompt: u32) -> CallId {
        CallId::Prompt(self.task.id.clone(), self.run, prompt)
    }

    fn prompt_tag(&self, prompt: u32) -> CorrelationTag {
        CorrelationTag {
            task: self.task.id.clone(),
            run: self.run,
            attempt: self.attempt,
            prompt: Some(prompt),
        }
    }

    pub(super) fn prompt_request(&self, prompt: u32, text: Arc<str>) -> TaskPrompt {
        TaskPrompt {
            agent: self.task.agent.clone(),
            model: self.task.model.clone(),
            system: self.task.skill_content.clone(),
            text,
            tag: self.prompt_tag(prompt),
        }
    }

    pub(super) fn apply_lineage(&mut self, lineage: Lineage, ctx: &mut Context<Self>) {
        let limit = self.env.config.safety.max_depth;
        self.depth = lineage.depth;
        if lineage.depth > limit {
            return self.end(End::error(format!(
                "depth {} is more than {limit}",
                lineage.depth
            )));
        }
        self.root = lineage.root;
        let directory = self
            .task
            .directory
            .clone()
            .or(lineage.directory)
            .unwrap_or_else(|| self.env.config.directory.clone());
        self.directory = Some(directory);
        let made_before = matches!(self.start_mode, StartMode::Relaunch(_));
        self.step(
            if made_before {
                StartStep::LookForCreate
            } else {
                StartStep::Create
            },
            ctx,
        );
    }

    pub(super) fn session_ready(&mut self, session: SessionId) {
        self.session = Some(session);
        self.reset_retries();
        self.phase = Phase::Started;
        self.started_at = self.env.now();
        self.report_started();
    }

    /// Reports to the registry that the run has its session.
    pub(super) fn report_started(&self) {
        let Some(session) = self.session.clone() else {
            return;
        };
        self.registry.send(RunStarted {
            task: self.task.id.clone(),
            run: self.run,
            session,
            directory: self.directory.clone(),
            depth: self.depth,
            root: self.root.clone(),
            slot: self.permit.as_ref().map(|permit| permit.key().clone()),
            at: self.started_at,
        });
    }

    /// Reports to the registry that the server has accepted the run's prompt.
    pub(super) fn report_prompted(&self) {
        self.registry.send(RunPrompted {
            task: self.task.id.clone(),
            run: self.run,
        });
    }

    pub(super) fn reset_retries(&mut self) {
        self.tries = 0;
        self.unreachable_since = None;
    }

    /// Schedules `step` again with backoff, after a call that failed or whose outcome is unknown. Ends the run if the server
    /// was unreachable for too long. The run keeps its slot meanwhile.
    pub(super) fn retry_step(&mut self, step: StartStep, failure: &ServerError) {
        let now = self.env.now();
        let since = *self.unreachable_since.get_or_insert(now);
        let limit = self.env.config.lifecycle.server_down;
        if now.since(since) >= limit {
            let text = format!(
                "the agent server was not reached for {}: {failure}",
                duration_text(limit)
            );
            return self.end(End::error(text));
        }
        self.tries += 1;
        self.next_step = Some((now + connect_backoff(self.tries), step));
        if matches!(failure, ServerError::Unreachable(_)) {
            self.registry.send(Unreachable);
        }
    }

    /// Schedules the prompt again: its user has reverted messages of the session, which the prompt would delete.
    fn wait_for_restore(&mut self) {
        self.reset_retries();
        let entry = TimelineEntry::new("waits", "its user has reverted messages of the session");
        self.env.append_timeline(&self.task.id, entry);
        if let Some(interval) = self.env.config.notifications.revert_check {
            self.next_step = Some((self.env.now() + interval, StartStep::Prompt));
        }
    }

    fn create_timed_out(&mut self) {
        let limit = duration_text(self.env.config.calls.create);
        self.end(End::error(format!(
            "the session was not created within {limit}"
        )));
    }

    pub(super) fn new_watch(&self, started: Timestamp) -> Box<Watch> {
        let resumed = self.run > Run::FIRST || self.attempt > 1;
        let mut watch = Box::new(Watch::new(
            Arc::clone(&self.env.config),
            self.task.progress.clone(),
            resumed,
            true,
            started,
        ));
        watch.set_cut_offs(self.task.cut_offs());
        // The session is not idle yet: no action follows.
        watch.dependents(self.dependents.open, self.dependents.has_pending, started);
        watch
    }

    pub(super) fn send_prompt(&mut self, text: Arc<str>, ctx: &mut Context<Self>) {
        self.prompts += 1;
        self.prompting = Some((self.prompts, text));
        self.step(StartStep::Prompt, ctx);
    }
}

impl Handler<LineageRead> for TaskActor {
    type Result = ();

    fn handle(&mut self, read: LineageRead, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: LineageRead");
        if self.is_starting() {
            match read.0 {
                Ok(lineage) => self.apply_lineage(lineage, ctx),
                Err(failure) => self.retry_step(StartStep::Lineage, &failure),
            }
        }
        self.arm(ctx);
    }
}

impl Handler<CreateAnswered> for TaskActor {
    type Result = ();

    fn handle(&mut self, answered: CreateAnswered, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: CreateAnswered");
        self.create_in_flight = false;
        match answered.0 {
            Ok(session) if self.is_starting() => self.session_ready(session),
            Ok(session) => self.abort_late(session),
            Err(_) if !self.is_starting() => self.late_create_failed(),
            Err(failure @ ServerError::Unreachable(_)) => {
                self.retry_step(StartStep::Create, &failure)
            }
            Err(failure @ ServerError::OutcomeUnknown(_)) => {
                self.retry_step(StartStep::LookForCreate, &failure)
            }
            Err(failure) => self.end(End::error(failure.to_string())),
        }
        self.arm(ctx);
    }
}

impl Handler<CreateTimedOut> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: CreateTimedOut, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: CreateTimedOut");
        if self.is_starting() {
            self.create_timed_out();
        }
        self.arm(ctx);
    }
}

impl Handler<CreateLookedUp> for TaskActor {
    type Result = ();

    fn handle(&mut self, looked: CreateLookedUp, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: CreateLookedUp");
        match looked.found {
            Ok(Some(session)) if self.is_starting() => self.session_ready(session),
            Ok(Some(session)) => self.abort_late(session),
            _ if !self.is_starting() => {}
            Ok(None) if looked.is_over => self.step(StartStep::Create, ctx),
            // The call of an earlier actor lasts beyond its limit, and may still create a session.
            Ok(None) => self.create_timed_out(),
            // Without the parent session there is no reader for a result.
            Err(ServerError::NotFound(_)) => {
                self.end(End::error("the parent session does not exist any more"));
            }
            Err(failure) => self.retry_step(StartStep::LookForCreate, &failure),
        }
        self.arm(ctx);
    }
}

impl Handler<StartRecorded> for TaskActor {
    type Result = ();

    fn handle(&mut self, go: StartRecorded, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: Go");
        // The actor shares the registry's record from here on.
        self.task = go.0;
        if matches!(self.phase, Phase::Started) {
            let mut watch = self.new_watch(self.env.now());
            watch.awaits_prompt();
            self.phase = Phase::Watching(watch);
            self.send_prompt(self.first_prompt(), ctx);
        }
        self.arm(ctx);
    }
}

impl Handler<RecordChanged> for TaskActor {
    type Result = ();

    fn handle(&mut self, changed: RecordChanged, _: &mut Context<Self>) {
        self.env.failpoints.hit("task: RecordChanged");
        self.task = changed.0;
    }
}

impl Handler<PromptBegins> for TaskActor {
    type Result = ();

    fn handle(&mut self, begins: PromptBegins, _: &mut Context<Self>) {
        let is_current = |(prompt, _): &(u32, _)| *prompt == begins.prompt;
        if self.prompting.as_ref().is_some_and(is_current) {
            let now = self.env.now();
            self.watch(|watch| watch.prompt_begins(now));
        }
    }
}

impl Handler<PromptAnswered> for TaskActor {
    type Result = ();

    fn handle(&mut self, answered: PromptAnswered, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: PromptAnswered");
        let current = self
            .prompting
            .as_ref()
            .is_some_and(|(prompt, _)| *prompt == answered.prompt);
        let arrived = match &answered.answer {
            PromptAnswer::Server(Ok(())) => true,
            PromptAnswer::Server(Err(failure)) => failure.outcome_is_unknown(),
            PromptAnswer::NotRead(_) | PromptAnswer::Reverted => false,
        };
        self.prompt_finished(arrived);
        if !current || !matches!(self.phase, Phase::Watching(_)) {
            return;
        }
        let answer = match answered.answer {
            PromptAnswer::Server(answer) => answer,
            PromptAnswer::NotRead(failure) => {
                self.retry_step(StartStep::Prompt, &failure);
                return self.arm(ctx);
            }
            PromptAnswer::Reverted => {
                self.wait_for_restore();
                return self.arm(ctx);
            }
        };
        match answer {
            Ok(()) => {
                self.prompting = None;
                self.report_prompted();
                self.reset_retries();
                let now = self.env.now();
                self.watch(|watch| watch.prompt_accepted(now));
            }
            Err(failure @ ServerError::Unreachable(_)) => {
                self.retry_step(StartStep::Prompt, &failure)
            }
            Err(failure @ ServerError::OutcomeUnknown(_)) => {
                self.retry_step(StartStep::LookForPrompt, &failure)
            }
            Err(failure @ ServerError::TimedOut(_)) => {
                self.end(End::interrupt(format!(
                    "the prompt was not accepted: {failure}"
                )));
            }
            Err(failure) => self.end(End::interrupt(failure.to_string())),
        }
        self.arm(ctx);
    }
}

impl Handler<PromptLookedUp> for TaskActor {
    type Result = ();

    fn handle(&mut self, looked: PromptLookedUp, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: PromptLookedUp");
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
                self.report_prompted();
                self.reset_retries();
                let now = self.env.now();
                self.watch(|watch| watch.prompt_accepted(now));
            }
            Ok(false) => self.step(StartStep::Prompt, ctx),
            Err(failure) => self.retry_step(StartStep::LookForPrompt, &failure),
        }
        self.arm(ctx);
    }
}
