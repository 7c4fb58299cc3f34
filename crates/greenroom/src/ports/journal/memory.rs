//! The journal that outlives the actors but not the process. It grows with the tasks in the registry's memory and with
//! what is owed, and remembers a bounded number of those that are over.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Entry, Journal, JournalError, Kept, KeptTask, SHORTEST_BEGINNING};
use crate::config::Lifecycle;
use crate::domain::idempotency::{Kept as KeptKey, MOST};
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::ledger::Account;
use crate::domain::task::Task;
use crate::domain::time::Timestamp;

/// How many tasks are remembered after they have left the registry's memory; the oldest goes first.
const TASKS: usize = 1000;
/// How many parents are remembered that nothing is owed to; the one changed longest ago goes first.
const PARENTS: usize = 1000;

/// Keeps everything in memory.
#[derive(Debug)]
pub struct MemoryJournal {
    memory: Mutex<Memory>,
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::keeping(Lifecycle::default().retention)
    }
}

#[derive(Debug, Default)]
struct Memory {
    tasks: HashMap<TaskId, KeptTask>,
    // With when they left.
    left: VecDeque<(Timestamp, Arc<Task>)>,
    retention: Duration,
    accounts: BTreeMap<SessionId, Account>,
    // Parents that nothing is owed to, in the order in which that became so; some are owed something again.
    settled: VecDeque<SessionId>,
    keys: VecDeque<KeptKey>,
}

impl MemoryJournal {
    /// One that remembers tasks for so long after they have left the registry's memory (`lifecycle.retention`), and never
    /// more than a thousand of them.
    pub fn keeping(retention: Duration) -> Self {
        let memory = Memory {
            retention,
            ..Memory::default()
        };
        Self {
            memory: Mutex::new(memory),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn append(&mut self, entry: Entry) {
        match entry {
            Entry::Task {
                accepted,
                age,
                task,
            } => self.record(accepted, age, task),
            Entry::Granted(task, run) => {
                if let Some(kept) = self.tasks.get_mut(&task) {
                    kept.granted = Some(run);
                }
            }
            Entry::Prompted(task, run) => {
                if let Some(kept) = self.tasks.get_mut(&task) {
                    kept.prompted = Some(run);
                }
            }
            Entry::Joined {
                parent,
                task,
                run,
                directory,
            } => self.account(parent, |account| account.join(task, run, directory)),
            Entry::Settled { parent, told } => {
                self.account(parent, |account| account.settle(*told));
            }
            Entry::Left(parent, task) => self.account(parent, |account| account.leave(&task)),
            Entry::Closed {
                parent,
                posted,
                tasks,
            } => self.account(parent, |account| account.close(*posted, &tasks)),
            Entry::Sending { parent, posted } => {
                self.account(parent, |account| account.sending(*posted));
            }
            Entry::Returned(parent, id) => self.account(parent, |account| account.returned(&id)),
            Entry::Fate {
                parent,
                id,
                fate,
                at,
            } => self.account(parent, |account| account.fate(&id, fate, at)),
            Entry::ParentGone(parent, at) => self.account(parent, |account| account.gone(at)),
            Entry::Silenced(parent, silenced) => {
                self.account(parent, |account| account.silenced = silenced);
            }
            Entry::Key(key) => {
                self.keys.push_back(key);
                if self.keys.len() > MOST {
                    self.keys.pop_front();
                }
            }
            Entry::Forgotten(task, at) => self.forget(&task, at),
        }
    }

    fn record(&mut self, accepted: u64, age: u64, task: Arc<Task>) {
        let (granted, prompted) = self
            .tasks
            .get(&task.id)
            .map_or((None, None), |kept| (kept.granted, kept.prompted));
        let kept = KeptTask {
            accepted,
            age,
            granted,
            prompted,
            task,
        };
        self.tasks.insert(kept.task.id.clone(), kept);
    }

    fn forget(&mut self, task: &TaskId, at: Timestamp) {
        if let Some(kept) = self.tasks.remove(task) {
            self.left.push_back((at, kept.task));
        }
        let over = |left: &VecDeque<(Timestamp, Arc<Task>)>| {
            let oldest = left.front();
            left.len() > TASKS || oldest.is_some_and(|(left, _)| at.since(*left) > self.retention)
        };
        while over(&self.left) {
            self.left.pop_front();
        }
    }

    fn account(&mut self, parent: SessionId, change: impl FnOnce(&mut Account)) {
        let account = self.accounts.entry(parent.clone()).or_default();
        let was_settled = account.is_settled();
        change(account);
        if account.is_settled() && !was_settled {
            self.settled.push_back(parent);
        }
        while self.settled.len() > PARENTS {
            let oldest = self.settled.pop_front();
            let over = |parent: &SessionId| {
                let account = self.accounts.get(parent);
                account.is_none_or(Account::is_settled) && !self.settled.contains(parent)
            };
            if let Some(oldest) = oldest.filter(over) {
                self.accounts.remove(&oldest);
            }
        }
    }
}

impl Journal for MemoryJournal {
    fn append(&self, entries: Vec<Entry>) -> Result<(), JournalError> {
        let mut memory = self.memory();
        for entry in entries {
            memory.append(entry);
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<Task> {
        let memory = self.memory();
        if let Some(kept) = memory.tasks.get(&TaskId::new(name)) {
            return Some(Task::clone(&kept.task));
        }
        let newest_first = || memory.left.iter().rev().map(|(_, task)| task);
        let named = |task: &&Arc<Task>| {
            let session = task.session.as_ref().map(SessionId::as_str);
            task.id.as_str() == name || session == Some(name)
        };
        if let Some(task) = newest_first().find(named) {
            return Some(Task::clone(task));
        }
        // A beginning must be long enough to mean something, and fit one task only.
        let mut fitting = newest_first().filter(|task| task.id.as_str().starts_with(name));
        let only = fitting
            .next()
            .filter(|_| name.len() >= SHORTEST_BEGINNING)?;
        fitting
            .all(|other| other.id == only.id)
            .then(|| Task::clone(only))
    }

    fn account(&self, parent: &SessionId) -> Option<Account> {
        self.memory().accounts.get(parent).cloned()
    }

    fn load(&self) -> Result<Kept, JournalError> {
        let memory = self.memory();
        let mut tasks: Vec<KeptTask> = memory.tasks.values().cloned().collect();
        tasks.sort_by_key(|kept| kept.accepted);
        let owed = memory
            .accounts
            .iter()
            .filter(|(_, account)| !account.is_settled() || account.silenced);
        Ok(Kept {
            tasks,
            left: memory
                .left
                .iter()
                .map(|(_, task)| Arc::clone(task))
                .collect(),
            accounts: owed
                .map(|(parent, account)| (parent.clone(), account.clone()))
                .collect(),
            keys: memory.keys.iter().cloned().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::task::Launch;

    #[test]
    fn a_task_that_has_left_is_found_for_as_long_as_is_wanted() {
        let journal = MemoryJournal::keeping(Duration::from_secs(10));
        let leaves = |name: &str, millis| {
            let at = Timestamp::from_millis(millis);
            let task = Task::accept(name.into(), Launch::default(), 1, at);
            let entry = Entry::Task {
                accepted: 1,
                age: 1,
                task: Arc::new(task),
            };
            let left = Entry::Forgotten(name.into(), at);
            journal.append(vec![entry, left]).unwrap();
        };
        leaves("bg_00000001", 0);
        leaves("bg_00000002", 10_000);
        assert!(journal.find("bg_00000001").is_some());
        leaves("bg_00000003", 10_001);
        assert!(journal.find("bg_00000001").is_none());
        assert!(journal.find("bg_00000002").is_some());
    }
}
