//! The queries of readers. Returned records are snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Context, Handler, Message};
use tokio::sync::oneshot;

use super::{Query, TaskRegistry, Waiter};
use crate::config::Limits;
use crate::domain::history::HistoryEntry;
use crate::domain::ids::{ConcurrencyKey, Run, SessionId, TaskId};
use crate::domain::task::{Task, TaskStatus};
use crate::domain::time::Timestamp;
use crate::handle::{
    LimitsChange, ListFilter, NoticeRecord, Readiness, TaskCounts, TaskPage, WaitFor,
};

/// Finds a task by its id, a unique prefix of its id, or its session.
#[derive(Clone)]
pub(crate) struct Find(pub(crate) String);

/// A found task, and its position in the wait queue if it waits.
#[derive(Debug, Clone)]
pub(crate) struct FoundTask {
    pub(crate) task: Task,
    pub(crate) place: Option<usize>,
    /// The directory whose server the task waits for, because it was cut off.
    pub(crate) awaited_directory: Option<Arc<str>>,
    pub(crate) reachable: bool,
}

impl Query for Find {
    type Answer = Option<FoundTask>;

    fn answer(
        self,
        registry: &mut TaskRegistry,
        _: &mut Context<TaskRegistry>,
    ) -> Option<FoundTask> {
        // An exact id of a task removed from memory comes before the prefix of another.
        let exact = |name: &str| {
            registry
                .env
                .journal
                .find(name)
                .filter(|task| task.id.as_str() == name)
        };
        let found = registry.find(&self.0);
        let left = match &found {
            Some(id) if id.as_str() == self.0 => None,
            _ => exact(&self.0),
        };
        if let Some(task) = left {
            return Some(FoundTask {
                task,
                place: None,
                awaited_directory: None,
                reachable: registry.reachable,
            });
        }
        let Some(id) = found else {
            // The task may be in the journal only. A prefix that matches several tasks is ambiguous.
            if registry
                .by_acceptance
                .values()
                .any(|id| id.as_str().starts_with(&self.0))
            {
                return None;
            }
            let task = registry.env.journal.find(&self.0)?;
            return Some(FoundTask {
                task,
                place: None,
                awaited_directory: None,
                reachable: registry.reachable,
            });
        };
        let entry = registry.tasks.get(&id)?;
        let place = entry.queued.and_then(|queue_seq| {
            let wait_queue = registry.wait_queues.get(&entry.task.concurrency_group)?;
            Some(wait_queue.waiting.range(..=queue_seq).count())
        });
        Some(FoundTask {
            task: entry.as_published()?.clone(),
            place,
            awaited_directory: registry.awaited_directory(&id),
            reachable: registry.reachable,
        })
    }
}

impl TaskRegistry {
    fn find(&self, name: &str) -> Option<TaskId> {
        let exact = TaskId::new(name);
        if self.tasks.contains_key(&exact) {
            return Some(exact);
        }
        if let Some(id) = self.by_session.get(&SessionId::new(name)) {
            return Some(id.clone());
        }
        if name.len() < crate::ports::journal::MIN_PREFIX_LEN {
            return None;
        }
        let mut fitting = self
            .by_acceptance
            .values()
            .filter(|id| id.as_str().starts_with(name));
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Some(only.clone()),
            _ => None,
        }
    }
}

/// Finds a task by its id in its newest state, also one that is not published yet; answered once that is durable.
#[derive(Clone)]
pub(crate) struct FindDecided(pub(crate) TaskId);

impl Query for FindDecided {
    type Answer = Option<Task>;
    const DECIDES: bool = true;

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Option<Task> {
        registry.load_task(&self.0)
    }
}

/// Lists a page of tasks, newest first.
#[derive(Clone)]
pub(crate) struct ListTasks(pub(crate) ListFilter);

impl Query for ListTasks {
    type Answer = TaskPage;

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> TaskPage {
        let filter = self.0;
        let limit = filter.limit.unwrap_or(100).clamp(1, 1000);
        let before = filter
            .cursor
            .as_deref()
            .and_then(|cursor| cursor.parse().ok())
            .unwrap_or(u64::MAX);
        let mut tasks = Vec::new();
        let mut last = None;
        let mut more = false;
        for (queue_seq, id) in registry.by_acceptance.range(..before).rev() {
            let Some(entry) = registry.tasks.get(id) else {
                continue;
            };
            let Some(task) = entry.as_published() else {
                continue;
            };
            let fits = (filter.statuses.is_empty() || filter.statuses.contains(&task.status()))
                && filter
                    .parent_session
                    .as_ref()
                    .is_none_or(|parent| task.parent_session.as_ref() == Some(parent))
                && filter
                    .agent
                    .as_ref()
                    .is_none_or(|agent| *task.agent == **agent);
            if !fits {
                continue;
            }
            if tasks.len() == limit {
                more = true;
                break;
            }
            tasks.push(task.clone());
            last = Some(*queue_seq);
        }
        TaskPage {
            tasks,
            next_cursor: last.filter(|_| more).map(|queue_seq| queue_seq.to_string()),
        }
    }
}

/// Lists the tasks whose parent is a session.
#[derive(Clone)]
pub(crate) struct TasksOf(pub(crate) SessionId);

impl Query for TasksOf {
    type Answer = Vec<Task>;

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Vec<Task> {
        let ids = registry.children_of(&self.0);
        ids.iter()
            .filter_map(|id| registry.tasks.get(id)?.as_published().cloned())
            .collect()
    }
}

/// Lists the tasks below a session.
#[derive(Clone)]
pub(crate) struct Descendants(pub(crate) SessionId);

impl Query for Descendants {
    type Answer = Vec<Task>;

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Vec<Task> {
        let ids = registry.below(&self.0);
        ids.iter()
            .filter_map(|id| registry.tasks.get(id)?.as_published().cloned())
            .collect()
    }
}

/// Reads a parent's history and its messages, pending and delivered.
#[derive(Clone)]
pub(crate) struct ReadHistory(pub(crate) SessionId);

impl Query for ReadHistory {
    type Answer = (Vec<HistoryEntry>, Vec<NoticeRecord>);

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Self::Answer {
        let history = registry.histories.of(&self.0);
        let entries = history
            .map(|history| history.entries().cloned().collect())
            .unwrap_or_default();
        let outbox = registry.env.journal.outbox(&self.0);
        let messages = outbox.map(|outbox| outbox.messages).unwrap_or_default();
        let notices = messages.into_iter().rev().map(NoticeRecord::new);
        (entries, notices.collect())
    }
}

/// Reads the waiting runs by key.
#[derive(Clone)]
pub(crate) struct ReadWaits;

/// The number of runs that wait for a key, and since when the oldest waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyWait {
    pub(crate) waiting: usize,
    pub(crate) oldest: Option<Timestamp>,
}

impl Query for ReadWaits {
    type Answer = (BTreeMap<ConcurrencyKey, KeyWait>, Timestamp);

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Self::Answer {
        let waits = registry.wait_queues.iter().map(|(key, wait_queue)| {
            let oldest = wait_queue
                .waiting
                .values()
                .next()
                .and_then(|id| Some(registry.tasks.get(id)?.task.queued_at));
            (
                key.clone(),
                KeyWait {
                    waiting: wait_queue.waiting.len(),
                    oldest,
                },
            )
        });
        (waits.collect(), registry.env.now())
    }
}

impl Query for LimitsChange {
    type Answer = Limits;

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Limits {
        let configured = registry.env.config.limits.clone();
        let limits = &mut registry.limits;
        if let Some(default) = self.default {
            limits.default = default.unwrap_or(configured.default);
        }
        if let Some(max) = self.max {
            limits.max = max.unwrap_or(configured.max);
        }
        for (table, changes) in [
            (&mut limits.providers, self.providers),
            (&mut limits.models, self.models),
        ] {
            for (key, limit) in changes {
                match limit {
                    Some(limit) => table.insert(key, limit),
                    None => table.remove(&key),
                };
            }
        }
        registry
            .refs
            .slots
            .send(crate::actors::slot_manager::SetLimits(limits.clone()));
        registry.refs.flags.set_limits(limits.clone());
        limits.clone()
    }
}

/// Counts the tasks by state and key, the open requests and the parents with pending messages.
#[derive(Clone)]
pub(crate) struct CountTasks;

impl Query for CountTasks {
    type Answer = TaskCounts;

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> TaskCounts {
        let mut counts = TaskCounts::default();
        for task in registry
            .tasks
            .values()
            .filter_map(|entry| entry.as_published())
        {
            let key = (task.status(), task.concurrency_group.clone());
            *counts.tasks.entry(key).or_default() += 1;
            counts.asks += task.asking.len();
        }
        let pending = registry
            .parents
            .values()
            .filter(|parent| parent.has_pending);
        counts.parents_pending = pending.count();
        counts
    }
}

/// Waits until a run has reached a state; answered then.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct WaitForRun {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) until: WaitFor,
    pub(crate) reply: oneshot::Sender<Option<Task>>,
}

impl Handler<WaitForRun> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, wait: WaitForRun, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: WaitForRun");
        let WaitForRun {
            task,
            run,
            until,
            reply,
        } = wait;
        let Some(entry) = self.tasks.get_mut(&task) else {
            // The caller may have been dropped.
            let _ = reply.send(None);
            return;
        };
        // Dropped waiters are removed, so that the list is bounded by the active ones.
        entry.waiters.retain(|waiter| !waiter.reply.is_closed());
        entry.waiters.push(Waiter { run, until, reply });
        self.answer_waiters(&task);
    }
}

/// Is answered at once: shows that the arbiter and the registry are working.
#[derive(Clone)]
pub(crate) struct Ping;

impl Query for Ping {
    type Answer = ();

    fn answer(self, _: &mut TaskRegistry, _: &mut Context<TaskRegistry>) {}
}

/// Reads whether the system is ready, and the problems if it is not.
#[derive(Clone)]
pub(crate) struct ReadReadiness;

impl Query for ReadReadiness {
    type Answer = Readiness;

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Readiness {
        let mut problems = Vec::new();
        if !registry.reachable {
            problems.push("the agent server cannot be reached".to_owned());
        }
        if registry.closing.is_some() {
            problems.push("greenroom is shutting down".to_owned());
        }
        if let Some(why) = registry.env.journal_failing() {
            problems.push(format!("the journal cannot be written: {why}"));
        }
        for actor in registry.env.health.exhausted(registry.env.now()) {
            problems.push(format!("the {actor} fails repeatedly"));
        }
        let running = registry
            .tasks
            .values()
            .filter(|entry| entry.task.status() == TaskStatus::Running)
            .count();
        Readiness {
            ready: problems.is_empty(),
            problems,
            tasks: registry.tasks.len(),
            running,
            waiting: registry.waiting,
        }
    }
}
