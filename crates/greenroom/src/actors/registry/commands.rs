//! What callers order of a task: cancel it, send it a further prompt; and what a session's newest task does to an older
//! one.

use actix::{Context, Handler, Message};
use tokio::sync::oneshot;

use super::{Query, TaskRegistry};
use crate::actors::task::{EndRun, SendFailure, SendPrompt};
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::lifecycle::End;
use crate::domain::task::Task;
use crate::handle::{CancelOptions, CancelScope};
use crate::maps::Set;

/// Cancels one task.
#[derive(Clone)]
pub(crate) struct CancelTask {
    pub(crate) task: TaskId,
    pub(crate) options: CancelOptions,
}

/// What came of a cancel.
pub(crate) enum CancelAnswer {
    Unknown,
    NotCancellable(Box<Task>),
    Cancelled(Box<Task>),
    /// Its run decides: true if it had not ended.
    Asked(oneshot::Receiver<bool>),
}

impl Query for CancelTask {
    type Answer = CancelAnswer;
    const DECIDES: bool = true;

    fn answer(self, registry: &mut TaskRegistry, ctx: &mut Context<TaskRegistry>) -> CancelAnswer {
        let Some(entry) = registry.tasks.get(&self.task) else {
            let left = registry.env.journal.find(self.task.as_str());
            return left.map_or(CancelAnswer::Unknown, |task| {
                CancelAnswer::NotCancellable(Box::new(task))
            });
        };
        let task = Task::clone(&entry.task);
        if task.status().is_terminal() || (self.options.only_pending && entry.queued.is_none()) {
            return CancelAnswer::NotCancellable(Box::new(task));
        }
        tracing::info!(task = %self.task, source = %self.options.source, "cancel");
        let mut end = End::cancelled(self.options.reason);
        end.abort_session = self.options.abort_session;
        end.skip_notification = self.options.skip_notification;
        match registry.request_end(&self.task, end, ctx) {
            Some(decided) => CancelAnswer::Asked(decided),
            None => match registry.tasks.get(&self.task) {
                Some(entry) => CancelAnswer::Cancelled(Box::new(Task::clone(&entry.task))),
                None => CancelAnswer::Unknown,
            },
        }
    }
}

impl Query for CancelScope {
    type Answer = Vec<TaskId>;

    /// The open tasks of the scope, oldest first.
    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Vec<TaskId> {
        let mut ids = match self {
            CancelScope::All => registry.by_acceptance.values().cloned().collect(),
            CancelScope::Descendants(session) => registry.below(&session),
            CancelScope::Tree(task) => {
                let session = registry.owned_session(&task).cloned();
                let mut ids = vec![task];
                ids.extend(
                    session
                        .map(|session| registry.below(&session))
                        .unwrap_or_default(),
                );
                ids
            }
        };
        ids.retain(|id| {
            registry
                .tasks
                .get(id)
                .is_some_and(|entry| !entry.task.status().is_terminal())
        });
        ids
    }
}

/// The end of a task whose session a newer one has claimed: the session goes on.
pub(super) fn superseded_by(newest: &TaskId) -> End {
    let mut end = End::cancelled(Some(format!("Session taken over by {newest}")));
    end.abort_session = false;
    end
}

impl TaskRegistry {
    /// Ends a task by order. One that waits is ended here and now; one with an actor is asked, and the answer says
    /// whether it had not ended by itself.
    pub(super) fn request_end(
        &mut self,
        id: &TaskId,
        end: End,
        ctx: &mut Context<Self>,
    ) -> Option<oneshot::Receiver<bool>> {
        let entry = self.tasks.get_mut(id)?;
        match &entry.actor {
            Some(actor) => {
                // In case it dies before it hears of it.
                entry
                    .requested_end
                    .get_or_insert_with(|| Box::new(end.clone()));
                let (reply, decided) = oneshot::channel();
                actor.do_send(EndRun {
                    end,
                    reply: Some(reply),
                });
                Some(decided)
            }
            None => {
                let run = entry.task.run;
                self.finalise(id, run, &end, None, ctx);
                None
            }
        }
    }

    /// The newest task wins a session that two claim.
    pub(super) fn supersede_older(&mut self, session: &SessionId, newest: &TaskId) {
        let Some(older) = self
            .by_session
            .get(session)
            .filter(|older| *older != newest)
        else {
            return;
        };
        let Some(entry) = self.tasks.get_mut(older) else {
            return;
        };
        // An abort of the older one's that is still being looked after must not reach the newer.
        entry
            .superseded
            .store(true, std::sync::atomic::Ordering::Release);
        let end = superseded_by(newest);
        match &entry.actor {
            Some(actor) => {
                // In case it dies before it hears of it.
                entry
                    .requested_end
                    .get_or_insert_with(|| Box::new(end.clone()));
                actor.do_send(EndRun { end, reply: None });
            }
            None => {
                self.refs.registry.send(EndRequested {
                    task: older.clone(),
                    end,
                });
            }
        }
    }

    /// The task that has claimed this session since that one was accepted, if it is open.
    pub(super) fn claimant_after(&self, task: &TaskId, session: &SessionId) -> Option<TaskId> {
        let claimant = self.by_session.get(session)?;
        let (newer, older) = (self.tasks.get(claimant)?, self.tasks.get(task)?);
        let open = !newer.task.status().is_terminal();
        (open && newer.accepted > older.accepted).then(|| claimant.clone())
    }

    /// The task that has claimed the session of that one since, if that one is open: whoever was to end it has died.
    pub(super) fn newer_claimant(&self, id: &TaskId) -> Option<TaskId> {
        let task = &self.tasks.get(id)?.task;
        let claimant = self.by_session.get(task.session.as_ref()?)?;
        (!task.status().is_terminal() && claimant != id).then(|| claimant.clone())
    }

    /// The session of a task, unless a newer task has it now: what is below it is below that one then.
    pub(super) fn owned_session(&self, id: &TaskId) -> Option<&SessionId> {
        let session = self.tasks.get(id)?.task.session.as_ref()?;
        (self.by_session.get(session) == Some(id)).then_some(session)
    }

    /// The tasks below a session, depth first, parents before children, each once.
    pub(super) fn below(&self, session: &SessionId) -> Vec<TaskId> {
        let mut found = Vec::new();
        let mut seen = Set::from_iter([session.clone()]);
        let mut stack: Vec<TaskId> = self.children_of(session).into_iter().rev().collect();
        while let Some(id) = stack.pop() {
            let below = self.owned_session(&id).cloned();
            found.push(id);
            if let Some(below) = below.filter(|below| seen.insert(below.clone())) {
                stack.extend(self.children_of(&below).into_iter().rev());
            }
        }
        found
    }

    pub(super) fn children_of(&self, session: &SessionId) -> Vec<TaskId> {
        let seqs = self.children.get(session).into_iter().flatten();
        seqs.filter_map(|queue_seq| self.by_acceptance.get(queue_seq).cloned())
            .collect()
    }
}

/// Ends a waiting task from a place that has no context.
#[derive(Message)]
#[rtype(result = "()")]
struct EndRequested {
    task: TaskId,
    end: End,
}

impl Handler<EndRequested> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, order: EndRequested, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: EndByOrder");
        self.request_end(&order.task, order.end, ctx);
    }
}

/// Sends a running task a further prompt.
pub(crate) struct SendTo {
    pub(crate) task: TaskId,
    pub(crate) prompt: String,
}

impl Query for SendTo {
    /// None if there is no such task; the answer comes from its run.
    type Answer = Option<(
        Box<Task>,
        Option<oneshot::Receiver<Result<(), SendFailure>>>,
    )>;

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Self::Answer {
        let Some(entry) = registry.tasks.get(&self.task) else {
            let left = registry.env.journal.find(self.task.as_str())?;
            return Some((Box::new(left), None));
        };
        let sent = entry.actor.as_ref().map(|actor| {
            let (reply, answer) = oneshot::channel();
            actor.do_send(SendPrompt {
                text: self.prompt,
                reply,
            });
            answer
        });
        Some((Box::new(Task::clone(&entry.task)), sent))
    }
}
