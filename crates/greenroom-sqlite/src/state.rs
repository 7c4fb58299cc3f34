//! What the journal and its writer share: what was decided, what waits for the disk, and how far the disk has come. Held
//! behind one lock that nobody keeps while the disk is written.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use greenroom::domain::time::Timestamp;
use greenroom::ports::journal::{Fold, Place, Standing};
use tokio::sync::watch;

use crate::store::Appended;

/// So many appends are written in one transaction at most: it stays short, and its rows few.
const GROUP: usize = 2_000;

/// So long tidying up gives way to what waits to be written.
const TIDY_LATE: Duration = Duration::from_secs(1);

/// What the journal and its writer share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Something waits, or the end has come.
    work: Condvar,
    /// The writer has done something, or has ended.
    done: Condvar,
    standing: watch::Sender<Standing>,
}

/// What was decided.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) fold: Fold,
    /// Of the newest append.
    pub(crate) place: u64,
    /// The time of the newest append.
    pub(crate) newest: Timestamp,
    /// Appends that are not known to be on disk, oldest first. While the disk cannot be written it grows by what open tasks
    /// still add; new launches are refused meanwhile.
    pub(crate) waiting: VecDeque<Arc<Appended>>,
    /// Until when the writer may still write.
    end: Option<Instant>,
    writer_ended: bool,
}

/// What the writer does next.
pub(crate) enum Work {
    /// Writes these.
    Write(Vec<Arc<Appended>>),
    /// Nothing waits: there is time to tidy up.
    Idle,
    /// Ends.
    End,
}

impl Shared {
    pub(crate) fn new(fold: Fold, now: Timestamp) -> Self {
        Self {
            state: Mutex::new(State {
                fold,
                place: 0,
                newest: now,
                waiting: VecDeque::new(),
                end: None,
                writer_ended: false,
            }),
            work: Condvar::new(),
            done: Condvar::new(),
            standing: watch::Sender::new(Standing::default()),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Wakes the writer, which takes what waits.
    pub(crate) fn wake_writer(&self) {
        self.work.notify_one();
    }

    /// What the writer does next; waits for it until then.
    pub(crate) fn next(&self, idle_at: Instant) -> Work {
        let mut state = self.state();
        loop {
            // What is to be tidied up does not wait for ever for a pause.
            let late = Instant::now().saturating_duration_since(idle_at);
            if late > TIDY_LATE && state.end.is_none() {
                return Work::Idle;
            }
            let is_over = state.end.is_some_and(|end| Instant::now() >= end);
            if !state.waiting.is_empty() && !is_over {
                return Work::Write(state.waiting.iter().take(GROUP).cloned().collect());
            }
            if state.end.is_some() {
                return Work::End;
            }
            let left = idle_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Work::Idle;
            }
            let woken = self.work.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The oldest of what waits is on disk.
    pub(crate) fn written(&self, count: usize) {
        let mut state = self.state();
        let durable = state.waiting.drain(..count).next_back();
        drop(state);
        if let Some(durable) = durable {
            self.standing.send_modify(|standing| {
                standing.durable = Place(durable.place);
                standing.failing = None;
            });
        }
        self.done.notify_all();
    }

    /// It cannot be written, for that reason.
    pub(crate) fn failing(&self, why: &str) {
        self.standing.send_if_modified(|standing| {
            let is_new = standing.failing.as_deref() != Some(why);
            standing.failing = Some(why.into());
            is_new
        });
    }

    /// True if it could not be written last.
    pub(crate) fn is_failing(&self) -> bool {
        self.standing.borrow().failing.is_some()
    }

    /// Waits so long, or until the end has come.
    pub(crate) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.state();
        while let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
            && state.end.is_none()
        {
            let woken = self.work.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.end.is_some() {
            drop(state);
            // The last tries must not take the disk for themselves.
            std::thread::sleep(wait.min(Duration::from_millis(50)));
        }
    }

    /// The writer is no more.
    pub(crate) fn writer_ended(&self) {
        self.state().writer_ended = true;
        self.done.notify_all();
    }

    /// Has the writer write what waits, and end. Returns how many appends were not written in time.
    pub(crate) fn end(&self, within: Duration) -> usize {
        let until = Instant::now() + within;
        let mut state = self.state();
        state.end.get_or_insert(until);
        self.work.notify_all();
        while let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
            && !state.writer_ended
        {
            let woken = self.done.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting.len()
    }

    /// True if the writer has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.state().writer_ended
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Shared")
            .field("place", &state.place)
            .field("waiting", &state.waiting.len())
            .finish_non_exhaustive()
    }
}
