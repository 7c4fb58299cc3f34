//! Open requests of children: listed over all running tasks, and removed from the record as soon as the server has accepted
//! an answer, before the server's event arrives.

use actix::Context;

use super::{Query, TaskRegistry};
use crate::actors::task::SessionEventReceived;
use crate::domain::ids::{Run, SessionId, TaskId};
use crate::domain::session_event::SessionEventKind;
use crate::domain::task::{Asking, Task};
use crate::handle::OpenAsk;

/// Lists every open request, oldest first.
#[derive(Clone)]
pub(crate) struct ListAsks;

impl Query for ListAsks {
    type Answer = Vec<OpenAsk>;

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Vec<OpenAsk> {
        let limit = registry.env.config.lifecycle.ask_timeout;
        let tasks = registry.tasks.values().map(|entry| &entry.task);
        let mut asks: Vec<OpenAsk> = tasks
            .flat_map(|task| task.asking.iter().map(move |ask| (task, ask)))
            .filter_map(|(task, ask)| {
                Some(OpenAsk {
                    ask: ask.clone(),
                    task: task.id.clone(),
                    session: task.session.clone()?,
                    parent_session: task.parent_session.clone(),
                    description: task.description.clone(),
                    agent: task.agent.clone(),
                    rejected_at: ask.since + limit,
                })
            })
            .collect();
        asks.sort_by(|a, b| (a.ask.since, &a.ask.id).cmp(&(b.ask.since, &b.ask.id)));
        asks
    }
}

/// Finds the run of an open request.
#[derive(Clone)]
pub(crate) struct FindAsk(pub(crate) String);

/// A request and the run that waits for it.
pub(crate) struct FoundAsk {
    pub(crate) ask: Asking,
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) session: SessionId,
}

impl Query for FindAsk {
    type Answer = Option<FoundAsk>;

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Self::Answer {
        let tasks = registry.tasks.values().map(|entry| &entry.task);
        let (task, ask) = tasks
            .flat_map(|task| task.asking.iter().map(move |ask| (task, ask)))
            .find(|(_, ask)| ask.id == self.0)?;
        Some(FoundAsk {
            ask: ask.clone(),
            task: task.id.clone(),
            run: task.run,
            session: task.session.clone()?,
        })
    }
}

/// Removes a request that was answered, or that the server does not know any more. The answer is the task.
#[derive(Clone)]
pub(crate) struct AskGone {
    pub(crate) ask: String,
    pub(crate) task: TaskId,
    pub(crate) run: Run,
}

impl Query for AskGone {
    type Answer = Option<Task>;

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Option<Task> {
        let AskGone { ask, task, run } = self;
        let entry = registry.tasks.get_mut(&task)?;
        if entry.task.run == run {
            entry.task_mut().asking.retain(|asking| asking.id != ask);
            if let Some(actor) = &entry.actor {
                let (kind, at) = (SessionEventKind::Answered { id: ask }, registry.env.now());
                actor.do_send(SessionEventReceived { kind, at });
            }
        }
        Some(Task::clone(&entry.task))
    }
}
