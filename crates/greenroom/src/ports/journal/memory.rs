//! The in-memory journal. It survives the actors but not the process; every append is durable at once. It remembers a
//! bounded number of finished tasks, and a bounded timeline of each task.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use super::{
    ChangesFrom, Fold, Journal, JournalEntry, JournalError, JournalStatus, Lsn, RecordedChange,
    RecoveredState,
};
use crate::config::Lifecycle;
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::outbox::Outbox;
use crate::domain::task::Task;
use crate::domain::time::Timestamp;
use crate::domain::timeline::{self, TimelineEntry};
use crate::lock::lock;
use crate::maps::Map;

/// The number of timelines kept. The oldest is evicted first.
const MAX_TIMELINES: usize = 2_000;

/// A journal in memory.
#[derive(Debug)]
pub struct MemoryJournal {
    memory: Mutex<Memory>,
    status: watch::Sender<JournalStatus>,
}

#[derive(Debug, Default)]
struct Memory {
    fold: Fold,
    lsn: Lsn,
    timelines: Map<String, Vec<(Timestamp, TimelineEntry)>>,
    oldest_first: VecDeque<String>,
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::with_retention(Lifecycle::default().retention)
    }
}

impl MemoryJournal {
    /// Creates a journal that remembers tasks for `retention` (`lifecycle.retention`) after they have left the
    /// registry's memory, and at most a thousand of them.
    pub fn with_retention(retention: Duration) -> Self {
        Self::from_recovered(retention, RecoveredState::default())
    }

    /// Creates a journal from a recovered state.
    pub fn from_recovered(retention: Duration, recovered: RecoveredState) -> Self {
        let memory = Memory {
            fold: Fold::from_recovered(retention, recovered),
            ..Memory::default()
        };
        Self {
            memory: Mutex::new(memory),
            status: watch::Sender::new(JournalStatus::default()),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}

impl Memory {
    fn record(&mut self, at: Timestamp, subject: &str, entry: TimelineEntry) {
        if let Some(timeline) = self.timelines.get_mut(subject) {
            return timeline::push(timeline, at, entry);
        }
        self.oldest_first.push_back(subject.to_owned());
        if self.oldest_first.len() > MAX_TIMELINES
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.timelines.remove(&oldest);
        }
        self.timelines.insert(subject.to_owned(), vec![(at, entry)]);
    }
}

impl Journal for MemoryJournal {
    fn append(&self, at: Timestamp, entries: Vec<JournalEntry>) -> Lsn {
        let mut memory = self.memory();
        for entry in entries {
            for (subject, timeline_entry) in timeline::entries_of(&entry) {
                memory.record(at, subject, timeline_entry);
            }
            memory.fold.append(entry);
        }
        memory.lsn.0 += 1;
        let lsn = memory.lsn;
        drop(memory);
        self.status
            .send_modify(|status| status.durable = status.durable.max(lsn));
        lsn
    }

    fn last_lsn(&self) -> Lsn {
        self.memory().lsn
    }

    fn status(&self) -> watch::Receiver<JournalStatus> {
        self.status.subscribe()
    }

    fn is_persistent(&self) -> bool {
        false
    }

    fn find(&self, name: &str) -> Option<Task> {
        self.memory().fold.find(name)
    }

    fn contains(&self, task: &TaskId) -> bool {
        self.memory().fold.contains(task)
    }

    fn outbox(&self, parent: &SessionId) -> Option<Outbox> {
        self.memory().fold.outbox(parent).cloned()
    }

    fn load(&self) -> Result<RecoveredState, JournalError> {
        Ok(self.memory().fold.recovered())
    }

    fn timeline(&self, task: &TaskId) -> Vec<(Timestamp, TimelineEntry)> {
        let memory = self.memory();
        timeline::of_task(task, |subject| {
            memory.timelines.get(subject).cloned().unwrap_or_default()
        })
    }

    fn changes(&self, _: ChangesFrom, _: usize) -> Option<Vec<RecordedChange>> {
        // The handle keeps the newest changes itself, for a journal of any kind.
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::task::Launch;

    #[test]
    fn removed_task_is_found_during_retention() {
        let journal = MemoryJournal::with_retention(Duration::from_secs(10));
        let forget = |name: &str, millis| {
            let at = Timestamp::from_millis(millis);
            let task = Task::accept(name.into(), Launch::default(), 1, at);
            let entry = JournalEntry::Task {
                accepted: 1,
                queue_seq: 1,
                task: Arc::new(task),
                changed: None,
            };
            let left = JournalEntry::Forgotten(name.into(), at);
            journal.append(at, vec![entry, left]);
        };
        forget("bg_00000001", 0);
        forget("bg_00000002", 10_000);
        assert!(journal.find("bg_00000001").is_some());
        forget("bg_00000003", 10_001);
        assert!(journal.find("bg_00000001").is_none());
        assert!(journal.find("bg_00000002").is_some());
    }
}
