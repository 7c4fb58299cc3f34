//! Commands for tasks: cancel and further prompts. Also the takeover of a session by a newer task.

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

/// The result of a cancel.
pub(crate) enum CancelAnswer {
    Unknown,
    NotCancellable(Box<Task>),
    Cancelled(Box<Task>),
    /// The run decides: it sends true if it had not ended before.
    Undecided(oneshot::Receiver<bool>),
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
        if task.status().is_terminal()
            || (self.options.only_pending
                && entry.queued.is_none()
                && registry.awaited_directory(&self.task).is_none())
        {
            return CancelAnswer::NotCancellable(Box::new(task));
        }
        tracing::info!(task = %self.task, source = %self.options.source, "cancel requested");
        let mut end = End::cancelled(self.options.reason);
        end.abort_session = self.options.abort_session;
        end.skip_notification = self.options.skip_notification;
        match registry.request_end(&self.task, end, ctx) {
            Some(decided) => CancelAnswer::Undecided(decided),
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

/// Returns the end of a task whose session a newer task has claimed: the session is not aborted.
pub(super) fn superseded_by(newest: &TaskId) -> End {
    let mut end = End::cancelled(Some(format!("Session taken over by {newest}")));
    end.abort_session = false;
    end
}

impl TaskRegistry {
    /// Ends a task on request. A waiting task ends at once. For a running task the request goes to its actor, and the
    /// receiver gets true if the run ends by it.
    pub(super) fn request_end(
        &mut self,
        id: &TaskId,
        end: End,
        ctx: &mut Context<Self>,
    ) -> Option<oneshot::Receiver<bool>> {
        let entry = self.tasks.get_mut(id)?;
        match &entry.actor {
            Some(actor) => {
                // Kept in case the actor panics before it handles the request.
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

    /// Ends the older task of a session that a newer task claims.
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
        // A pending abort of the older task must not stop the newer one.
        entry
            .superseded
            .store(true, std::sync::atomic::Ordering::Release);
        let end = superseded_by(newest);
        match &entry.actor {
            Some(actor) => {
                // Kept in case the actor panics before it handles the request.
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

    /// Returns the open task that has claimed this session after `task` was accepted.
    pub(super) fn claimant_after(&self, task: &TaskId, session: &SessionId) -> Option<TaskId> {
        let claimant = self.by_session.get(session)?;
        let (newer, older) = (self.tasks.get(claimant)?, self.tasks.get(task)?);
        let open = !newer.task.status().is_terminal();
        (open && newer.accepted > older.accepted).then(|| claimant.clone())
    }

    /// Returns the task that has claimed the session of an open task since: the request to end the older one was lost in a
    /// restart.
    pub(super) fn newer_claimant(&self, id: &TaskId) -> Option<TaskId> {
        let task = &self.tasks.get(id)?.task;
        let claimant = self.by_session.get(task.session.as_ref()?)?;
        (!task.status().is_terminal() && claimant != id).then(|| claimant.clone())
    }

    /// Returns the session of a task, unless a newer task has claimed it: the tasks below belong to the newer one then.
    pub(super) fn owned_session(&self, id: &TaskId) -> Option<&SessionId> {
        let session = self.tasks.get(id)?.task.session.as_ref()?;
        (self.by_session.get(session) == Some(id)).then_some(session)
    }

    /// Returns the tasks below a session, depth first, parents before children, each once.
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

/// Ends a waiting task from a method without a context.
#[derive(Message)]
#[rtype(result = "()")]
struct EndRequested {
    task: TaskId,
    end: End,
}

impl Handler<EndRequested> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, request: EndRequested, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: EndByOrder");
        self.request_end(&request.task, request.end, ctx);
    }
}

/// Sends a running task a further prompt.
pub(crate) struct SendTo {
    pub(crate) task: TaskId,
    pub(crate) prompt: String,
}

impl Query for SendTo {
    /// None if the task is unknown. The receiver gets the answer of the run, if the task is running.
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
