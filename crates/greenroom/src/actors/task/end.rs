//! The end of a run in its actor. The end is decided by the watch or requested by a caller, then recorded by the registry;
//! only after that is the slot released and the session aborted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use actix::{AsyncContext, Context, Handler};

use super::abort::{SessionToAbort, abort_session};
use super::messages::LatePromptGivenUp;
use super::{
    CutOffAccepted, CutOffDecided, DecidedEnd, Detach, EndAccepted, EndRefused, EndRun, Phase,
    RegistryRestarted, TaskActor,
};
use crate::actors::registry::{RunCutOff, RunEnded};
use crate::domain::ids::SessionId;
use crate::domain::lifecycle::End;

impl TaskActor {
    /// Decides the end and reports it to the registry. Until the registry has recorded it, no other end is decided.
    pub(super) fn end(&mut self, end: End) {
        let watch = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Watching(watch) | Phase::CutOff(watch, _) => Some(watch),
            Phase::Starting | Phase::Started => None,
            ended @ (Phase::EndPending(..) | Phase::Ended) => {
                self.phase = ended;
                return;
            }
        };
        self.next_step = None;
        self.calls_allowed.store(false, Ordering::Release);
        let snapshot = self.snapshot(watch.as_deref());
        self.phase = Phase::EndPending(end.clone(), watch);
        let at = self.env.now();
        self.decided_end = Some(Box::new(DecidedEnd { end, snapshot, at }));
        self.report_end();
    }

    /// Decides that the run was cut off and reports it to the registry. A requested end still wins until the registry has
    /// recorded it.
    pub(super) fn cut_off(&mut self, answered: bool) {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Watching(watch) => {
                self.next_step = None;
                self.calls_allowed.store(false, Ordering::Release);
                let snapshot = self.snapshot(Some(&watch));
                self.phase = Phase::CutOff(watch, CutOffDecided { snapshot, answered });
                self.report_cut_off();
            }
            other => self.phase = other,
        }
    }

    /// Reports the decided cut-off to the registry, if there is one.
    fn report_cut_off(&self) {
        if let Phase::CutOff(_, decided) = &self.phase {
            let CutOffDecided { snapshot, answered } = decided.clone();
            self.registry.send(RunCutOff {
                task: self.task.id.clone(),
                run: self.run,
                attempt: self.attempt,
                snapshot,
                answered,
            });
        }
    }

    /// Reports the decided end to the registry, if there is one.
    fn report_end(&self) {
        if let Some(DecidedEnd { end, snapshot, at }) = self.decided_end.as_deref().cloned() {
            self.registry.send(RunEnded {
                task: self.task.id.clone(),
                run: self.run,
                session: self.session.clone(),
                end,
                snapshot,
                at,
            });
        }
    }

    /// Aborts a session whose create was answered after the end of the run.
    pub(super) fn abort_late(&mut self, session: SessionId) {
        if self.detached {
            // The next process looks for the session.
            return;
        }
        let aborted = self.aborted(session, Arc::default());
        abort_session(&self.env, aborted, self.late_abort.take().map(Arc::new));
    }

    fn aborted(&self, session: SessionId, superseded: Arc<AtomicBool>) -> SessionToAbort {
        SessionToAbort {
            session,
            directory: self.directory.clone(),
            run: (self.task.id.clone(), self.run),
            superseded,
            open: Arc::new(AtomicUsize::new(1)),
            registry: self.registry.clone(),
        }
    }

    /// Handles the failure of a create after the end of the run: there is nothing to abort.
    pub(super) fn late_create_failed(&mut self) {
        if let Some(ticket) = self.late_abort.take() {
            ticket.not_needed();
        }
    }

    /// Handles the answer to a prompt of this run. If the run has ended meanwhile, the prompt may have reached the session
    /// after the abort: the session is aborted again, and the ticket is held until then.
    pub(super) fn prompt_finished(&mut self, arrived: bool) {
        self.prompts_in_flight = self.prompts_in_flight.saturating_sub(1);
        let ticket = if self.prompts_in_flight == 0 {
            self.late_prompt.take()
        } else {
            self.late_prompt.clone()
        };
        let (Phase::Ended, Some(aborted)) = (&self.phase, &self.aborting) else {
            return;
        };
        let can_abort = self.env.config.lifecycle.look_after_abort
            && !aborted.superseded.load(Ordering::Acquire);
        if arrived && can_abort {
            abort_session(&self.env, SessionToAbort::clone(aborted), ticket);
        } else {
            aborted.end_one();
        }
    }
}

impl Handler<LatePromptGivenUp> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: LatePromptGivenUp, _: &mut Context<Self>) {
        self.env.failpoints.hit("task: LatePromptGivenUp");
        // Nothing waits for the prompt any longer. If it is answered later, the session is still aborted again.
        self.late_prompt = None;
    }
}

impl Handler<EndRun> for TaskActor {
    type Result = ();

    fn handle(&mut self, request: EndRun, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: EndRun");
        match self.phase {
            // If the decided end is refused, the first of these requests ends the run.
            Phase::EndPending(..) => self.end_requests.push(request),
            Phase::Ended => request.reply_decided(false),
            _ => {
                self.end(request.end.clone());
                self.arm(ctx);
                request.reply_decided(true);
            }
        }
    }
}

impl Handler<EndRefused> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: EndRefused, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: EndRefused");
        if let Phase::EndPending(end, Some(watch)) =
            std::mem::replace(&mut self.phase, Phase::Ended)
        {
            tracing::debug!(task = %self.task.id, outcome = ?end.outcome, "run continues: its session has dependents");
            self.phase = Phase::Watching(watch);
            self.decided_end = None;
            self.calls_allowed.store(true, Ordering::Release);
            if !self.end_requests.is_empty() {
                let first = self.end_requests.remove(0);
                self.end(first.end.clone());
                first.reply_decided(true);
            }
        }
        self.arm(ctx);
    }
}

impl Handler<EndAccepted> for TaskActor {
    type Result = ();

    fn handle(&mut self, accepted: EndAccepted, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: EndAccepted");
        let Phase::EndPending(end, _) = std::mem::replace(&mut self.phase, Phase::Ended) else {
            return;
        };
        for request in self.end_requests.drain(..) {
            request.reply_decided(false);
        }
        self.permit = None;
        self.arm(ctx);
        let ticket = accepted.0;
        match self.session.clone().filter(|_| end.abort_session) {
            Some(session) => {
                let ticket = Arc::new(ticket);
                let aborted = self.aborted(session, ticket.superseded());
                let prompts = self.prompts_in_flight;
                aborted.open.fetch_add(prompts, Ordering::AcqRel);
                self.aborting = Some(Box::new(aborted.clone()));
                if self.prompts_in_flight > 0 && self.env.config.lifecycle.look_after_abort {
                    // A late prompt can make the session busy again: a resume waits for its answer too, up to a limit.
                    self.late_prompt = Some(Arc::clone(&ticket));
                    ctx.notify_later(LatePromptGivenUp, self.env.config.calls.other);
                }
                abort_session(&self.env, aborted, Some(ticket));
            }
            None if self.create_in_flight => self.late_abort = Some(ticket),
            None => ticket.not_needed(),
        }
    }
}

impl Handler<CutOffAccepted> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: CutOffAccepted, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: CutOffAccepted");
        if matches!(self.phase, Phase::CutOff(..)) {
            self.phase = Phase::Ended;
            self.permit = None;
            self.arm(ctx);
        }
    }
}

impl Handler<Detach> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: Detach, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: LetGo");
        if matches!(self.phase, Phase::EndPending(..) | Phase::Ended) {
            return;
        }
        self.phase = Phase::Ended;
        self.detached = true;
        self.next_step = None;
        self.permit = None;
        self.calls_allowed.store(false, Ordering::Release);
        self.arm(ctx);
    }
}

impl Handler<RegistryRestarted> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: RegistryRestarted, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: RegistryUp");
        match &self.phase {
            Phase::Starting => {}
            Phase::Started => self.report_started(),
            Phase::Watching(_) => {
                if self.prompting.is_none() {
                    self.report_prompted();
                }
                self.report_changed();
                if matches!(&self.phase, Phase::Watching(watch) if watch.is_abort_pending()) {
                    self.report_aborted();
                }
                // If the slot manager panicked just before the registry, its restart was not reported to this actor.
                self.retake_lost_slot(ctx);
            }
            Phase::CutOff(..) => self.report_cut_off(),
            Phase::EndPending(..) | Phase::Ended => self.report_end(),
        }
    }
}
