//! The watching of a run: events, polls and answers are passed to `domain/watch`, and the actions it returns are performed
//! here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use std::time::Duration;

use actix::{AsyncContext, Context, Handler};

use super::lineage::prompt_arrived;
use super::messages::{
    CheckAnswered, DeadlineReached, EndExplained, SendAnswered, SessionLookedUp,
};
use super::starting::run_ended_error;
use super::{
    AbortHeld, AbortJudged, CONTINUE_PROMPT, Dependents, EventLinkLost, Phase, SendFailure,
    SendPrompt, SessionEventReceived, SlotManagerRestarted, TaskActor, WakeSent,
};
use crate::actors::env::{Env, panic_error, spawn_call, within};
use crate::actors::registry::{RunAborted, RunChanged, RunSnapshot};
use crate::actors::slot_manager::{Adopt, Adopted};
use crate::config::FailedCheck;
use crate::domain::explanation::{is_unknown_model, with_models};
use crate::domain::ids::{Run, SessionId};
use crate::domain::lifecycle::End;
use crate::domain::output::{RunScope, findings};
use crate::domain::task::Asking;
use crate::domain::time::Timestamp;
use crate::domain::watch::{CheckAnswer, CheckFindings, CheckToken, Watch, WatchAction};
use crate::ports::agent_server::ServerError;

impl TaskActor {
    pub(super) fn take_slot(&mut self, ctx: &mut Context<Self>) {
        if let Some(key) = self.slot_key.clone() {
            self.slots.send(Adopt {
                key,
                to: ctx.address().recipient(),
            });
        }
    }

    /// Requests a slot again for a run that needs one and has none: a restart of the slot manager may have lost the request.
    /// If two slots are granted, the second permit replaces the first, whose slot is released.
    pub(super) fn retake_lost_slot(&mut self, ctx: &mut Context<Self>) {
        if self.permit.is_none()
            && matches!(&self.phase, Phase::Watching(watch) if watch.needs_slot())
        {
            self.take_slot(ctx);
        }
    }

    pub(super) fn snapshot(&self, watch: Option<&Watch>) -> RunSnapshot {
        RunSnapshot {
            progress: watch.map_or_else(
                || self.task.progress.clone(),
                |watch| watch.progress.clone(),
            ),
            retrying: watch.and_then(|watch| watch.retrying.clone()),
            asking: watch.map(|watch| watch.asking.clone()).unwrap_or_default(),
            note: watch.and_then(|watch| watch.note.clone()),
            depth: self.depth,
            slot: self.permit.as_ref().map(|permit| permit.key().clone()),
        }
    }

    pub(super) fn act(&mut self, actions: Vec<WatchAction>, ctx: &mut Context<Self>) {
        let mut changed = false;
        for act in actions {
            match act {
                WatchAction::Changed => changed = true,
                WatchAction::Check(token) => self.check(token, ctx),
                WatchAction::ReadSession => self.check_session_exists(ctx),
                WatchAction::Reject(ask) => self.reject(ask),
                WatchAction::Continue => self.continue_session(ctx),
                WatchAction::ReleaseSlot => {
                    self.permit = None;
                    self.watch(|watch| watch.set_holds_slot(false));
                    changed = true;
                }
                WatchAction::RetakeSlot => {
                    self.watch(|watch| watch.set_holds_slot(true));
                    self.take_slot(ctx);
                }
                WatchAction::Aborted => self.report_aborted(),
                WatchAction::CutOff { answered } => {
                    self.cut_off(answered);
                    changed = false;
                    break;
                }
                WatchAction::End(end) => {
                    self.explain_and_end(end, ctx);
                    changed = false;
                    break;
                }
            }
        }
        if changed {
            self.report_changed();
        }
    }

    /// Ends the run. If the error is an unknown model, the server's models are read first, with a short limit, and named in
    /// the error text.
    fn explain_and_end(&mut self, end: End, ctx: &mut Context<Self>) {
        let unknown_model = end.error.as_deref().is_some_and(is_unknown_model);
        if self.explaining {
            return;
        }
        let Some(directory) = self.directory.clone().filter(|_| unknown_model) else {
            return self.end(end);
        };
        self.explaining = true;
        let (env, addr) = (self.env.clone(), ctx.address());
        let unexplained = end.clone();
        spawn_call(
            &self.env,
            "task: models are read",
            async move {
                let models = within(EXPLAIN_LIMIT, env.server.models(&directory)).await;
                EndExplained(with_models(end, &models.unwrap_or_default()))
            },
            |_| EndExplained(unexplained),
            move |explained| addr.do_send(explained),
        );
    }

    /// Reports an abort of the session to the registry, which judges it.
    pub(super) fn report_aborted(&self) {
        self.registry.send(RunAborted {
            task: self.task.id.clone(),
            run: self.run,
            at: self.env.now(),
            turn_began: match &self.phase {
                Phase::Watching(watch) => watch.prompt_began(),
                _ => None,
            },
        });
    }

    pub(super) fn report_changed(&self) {
        if let Phase::Watching(watch) = &self.phase {
            let snapshot = self.snapshot(Some(watch));
            self.registry.send(RunChanged {
                task: self.task.id.clone(),
                run: self.run,
                snapshot,
            });
        }
    }

    pub(super) fn watch(&mut self, change: impl FnOnce(&mut Watch)) {
        if let Phase::Watching(watch) = &mut self.phase {
            change(watch);
        }
    }

    pub(super) fn watched(
        &mut self,
        look: impl FnOnce(&mut Watch, Timestamp) -> Vec<WatchAction>,
        ctx: &mut Context<Self>,
    ) {
        let now = self.env.now();
        self.watched_at(now, |watch| look(watch, now), ctx);
    }

    fn watched_at(
        &mut self,
        now: Timestamp,
        look: impl FnOnce(&mut Watch) -> Vec<WatchAction>,
        ctx: &mut Context<Self>,
    ) {
        if let Phase::Watching(watch) = &mut self.phase {
            let actions = look(watch);
            for entry in watch.take_timeline() {
                self.env.append_timeline(&self.task.id, entry);
            }
            self.act(actions, ctx);
        }
        self.update_poll_interest(now);
        self.arm(ctx);
    }

    pub(super) fn check(&mut self, token: CheckToken, ctx: &mut Context<Self>) {
        let (Some(session), Phase::Watching(watch)) = (self.session.clone(), &self.phase) else {
            return;
        };
        let scope = RunScope {
            task: self.task.id.clone(),
            run: self.run,
            started: watch.started(),
            own_session: self.run == Run::FIRST,
            attempt: (self.attempt > 1).then_some(self.attempt),
        };
        let (env, addr) = (self.env.clone(), ctx.address());
        spawn_call(
            &self.env,
            "task: check is answered",
            async move { read_for_check(&env, &session, &scope).await },
            CheckAnswer::Failed,
            move |answer| addr.do_send(CheckAnswered(token, answer)),
        );
    }

    pub(super) fn check_session_exists(&mut self, ctx: &mut Context<Self>) {
        let Some(session) = self.session.clone() else {
            return;
        };
        let (env, addr) = (self.env.clone(), ctx.address());
        spawn_call(
            &self.env,
            "task: session is looked for",
            async move {
                match within(env.config.calls.other, env.server.session(&session)).await {
                    Ok(_) => Some(true),
                    Err(ServerError::NotFound(_)) => Some(false),
                    Err(_) => None,
                }
            },
            |_| None,
            move |exists| addr.do_send(SessionLookedUp(exists)),
        );
    }

    pub(super) fn reject(&mut self, ask: Asking) {
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
                        tracing::warn!(ask = %ask.id, %failure, "rejecting a request failed")
                    }
                }
            }
        });
    }

    /// Prompts the session to continue its last turn, which the server lost in a restart.
    pub(super) fn continue_session(&mut self, ctx: &mut Context<Self>) {
        self.send_prompt(CONTINUE_PROMPT.into(), ctx);
    }
}

async fn read_for_check(env: &Env, session: &SessionId, scope: &RunScope) -> CheckAnswer {
    let assume_passed = env.config.lifecycle.failed_check == FailedCheck::CountsAsPassed;
    let limit = env.config.calls.other;
    let mut found = match within(limit, env.server.messages(session, Some(200))).await {
        Ok(messages) => findings(&messages, scope),
        Err(ServerError::NotFound(_)) => return CheckAnswer::Gone,
        Err(_) if assume_passed => CheckFindings {
            prompted: true,
            output: true,
            answered: true,
            ..CheckFindings::default()
        },
        Err(failure) => return CheckAnswer::Failed(failure.to_string()),
    };
    if found.output && found.failed.is_none() {
        match within(limit, env.server.todos(session)).await {
            Ok(todos) => found.open_todos = todos.iter().filter(|todo| todo.is_open()).count(),
            Err(_) if assume_passed => {}
            Err(failure) => return CheckAnswer::Failed(failure.to_string()),
        }
    }
    CheckAnswer::Found(found)
}

/// The time limit of the read of models for an error text.
const EXPLAIN_LIMIT: Duration = Duration::from_secs(2);

impl Handler<EndExplained> for TaskActor {
    type Result = ();

    fn handle(&mut self, explained: EndExplained, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: Explained");
        self.end(explained.0);
        self.arm(ctx);
    }
}

impl Handler<SessionEventReceived> for TaskActor {
    type Result = ();

    fn handle(&mut self, received: SessionEventReceived, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: Happened");
        self.watched_at(
            received.at,
            |watch| watch.event(&received.kind, received.at),
            ctx,
        );
    }
}

impl Handler<AbortHeld> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: AbortHeld, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: AbortHeld");
        self.watch(Watch::hold_for_abort);
        self.arm(ctx);
    }
}

impl Handler<AbortJudged> for TaskActor {
    type Result = ();

    fn handle(&mut self, judged: AbortJudged, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: AbortJudged");
        self.watched(|watch, _| watch.abort_judged(judged.cut_off), ctx);
    }
}

impl Handler<CheckAnswered> for TaskActor {
    type Result = ();

    fn handle(&mut self, checked: CheckAnswered, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: Checked");
        self.watched(|watch, now| watch.checked(checked.0, checked.1, now), ctx);
    }
}

impl Handler<SessionLookedUp> for TaskActor {
    type Result = ();

    fn handle(&mut self, existence: SessionLookedUp, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: Existence");
        self.watched(|watch, _| watch.existence(existence.0), ctx);
    }
}

impl Handler<Dependents> for TaskActor {
    type Result = ();

    fn handle(&mut self, dependents: Dependents, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: Dependents");
        self.dependents = dependents;
        self.watched(
            |watch, now| watch.dependents(dependents.open, dependents.has_pending, now),
            ctx,
        );
    }
}

impl Handler<WakeSent> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: WakeSent, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: Woken");
        self.watched(
            |watch, now| {
                watch.wake_accepted(now);
                Vec::new()
            },
            ctx,
        );
    }
}

impl Handler<EventLinkLost> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: EventLinkLost, _: &mut Context<Self>) {
        self.env.failpoints.hit("task: LinkBroke");
        self.watch(Watch::event_link_lost);
    }
}

impl Handler<Adopted> for TaskActor {
    type Result = ();

    fn handle(&mut self, adopted: Adopted, _: &mut Context<Self>) {
        self.env.failpoints.hit("task: Adopted");
        // A run that has ended meanwhile, or waits for its children again, drops the permit, which releases the slot: a run
        // that waits must not hold the slot that its children wait for.
        if matches!(&self.phase, Phase::Watching(watch) if watch.needs_slot()) {
            self.permit = Some(adopted.0);
            self.report_changed();
        }
    }
}

impl Handler<SlotManagerRestarted> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: SlotManagerRestarted, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: SlotsUp");
        self.retake_lost_slot(ctx);
    }
}

impl Handler<SendPrompt> for TaskActor {
    type Result = ();

    fn handle(&mut self, send: SendPrompt, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: SendPrompt");
        let (Phase::Watching(_), Some(session)) = (&self.phase, self.session.clone()) else {
            let _ = send.reply.send(Err(SendFailure::NotRunning));
            return;
        };
        self.prompts += 1;
        self.prompts_in_flight += 1;
        self.watch(Watch::sending);
        let request = self.prompt_request(self.prompts, send.text.into());
        let (env, addr, directory) = (self.env.clone(), ctx.address(), self.directory.clone());
        let (durable, calls_allowed) = (self.env.durable(), Arc::clone(&self.calls_allowed));
        spawn_call(
            &self.env,
            "task: further prompt is answered",
            async move {
                durable.await;
                if !calls_allowed.load(Ordering::Acquire) {
                    return Err(run_ended_error());
                }
                let tag = request.tag.clone();
                let call = env.server.prompt(&session, directory.as_deref(), request);
                let answer = within(env.config.calls.notify, call).await;
                if answer.as_ref().is_err_and(ServerError::outcome_is_unknown)
                    && prompt_arrived(&env, &session, &tag).await == Ok(true)
                {
                    return Ok(());
                }
                answer
            },
            |panic| Err(panic_error(panic)),
            move |answer| {
                addr.do_send(SendAnswered {
                    accepted: answer.is_ok(),
                });
                // The caller may have been dropped.
                let _ = send.reply.send(answer.map_err(SendFailure::Server));
            },
        );
    }
}

impl Handler<SendAnswered> for TaskActor {
    type Result = ();

    fn handle(&mut self, sent: SendAnswered, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: SentFurther");
        let accepted = sent.accepted;
        self.prompt_finished(accepted);
        self.watched(
            |watch, now| {
                if accepted {
                    return watch.prompted_again(now);
                }
                watch.not_sent();
                Vec::new()
            },
            ctx,
        );
    }
}

impl Handler<DeadlineReached> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: DeadlineReached, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: TimeUp");
        self.timer = None;
        let now = self.env.now();
        if let Some((_, step)) = self.next_step.take_if(|(at, _)| *at <= now) {
            self.step(step, ctx);
        }
        self.watched(Watch::on_deadline, ctx);
    }
}
