//! The end of a run, seen from its actor: decided here or by order, recorded by the registry, and only then is the slot
//! given back and the session aborted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::{AsyncContext, Context, Handler};

use super::abort::{Aborted, abort_session};
use super::messages::LatePromptGivenUp;
use super::{Detach, EndAccepted, EndRefused, EndRun, Phase, RegistryRestarted, TaskActor};
use crate::actors::registry::RunEnded;
use crate::domain::ids::SessionId;
use crate::domain::lifecycle::End;

impl TaskActor {
    /// Decides the end. The registry records it; until then nothing else is decided.
    pub(super) fn end(&mut self, end: End, _ctx: &mut Context<Self>) {
        let watch = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Watching(watch) => Some(watch),
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
        self.ended = Some(Box::new((end, snapshot, self.env.now())));
        self.report_end();
    }

    /// Tells the registry of the end that was decided, if one was.
    fn report_end(&self) {
        if let Some((end, snapshot, at)) = self.ended.as_deref().cloned() {
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

    /// A session that nobody asked for any more: it was created for a run that has ended meanwhile.
    pub(super) fn abort_late(&mut self, session: SessionId) {
        if self.detached {
            // The next start finds it.
            return;
        }
        let aborted = self.aborted(session, Arc::default());
        abort_session(&self.env, aborted, self.late_abort.take().map(Arc::new));
    }

    fn aborted(&self, session: SessionId, superseded: Arc<AtomicBool>) -> Aborted {
        Aborted {
            session,
            directory: self.directory.clone(),
            run: (self.task.id.clone(), self.run),
            superseded,
            registry: self.registry.clone(),
        }
    }

    /// The create of a run that has ended failed after all: there is nothing to abort.
    pub(super) fn late_create_failed(&mut self) {
        if let Some(ticket) = self.late_abort.take() {
            ticket.not_needed();
        }
    }

    /// A prompt of this run is answered. Where the run has ended meanwhile, it may have reached the session after the
    /// abort: the session is aborted again, and whoever waits for the abort waits for this one too.
    pub(super) fn prompt_finished(&mut self, arrived: bool) {
        self.prompts_in_flight = self.prompts_in_flight.saturating_sub(1);
        let ticket = match self.prompts_in_flight {
            0 => self.late_prompt.take(),
            _ => self.late_prompt.clone(),
        };
        // Where nobody looks after an abort, nobody repeats one either.
        let calls_allowed = arrived && self.env.config.lifecycle.look_after_abort;
        if let (true, Phase::Ended, Some(aborted)) = (calls_allowed, &self.phase, &self.aborting)
            && !aborted.superseded.load(Ordering::Acquire)
        {
            abort_session(&self.env, Aborted::clone(aborted), ticket);
        }
    }
}

impl Handler<LatePromptGivenUp> for TaskActor {
    type Result = ();

    fn handle(&mut self, _: LatePromptGivenUp, _: &mut Context<Self>) {
        self.env.failpoints.hit("task: LatePromptGivenUp");
        // Nobody waits for it any longer; if it comes all the same, the session is still aborted again.
        self.late_prompt = None;
    }
}

impl Handler<EndRun> for TaskActor {
    type Result = ();

    fn handle(&mut self, request: EndRun, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: EndRun");
        match self.phase {
            // Where its own end is refused, the first of these holds.
            Phase::EndPending(..) => self.end_requests.push(request),
            Phase::Ended => request.reply_decided(false),
            _ => {
                self.end(request.end.clone(), ctx);
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
            tracing::debug!(task = %self.task.id, outcome = ?end.outcome, "goes on: something depends on its session");
            self.phase = Phase::Watching(watch);
            self.ended = None;
            self.calls_allowed.store(true, Ordering::Release);
            if !self.end_requests.is_empty() {
                let first = self.end_requests.remove(0);
                self.end(first.end.clone(), ctx);
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
                self.aborting = Some(Box::new(aborted.clone()));
                if self.prompts_in_flight > 0 && self.env.config.lifecycle.look_after_abort {
                    // It may set the session to work once more: a resume waits for that too, a while.
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
                // A manager that died just before the registry is followed by one that nobody was told of.
                self.retake_lost_slot(ctx);
            }
            Phase::EndPending(..) | Phase::Ended => self.report_end(),
        }
    }
}
