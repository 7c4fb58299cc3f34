//! The state shared by the journal and its writer thread: the fold of all entries, the appends that are not on disk yet,
//! and the published status. Its lock is never held while the disk is written.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use greenroom::domain::time::Timestamp;
use greenroom::ports::journal::{Fold, JournalStatus, Lsn};
use tokio::sync::watch;

use crate::lock;
use crate::store::PendingAppend;

/// The most appends of one transaction, so that transactions stay short.
const MAX_BATCH: usize = 2_000;

/// How long a clean-up gives precedence to unwritten appends.
const MAX_CLEANUP_DELAY: Duration = Duration::from_secs(1);

/// The state shared by the journal and its writer.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Notified when there is an append to write, or the writer is to stop.
    work: Condvar,
    /// Notified when the writer has written something, or has ended.
    done: Condvar,
    status: watch::Sender<JournalStatus>,
}

/// The state behind the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) fold: Fold,
    /// The log position of the newest append: the number of appends since the journal was created.
    pub(crate) lsn: u64,
    /// The time of the newest append.
    pub(crate) newest: Timestamp,
    /// Appends that are not known to be on disk, oldest first. While the disk cannot be written, only open tasks append
    /// more: new launches are refused.
    pub(crate) unwritten: VecDeque<Arc<PendingAppend>>,
    /// The deadline of the last writes, once the journal is being closed.
    stop_at: Option<Instant>,
    writer_ended: bool,
}

/// The next work of the writer.
pub(crate) enum Work {
    /// Write these appends.
    Write(Vec<Arc<PendingAppend>>),
    /// Delete expired rows.
    CleanUp,
    /// Stop.
    Stop,
}

impl Shared {
    pub(crate) fn new(fold: Fold, now: Timestamp, lsn: u64) -> Self {
        Self {
            state: Mutex::new(State {
                fold,
                lsn,
                newest: now,
                unwritten: VecDeque::new(),
                stop_at: None,
                writer_ended: false,
            }),
            work: Condvar::new(),
            done: Condvar::new(),
            status: watch::Sender::new(JournalStatus {
                durable: Lsn(lsn),
                ..JournalStatus::default()
            }),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn status(&self) -> watch::Receiver<JournalStatus> {
        self.status.subscribe()
    }

    /// Wakes the writer.
    pub(crate) fn wake_writer(&self) {
        self.work.notify_one();
    }

    /// Waits for the next work of the writer and returns it.
    pub(crate) fn next_work(&self, cleanup_at: Instant) -> Work {
        let mut state = self.state();
        loop {
            // Under constant load a clean-up is delayed, but not forever.
            let late = Instant::now().saturating_duration_since(cleanup_at);
            if late > MAX_CLEANUP_DELAY && state.stop_at.is_none() {
                return Work::CleanUp;
            }
            let is_over = state.stop_at.is_some_and(|end| Instant::now() >= end);
            if !state.unwritten.is_empty() && !is_over {
                return Work::Write(state.unwritten.iter().take(MAX_BATCH).cloned().collect());
            }
            if state.stop_at.is_some() {
                return Work::Stop;
            }
            let left = cleanup_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Work::CleanUp;
            }
            let woken = self.work.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Removes the oldest `count` unwritten appends, which are now on disk, and publishes the new status.
    pub(crate) fn mark_written(&self, count: usize) {
        let mut state = self.state();
        let durable = state.unwritten.drain(..count).next_back();
        drop(state);
        if let Some(durable) = durable {
            self.status.send_modify(|status| {
                status.durable = Lsn(durable.lsn);
                status.failing = None;
            });
        }
        self.done.notify_all();
    }

    /// Publishes the reason why the journal cannot be written.
    pub(crate) fn mark_failing(&self, why: &str) {
        self.status.send_if_modified(|status| {
            let is_new = status.failing.as_deref() != Some(why);
            status.failing = Some(why.into());
            is_new
        });
    }

    /// Returns true if the last write failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.status.borrow().failing.is_some()
    }

    /// Waits for the given time, or until the journal is being closed.
    pub(crate) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.state();
        while let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
            && state.stop_at.is_none()
        {
            let woken = self.work.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.stop_at.is_some() {
            drop(state);
            // The last attempts must not keep the disk busy.
            std::thread::sleep(wait.min(Duration::from_millis(50)));
        }
    }

    /// Records that the writer has ended.
    pub(crate) fn writer_ended(&self) {
        self.state().writer_ended = true;
        self.done.notify_all();
    }

    /// Makes the writer write the unwritten appends and stop. Returns the number of appends not written in time.
    pub(crate) fn stop(&self, within: Duration) -> usize {
        let until = Instant::now() + within;
        let mut state = self.state();
        state.stop_at.get_or_insert(until);
        self.work.notify_all();
        while let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
            && !state.writer_ended
        {
            let woken = self.done.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.unwritten.len()
    }

    /// Returns true if the writer has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.state().writer_ended
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Shared")
            .field("lsn", &state.lsn)
            .field("unwritten", &state.unwritten.len())
            .finish_non_exhaustive()
    }
}
