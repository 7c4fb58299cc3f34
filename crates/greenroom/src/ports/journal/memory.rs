//! The journal that outlives the actors but not the process. It grows with the tasks in the registry's memory and with
//! what is owed, and remembers a bounded number of those that are over.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Entry, Journal, JournalError, Kept, KeptTask, SHORTEST_BEGINNING};
use crate::domain::idempotency::{Kept as KeptKey, MOST};
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::ledger::Account;
use crate::domain::task::Task;

/// How many tasks are remembered after they have left the registry's memory; the oldest goes first.
const TASKS: usize = 1000;
/// How many parents are remembered that nothing is owed to; the one changed longest ago goes first.
const PARENTS: usize = 1000;

/// Keeps everything in memory.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    tasks: HashMap<TaskId, KeptTask>,
    left: VecDeque<Arc<Task>>,
    accounts: BTreeMap<SessionId, Account>,
    // Parents that nothing is owed to, in the order in which that became so; some are owed something again.
    settled: VecDeque<SessionId>,
    keys: VecDeque<KeptKey>,
}

impl MemoryJournal {
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
            Entry::Forgotten(task) => self.forget(&task),
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

    fn forget(&mut self, task: &TaskId) {
        if let Some(kept) = self.tasks.remove(task) {
            self.left.push_back(kept.task);
        }
        if self.left.len() > TASKS {
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
        let newest_first = || memory.left.iter().rev();
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
            left: memory.left.iter().cloned().collect(),
            accounts: owed
                .map(|(parent, account)| (parent.clone(), account.clone()))
                .collect(),
            keys: memory.keys.iter().cloned().collect(),
        })
    }
}
