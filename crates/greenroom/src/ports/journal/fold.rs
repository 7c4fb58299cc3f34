//! The state folded from journal entries: every task in the registry's memory, the outboxes, the launch keys, and a
//! bounded number of finished tasks and parents. Every journal keeps one in memory, so that restarted actors continue
//! from decided changes, durable or not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{JournalEntry, MIN_PREFIX_LEN, RecoveredState, RecoveredTask};
use crate::domain::idempotency::{LaunchKey, MAX_KEYS};
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::outbox::Outbox;
use crate::domain::task::{Task, TaskStatus};
use crate::domain::time::Timestamp;
use crate::maps::{Map, Set};

/// The number of tasks remembered after they have left the registry's memory. The oldest is evicted first.
const MAX_LEFT_TASKS: usize = 1000;
/// The number of remembered parents without pending messages. The parent changed longest ago is evicted first.
const MAX_SETTLED_PARENTS: usize = 1000;

/// The state folded from journal entries.
#[derive(Debug, Default)]
pub struct Fold {
    tasks: Map<TaskId, RecoveredTask>,
    // With the time at which each task left memory.
    left: VecDeque<(Timestamp, Arc<Task>)>,
    // The number of entries in `left` per task: a resumed task may leave again.
    left_by_id: Map<TaskId, usize>,
    retention: Duration,
    outboxes: BTreeMap<SessionId, Outbox>,
    // Settled parents in the order of settling. A parent may have become unsettled again.
    settled: VecDeque<SessionId>,
    keys: VecDeque<LaunchKey>,
    aborts: BTreeMap<SessionId, Timestamp>,
    newest_change: u64,
}

impl Fold {
    /// Creates a fold that remembers tasks for `retention` (`lifecycle.retention`) after they have left the registry's
    /// memory, and at most a thousand of them.
    pub fn with_retention(retention: Duration) -> Self {
        Self {
            retention,
            ..Self::default()
        }
    }

    /// Creates a fold from a recovered state.
    pub fn from_recovered(retention: Duration, recovered: RecoveredState) -> Self {
        let mut fold = Self::with_retention(retention);
        for task in recovered.tasks {
            fold.tasks.insert(task.task.id.clone(), task);
        }
        fold.outboxes.extend(recovered.outboxes);
        fold.keys.extend(recovered.keys);
        fold.aborts.extend(recovered.aborts);
        fold.newest_change = recovered.newest_change;
        fold
    }

    /// Applies one entry.
    pub fn append(&mut self, entry: JournalEntry) {
        match entry {
            JournalEntry::Task {
                accepted,
                queue_seq,
                task,
                changed,
            } => {
                let number = changed.map_or(0, |changed| changed.number);
                self.newest_change = self.newest_change.max(number);
                self.record(accepted, queue_seq, task);
            }
            JournalEntry::Granted(task, run) => {
                if let Some(recovered) = self.tasks.get_mut(&task) {
                    recovered.granted = Some(run);
                }
            }
            JournalEntry::Prompted(task, run) => {
                if let Some(recovered) = self.tasks.get_mut(&task) {
                    recovered.prompted = Some(run);
                }
            }
            JournalEntry::Aborted(task, run) => {
                if let Some(recovered) = self.tasks.get_mut(&task) {
                    recovered.aborted = Some(run);
                }
            }
            JournalEntry::Key(key) => {
                self.keys.push_back(key);
                if self.keys.len() > MAX_KEYS {
                    self.keys.pop_front();
                }
            }
            JournalEntry::Forgotten(task, at) => self.forget(&task, at),
            JournalEntry::Unaccepted(task) => {
                self.keys.retain(|key| key.task != task);
            }
            JournalEntry::Noted(..) | JournalEntry::Owner(..) => {}
            JournalEntry::AbortReceived(session, at) => {
                self.aborts.insert(session, at);
            }
            JournalEntry::AbortJudged(session) => {
                self.aborts.remove(&session);
            }
            entry => {
                if let Some(parent) = entry.parent().cloned() {
                    self.apply_to_outbox(parent, entry);
                }
            }
        }
    }

    fn record(&mut self, accepted: u64, queue_seq: u64, task: Arc<Task>) {
        let before = self.tasks.get(&task.id);
        let recovered = RecoveredTask {
            accepted,
            queue_seq,
            granted: before.and_then(|recovered| recovered.granted),
            // A run that waits again, because it was cut off, is prompted again.
            prompted: before
                .and_then(|recovered| recovered.prompted)
                .filter(|_| task.status() != TaskStatus::Pending),
            aborted: before.and_then(|recovered| recovered.aborted),
            task,
        };
        self.tasks.insert(recovered.task.id.clone(), recovered);
    }

    fn forget(&mut self, task: &TaskId, at: Timestamp) {
        if let Some(recovered) = self.tasks.remove(task) {
            *self
                .left_by_id
                .entry(recovered.task.id.clone())
                .or_default() += 1;
            self.left.push_back((at, recovered.task));
        }
        let is_over = |left: &VecDeque<(Timestamp, Arc<Task>)>| {
            let oldest = left.front();
            left.len() > MAX_LEFT_TASKS
                || oldest.is_some_and(|(left, _)| at.since(*left) > self.retention)
        };
        while is_over(&self.left) {
            let Some((_, task)) = self.left.pop_front() else {
                break;
            };
            if let Some(times) = self.left_by_id.get_mut(&task.id) {
                *times -= 1;
                if *times == 0 {
                    self.left_by_id.remove(&task.id);
                }
            }
        }
    }

    fn apply_to_outbox(&mut self, parent: SessionId, entry: JournalEntry) {
        let outbox = self.outboxes.entry(parent.clone()).or_default();
        let was_settled = outbox.is_settled();
        outbox.apply(entry);
        if outbox.is_settled() && !was_settled {
            self.settled.push_back(parent);
        }
        while self.settled.len() > MAX_SETTLED_PARENTS {
            let oldest = self.settled.pop_front();
            let is_over = |parent: &SessionId| {
                let outbox = self.outboxes.get(parent);
                outbox.is_none_or(Outbox::is_settled) && !self.settled.contains(parent)
            };
            if let Some(oldest) = oldest.filter(is_over) {
                self.outboxes.remove(&oldest);
            }
        }
    }

    /// Returns true if a task with this id is remembered.
    pub fn contains(&self, task: &TaskId) -> bool {
        self.tasks.contains_key(task) || self.left_by_id.contains_key(task)
    }

    /// Returns the task with this id or unique id prefix, or the newest task of this session that has left memory.
    pub fn find(&self, name: &str) -> Option<Task> {
        if let Some(task) = self.by_name(name) {
            return Some(Task::clone(task));
        }
        let mut matches = self.by_prefix(name);
        let only = matches.next()?;
        matches
            .all(|other| other.id == only.id)
            .then(|| Task::clone(only))
    }

    /// Returns the task with this id, or the newest task of this session that has left memory.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Task>> {
        if let Some(recovered) = self.tasks.get(&TaskId::new(name)) {
            return Some(&recovered.task);
        }
        let by_name = |task: &&Arc<Task>| {
            let session = task.session.as_ref().map(SessionId::as_str);
            task.id.as_str() == name || session == Some(name)
        };
        self.newest_left_first()
            .find(|task| by_name(task) && !self.tasks.contains_key(&task.id))
    }

    /// Returns the tasks outside of memory whose ids start with `name`, newest first; none if the prefix is shorter
    /// than [`MIN_PREFIX_LEN`].
    pub fn by_prefix(&self, name: &str) -> impl Iterator<Item = &Arc<Task>> {
        let begins = move |task: &&Arc<Task>| {
            name.len() >= MIN_PREFIX_LEN && task.id.as_str().starts_with(name)
        };
        self.newest_left_first()
            .filter(move |task| begins(task) && !self.tasks.contains_key(&task.id))
    }

    /// A task may occur repeatedly, or be in memory again.
    fn newest_left_first(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.left.iter().rev().map(|(_, task)| task)
    }

    /// Restores the outbox of a parent that the fold no longer remembers.
    pub fn restore_outbox(&mut self, parent: SessionId, outbox: Outbox) {
        if outbox.is_settled() {
            self.settled.push_back(parent.clone());
        }
        self.outboxes.insert(parent, outbox);
    }

    /// Returns the outbox of a parent, if it is remembered.
    pub fn outbox(&self, parent: &SessionId) -> Option<&Outbox> {
        self.outboxes.get(parent)
    }

    /// Returns the tasks that have left memory and are not in memory again: the newest record of each, oldest first.
    fn left(&self) -> Vec<Arc<Task>> {
        let mut seen = Set::default();
        let mut left: Vec<Arc<Task>> = self
            .newest_left_first()
            .filter(|task| !self.tasks.contains_key(&task.id) && seen.insert(&task.id))
            .cloned()
            .collect();
        left.reverse();
        left
    }

    /// Returns the state from which a registry continues.
    pub fn recovered(&self) -> RecoveredState {
        let mut tasks: Vec<RecoveredTask> = self.tasks.values().cloned().collect();
        tasks.sort_by_key(|recovered| recovered.accepted);
        let unsettled = self
            .outboxes
            .iter()
            .filter(|(_, outbox)| !outbox.is_settled() || outbox.silenced);
        RecoveredState {
            tasks,
            left: self.left(),
            outboxes: unsettled
                .map(|(parent, outbox)| (parent.clone(), outbox.clone()))
                .collect(),
            keys: self.keys.iter().cloned().collect(),
            aborts: self
                .aborts
                .iter()
                .map(|(session, at)| (session.clone(), *at))
                .collect(),
            newest_change: self.newest_change,
        }
    }
}
