//! Shutdown: no task is accepted or started, running tasks are ended and their aborts awaited, messages in flight may finish
//! and no other is sent. Memory is empty afterwards.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};
use tokio::sync::oneshot;

use super::TaskRegistry;
use crate::actors::parent_notifier::Stop;
use crate::actors::slot_manager::SetOpen;
use crate::actors::task::Detach;
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::lifecycle::End;
use crate::handle::{ShutdownMode, ShutdownReport};

/// The time limit for aborts.
const ABORTS: Duration = Duration::from_secs(10);
/// The time limit for messages in flight.
const MESSAGES: Duration = Duration::from_secs(5);

/// Shuts the system down, in the mode of the runtime flags; answered when the shutdown is complete.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Shutdown {
    pub(crate) reply: oneshot::Sender<ShutdownReport>,
}

/// A shutdown in progress, or complete.
#[derive(Default)]
pub(crate) struct Closing {
    replies: Vec<oneshot::Sender<ShutdownReport>>,
    report: ShutdownReport,
    messages: usize,
    /// True if tasks keep their states and sessions go on.
    detach: bool,
    done: bool,
}

#[derive(Message)]
#[rtype(result = "()")]
struct MessageDone {
    parent: SessionId,
    has_pending: bool,
}

#[derive(Message)]
#[rtype(result = "()")]
struct MessagesGivenUp;

#[derive(Message)]
#[rtype(result = "()")]
struct AbortsGivenUp;

impl TaskRegistry {
    /// Returns true once a shutdown is requested, also after a restart of the registry.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some() || self.refs.flags.closing()
    }

    pub(super) fn begin_closing(
        &mut self,
        reply: Option<oneshot::Sender<ShutdownReport>>,
        ctx: &mut Context<Self>,
    ) {
        self.closing = Some(Closing {
            replies: reply.into_iter().collect(),
            detach: self.refs.flags.closing_mode() == Some(ShutdownMode::Detach),
            ..Closing::default()
        });
        self.close(ctx);
    }

    fn close(&mut self, ctx: &mut Context<Self>) {
        self.refs.slots.send(SetOpen(false));
        self.server_waits.clear();
        let registry = self.refs.registry.clone();
        let mut messages = 0;
        for (parent, known) in &self.parents {
            let (done, stopped) = oneshot::channel();
            known.notifier.do_send(Stop { done });
            let (registry, parent) = (registry.clone(), parent.clone());
            messages += 1;
            actix_rt::spawn(async move {
                let has_pending = stopped.await.unwrap_or(true);
                registry.send(MessageDone {
                    parent,
                    has_pending,
                });
            });
        }
        if let Some(closing) = &mut self.closing {
            closing.messages = messages;
        }
        let open: Vec<TaskId> = self
            .by_acceptance
            .values()
            .filter(|id| {
                self.tasks
                    .get(id)
                    .is_some_and(|entry| !entry.task.status().is_terminal())
            })
            .cloned()
            .collect();
        for id in open {
            if self.closing.as_ref().is_some_and(|closing| closing.detach) {
                self.detached(&id, ctx);
                continue;
            }
            // The parent of this batch gets no message about the end.
            let unnotified = self.tasks.get(&id).and_then(|entry| entry.batch.clone());
            if let Some(closing) = &mut self.closing {
                closing.report.cancelled.push(id.clone());
                if let Some(parent) = unnotified
                    && !closing.report.unnotified.contains(&parent)
                {
                    closing.report.unnotified.push(parent);
                }
            }
            self.request_end(&id, End::cancelled(Some("Shutdown".to_owned())), ctx);
        }
        ctx.notify_later(MessagesGivenUp, MESSAGES);
        ctx.notify_later(AbortsGivenUp, ABORTS);
        // The reports of ended runs arrive after this message; the check follows them.
        ctx.notify(AbortsCheck);
    }

    /// Detaches a task: its record stays, no further call is made for it, and its session goes on.
    fn detached(&mut self, id: &TaskId, ctx: &mut Context<Self>) {
        self.withdraw(id, false, ctx);
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.granted = None;
            if let Some(actor) = entry.actor.take() {
                actor.do_send(Detach);
            }
        }
        if let Some(closing) = &mut self.closing {
            closing.report.detached.push(id.clone());
        }
    }

    /// Completes the shutdown if every run has ended, every abort is answered and no message is in flight.
    pub(super) fn finish_if_closed(&mut self) {
        let open = self
            .tasks
            .values()
            .any(|entry| !entry.task.status().is_terminal());
        let Some(closing) = &mut self.closing else {
            return;
        };
        let open = open && !closing.detach;
        if closing.done || open || closing.messages > 0 || !self.refs.aborts.is_empty() {
            return;
        }
        if !self.env.pending_publications.is_empty() {
            // The ends must be published before the subscribers are closed.
            return;
        }
        self.finish();
    }

    fn finish(&mut self) {
        let Some(closing) = &mut self.closing else {
            return;
        };
        closing.done = true;
        // With a persistent journal the next process sends the messages.
        let unnotified = &closing.report.unnotified;
        for parent in unnotified
            .iter()
            .filter(|_| !self.env.journal.is_persistent())
        {
            tracing::warn!(parent = %parent, "parent was not notified of the end of its background tasks");
        }
        // The report is sent once: later callers get an empty one. Without a caller it is kept for the first.
        if !closing.replies.is_empty() {
            let report = std::mem::take(&mut closing.report);
            for reply in closing.replies.drain(..) {
                // The caller may have been dropped.
                let _ = reply.send(report.clone());
            }
        }
        self.env.shut_down.store(true, Ordering::Release);
        self.tasks.clear();
        self.by_acceptance.clear();
        self.by_session.clear();
        self.children.clear();
        self.open_children.clear();
        self.wait_queues.clear();
        self.waiting = 0;
        self.waiting_bytes = 0;
        self.parents.clear();
        self.deadlines.clear();
        self.refs.aborts.clear();
        self.refs.tasks.clear();
        self.refs.notifiers.clear();
        self.timer = None;
        self.refs.poller.clear();
        self.refs.toaster.clear();
        self.refs.slots.clear();
        // The registry drops the reference to itself: it ends when the last handle is dropped, and histories stay readable
        // until then.
        self.refs.registry = Default::default();
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct AbortsCheck;

impl Handler<AbortsCheck> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, _: AbortsCheck, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: Look");
        self.finish_if_closed();
    }
}

impl Handler<Shutdown> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, shutdown: Shutdown, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: Shutdown");
        match &mut self.closing {
            Some(closing) if closing.done => {
                // The caller may have been dropped.
                let _ = shutdown.reply.send(std::mem::take(&mut closing.report));
            }
            Some(closing) => closing.replies.push(shutdown.reply),
            None => self.begin_closing(Some(shutdown.reply), ctx),
        }
    }
}

impl Handler<MessageDone> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, done: MessageDone, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: MessageDone");
        if let Some(closing) = &mut self.closing {
            closing.messages = closing.messages.saturating_sub(1);
            if done.has_pending && !closing.report.unnotified.contains(&done.parent) {
                closing.report.unnotified.push(done.parent);
            }
        }
        self.finish_if_closed();
    }
}

impl Handler<MessagesGivenUp> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, _: MessagesGivenUp, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: MessagesGivenUp");
        if let Some(closing) = &mut self.closing {
            closing.messages = 0;
        }
        self.finish_if_closed();
    }
}

impl Handler<AbortsGivenUp> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, _: AbortsGivenUp, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: AbortsGivenUp");
        if self.closing.as_ref().is_some_and(|closing| !closing.done) {
            tracing::warn!(
                aborts = self.refs.aborts.len(),
                "aborts were not answered in time"
            );
            self.finish();
        }
    }
}
