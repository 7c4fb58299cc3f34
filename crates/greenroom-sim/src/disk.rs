//! A disk in virtual time. Appends become durable after a delay, in order and in groups, unless the disk is
//! full or the process crashes first. The disk keeps its contents over a crash: the next system starts with
//! the durable state.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use greenroom::domain::ids::{SessionId, TaskId};
use greenroom::domain::outbox::Outbox;
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use greenroom::domain::timeline::TimelineEntry;
use greenroom::ports::journal::{
    ChangesFrom, Journal, JournalEntry, JournalError, JournalStatus, Lsn, MemoryJournal,
    RecordedChange, RecoveredState,
};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::lock;

/// The interval at which a commit is retried while the disk is full or hangs.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

type Append = (Timestamp, Vec<JournalEntry>);

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
        let decided = MemoryJournal::with_retention(self.retention);
        for (at, entries) in &self.state().durable {
            decided.append(*at, entries.clone());
        }
        let status = JournalStatus {
            durable: decided.last_lsn(),
            failing: None,
        };
        Arc::new(DiskJournal {
            disk: self.clone(),
            decided,
            pending: Arc::default(),
            status: Arc::new(watch::Sender::new(status)),
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
    appends: VecDeque<(Lsn, Append)>,
    committing: bool,
}

/// The journal of one system on the disk.
pub struct DiskJournal {
    disk: Disk,
    decided: MemoryJournal,
    pending: Arc<Mutex<Pending>>,
    status: Arc<watch::Sender<JournalStatus>>,
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
        status: Arc<watch::Sender<JournalStatus>>,
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
                    Some(why) => status.send_if_modified(|status| {
                        let news = status.failing.as_ref() != Some(&why);
                        status.failing = Some(Arc::clone(&why));
                        news
                    }),
                    None if hangs => false,
                    None => break,
                };
                sleep(RETRY_INTERVAL).await;
            }
            let mut waiting = lock(&pending);
            let written: Vec<(Lsn, Append)> = waiting.appends.drain(..group).collect();
            let durable = written.last().map(|(lsn, _)| *lsn);
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
                status.send_replace(JournalStatus {
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
    fn append(&self, at: Timestamp, entries: Vec<JournalEntry>) -> Lsn {
        let lsn = self.decided.append(at, entries.clone());
        let crash_at_write = lock(&self.crash_at_write).clone();
        if self.killed.load(Ordering::Acquire) || Self::crashes_at(crash_at_write.clone(), "append")
        {
            return lsn;
        }
        let mut pending = lock(&self.pending);
        pending.appends.push_back((lsn, (at, entries)));
        if !pending.committing {
            pending.committing = true;
            let (disk, waiting) = (self.disk.clone(), Arc::clone(&self.pending));
            let (status, killed) = (Arc::clone(&self.status), Arc::clone(&self.killed));
            actix_rt::spawn(Self::commit(disk, waiting, status, killed, crash_at_write));
        }
        lsn
    }

    fn last_lsn(&self) -> Lsn {
        self.decided.last_lsn()
    }

    fn status(&self) -> watch::Receiver<JournalStatus> {
        self.status.subscribe()
    }

    fn is_persistent(&self) -> bool {
        true
    }

    fn find(&self, name: &str) -> Option<Task> {
        self.decided.find(name)
    }

    fn contains(&self, task: &TaskId) -> bool {
        self.decided.contains(task)
    }

    fn outbox(&self, parent: &SessionId) -> Option<Outbox> {
        self.decided.outbox(parent)
    }

    fn load(&self) -> Result<RecoveredState, JournalError> {
        self.decided.load()
    }

    fn timeline(&self, task: &TaskId) -> Vec<(Timestamp, TimelineEntry)> {
        self.decided.timeline(task)
    }

    fn changes(&self, from: ChangesFrom, most: usize) -> Option<Vec<RecordedChange>> {
        let state = self.disk.state();
        let changes = state.durable.iter().flat_map(|(at, entries)| {
            entries.iter().filter_map(|entry| match entry {
                JournalEntry::Task {
                    task,
                    changed: Some(changed),
                    ..
                } => Some(RecordedChange {
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
