//! The end of a run, seen from its actor: decided here or by order, recorded by the registry, and only then is the slot
//! given back and the session aborted.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::{Context, Handler};

use super::abort::abort_session;
use super::{EndAccepted, EndRefused, EndRun, Phase, TaskActor};
use crate::actors::registry::{AbortDone, RunEnded};
use crate::domain::ids::SessionId;
use crate::domain::lifecycle::End;

impl TaskActor {
    /// Decides the end. The registry records it; until then nothing else is decided.
    pub(super) fn end(&mut self, end: End, _ctx: &mut Context<Self>) {
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

    /// A session that nobody asked for any more: it was created for a run that has ended meanwhile.
    pub(super) fn abort_late(&mut self, session: SessionId) {
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
    pub(super) fn nothing_came(&mut self) {
        if let Some(done) = self.late_done.take() {
            self.registry.send(done);
        }
    }
}

impl Handler<EndRun> for TaskActor {
    type Result = ();

    fn handle(&mut self, order: EndRun, ctx: &mut Context<Self>) {
        self.env.places.pass("task: EndRun");
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
        self.env.places.pass("task: EndRefused");
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
        self.env.places.pass("task: EndAccepted");
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
