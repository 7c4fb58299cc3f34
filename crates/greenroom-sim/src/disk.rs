//! A disk in virtual time. Appends become durable after a delay, in order and in groups, unless the disk is
//! full or the process crashes first. The disk keeps its contents over a crash: the next system starts with
//! what was durable.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use greenroom::domain::ids::{SessionId, TaskId};
use greenroom::domain::ledger::Account;
use greenroom::domain::story::Line;
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use greenroom::ports::journal::{
    ChangesFrom, Entry, Journal, JournalError, Kept, KeptChange, MemoryJournal, Place, Standing,
};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::lock;

/// The interval at which a commit is retried while the disk is full or hangs.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

type Append = (Timestamp, Vec<Entry>);

/// Returns the latency of the n-th commit.
pub type CommitLatency = Arc<dyn Fn(u64) -> Duration + Send + Sync>;

#[derive(Default)]
struct State {
    durable: Vec<Append>,
    full: Option<Arc<str>>,
    hangs: bool,
    commits: u64,
}

/// A disk.
#[derive(Clone)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    retention: Duration,
    latency: CommitLatency,
}

impl Disk {
    /// Returns an empty disk. Its journals keep tasks for `retention`.
    pub fn new(retention: Duration, latency: CommitLatency) -> Self {
        Self {
            state: Arc::default(),
            retention,
            latency,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns a journal that starts with the durable appends. One system at a time uses the disk, until its
    /// journal is killed.
    pub fn journal(&self) -> Arc<DiskJournal> {
        let decided = MemoryJournal::keeping(self.retention);
        for (at, entries) in &self.state().durable {
            decided.append(*at, entries.clone());
        }
        let standing = Standing {
            durable: decided.decided(),
            failing: None,
        };
        Arc::new(DiskJournal {
            disk: self.clone(),
            decided,
            pending: Arc::default(),
            standing: Arc::new(watch::Sender::new(standing)),
            killed: Arc::default(),
            crash_at_write: Mutex::default(),
        })
    }

    /// Makes every write fail with this reason; `None` makes writes work again.
    pub fn set_full(&self, why: Option<&str>) {
        self.state().full = why.map(Arc::from);
    }

    /// Makes commits hang, or lets them continue.
    pub fn set_hanging(&self, hangs: bool) {
        self.state().hangs = hangs;
    }

    /// Returns the number of durable appends.
    pub fn appends(&self) -> usize {
        self.state().durable.len()
    }
}

#[derive(Default)]
struct Pending {
    appends: VecDeque<(Place, Append)>,
    committing: bool,
}

/// The journal of one system on the disk.
pub struct DiskJournal {
    disk: Disk,
    decided: MemoryJournal,
    pending: Arc<Mutex<Pending>>,
    standing: Arc<watch::Sender<Standing>>,
    killed: Arc<AtomicBool>,
    crash_at_write: Mutex<Option<CrashAtWrite>>,
}

/// Decides at each write whether the process crashes there: before an append, or after a commit whose result
/// is not published yet. A callback that returns true has killed the journal.
pub type CrashAtWrite = Arc<dyn Fn(&'static str) -> bool + Send + Sync>;

impl DiskJournal {
    /// Sets the callback that decides about crashes.
    pub fn set_crash_at_write(&self, crash_at_write: CrashAtWrite) {
        *lock(&self.crash_at_write) = Some(crash_at_write);
    }

    fn crashes_at(crash_at_write: Option<CrashAtWrite>, moment: &'static str) -> bool {
        crash_at_write.is_some_and(|crash_at_write| crash_at_write(moment))
    }

    /// Ends the journal: nothing more becomes durable.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        lock(&self.pending).appends.clear();
    }

    /// Commits pending appends until none is left.
    async fn commit(
        disk: Disk,
        pending: Arc<Mutex<Pending>>,
        standing: Arc<watch::Sender<Standing>>,
        killed: Arc<AtomicBool>,
        crash_at_write: Option<CrashAtWrite>,
    ) {
        loop {
            let group = lock(&pending).appends.len();
            let nth = {
                let mut state = disk.state();
                state.commits += 1;
                state.commits
            };
            let latency = (disk.latency)(nth);
            if !latency.is_zero() {
                sleep(latency).await;
            }
            loop {
                if killed.load(Ordering::Acquire) {
                    return;
                }
                let (full, hangs) = {
                    let state = disk.state();
                    (state.full.clone(), state.hangs)
                };
                match full {
                    Some(why) => standing.send_if_modified(|standing| {
                        let news = standing.failing.as_ref() != Some(&why);
                        standing.failing = Some(Arc::clone(&why));
                        news
                    }),
                    None if hangs => false,
                    None => break,
                };
                sleep(RETRY_INTERVAL).await;
            }
            let mut waiting = lock(&pending);
            let written: Vec<(Place, Append)> = waiting.appends.drain(..group).collect();
            let durable = written.last().map(|(place, _)| *place);
            disk.state()
                .durable
                .extend(written.into_iter().map(|(_, append)| append));
            waiting.committing = !waiting.appends.is_empty();
            let more = waiting.committing;
            drop(waiting);
            if Self::crashes_at(crash_at_write.clone(), "commit") {
                return;
            }
            if let Some(durable) = durable {
                standing.send_replace(Standing {
                    durable,
                    failing: None,
                });
            }
            if !more {
                return;
            }
        }
    }
}

impl Journal for DiskJournal {
    fn append(&self, at: Timestamp, entries: Vec<Entry>) -> Place {
        let place = self.decided.append(at, entries.clone());
        let crash_at_write = lock(&self.crash_at_write).clone();
        if self.killed.load(Ordering::Acquire) || Self::crashes_at(crash_at_write.clone(), "append")
        {
            return place;
        }
        let mut pending = lock(&self.pending);
        pending.appends.push_back((place, (at, entries)));
        if !pending.committing {
            pending.committing = true;
            let (disk, waiting) = (self.disk.clone(), Arc::clone(&self.pending));
            let (standing, killed) = (Arc::clone(&self.standing), Arc::clone(&self.killed));
            actix_rt::spawn(Self::commit(
                disk,
                waiting,
                standing,
                killed,
                crash_at_write,
            ));
        }
        place
    }

    fn decided(&self) -> Place {
        self.decided.decided()
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    fn outlives(&self) -> bool {
        true
    }

    fn find(&self, name: &str) -> Option<Task> {
        self.decided.find(name)
    }

    fn knows(&self, task: &TaskId) -> bool {
        self.decided.knows(task)
    }

    fn account(&self, parent: &SessionId) -> Option<Account> {
        self.decided.account(parent)
    }

    fn load(&self) -> Result<Kept, JournalError> {
        self.decided.load()
    }

    fn story(&self, task: &TaskId) -> Vec<(Timestamp, Line)> {
        self.decided.story(task)
    }

    fn changes(&self, from: ChangesFrom, most: usize) -> Option<Vec<KeptChange>> {
        let state = self.disk.state();
        let changes = state.durable.iter().flat_map(|(at, entries)| {
            entries.iter().filter_map(|entry| match entry {
                Entry::Task {
                    task,
                    changed: Some(changed),
                    ..
                } => Some(KeptChange {
                    at: *at,
                    changed: *changed,
                    task: Arc::clone(task),
                }),
                _ => None,
            })
        });
        let wanted = changes.filter(|change| match from {
            ChangesFrom::After(number) => change.changed.number > number,
            ChangesFrom::Since(at) => change.at > at,
        });
        Some(wanted.take(most).collect())
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Disk")
            .field("appends", &state.durable.len())
            .field("full", &state.full)
            .field("hangs", &state.hangs)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DiskJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskJournal")
            .field("disk", &self.disk)
            .field("waiting", &lock(&self.pending).appends.len())
            .finish_non_exhaustive()
    }
}
