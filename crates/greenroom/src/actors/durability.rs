//! Waiting until journal entries are durable. Waiters wake in the order of the journal: effects keep the order of their
//! causes, and a run in virtual time can be repeated. One spawned future follows the journal while there are waiters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{oneshot, watch};

use super::pending_publications::PendingPublications;
use crate::lock::lock;
use crate::ports::journal::{Journal, JournalStatus, Lsn};

/// The state a waiter waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// The entries are written.
    Written,
    /// The entries are written and published.
    Published,
    /// The entries are written and published, or the journal cannot be written at present.
    PublishedOrFailing,
}

/// A wait as it begins.
enum Wait {
    Done(Result<(), Arc<str>>),
    Pending(oneshot::Receiver<Result<(), Arc<str>>>),
}

struct Waiter {
    goal: Goal,
    reply: oneshot::Sender<Result<(), Arc<str>>>,
}

#[derive(Default)]
struct Waiting {
    // One per effect, answer or reader in flight: bounded by the number of open tasks.
    waiters: BTreeMap<(Lsn, u64), Waiter>,
    next_number: u64,
    following: bool,
}

/// The progress of the journal, with its waiters. Clones share them.
#[derive(Clone)]
pub(crate) struct Durability {
    journal: Arc<dyn Journal>,
    status: watch::Receiver<JournalStatus>,
    pending_publications: PendingPublications,
    waiting: Arc<Mutex<Waiting>>,
}

impl Durability {
    pub(crate) fn new(
        journal: Arc<dyn Journal>,
        pending_publications: PendingPublications,
    ) -> Self {
        Self {
            status: journal.status(),
            journal,
            pending_publications,
            waiting: Arc::default(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    /// Waits until every entry appended before the call is written.
    pub(crate) fn written(&self) -> impl Future<Output = ()> + use<> {
        let written = self.wait(Goal::Written);
        async move {
            let _ = written.await;
        }
    }

    /// Waits until every entry appended before the call is written and published.
    pub(crate) fn published(&self) -> impl Future<Output = ()> + use<> {
        let published = self.wait(Goal::Published);
        async move {
            let _ = published.await;
        }
    }

    /// Waits until every entry appended before the call is written and published.
    ///
    /// # Errors
    ///
    /// The reason, as soon as the journal cannot be written.
    pub(crate) fn published_or_failing(
        &self,
    ) -> impl Future<Output = Result<(), Arc<str>>> + use<> {
        self.wait(Goal::PublishedOrFailing)
    }

    /// Returns the newest entry that is durable.
    pub(crate) fn durable(&self) -> Lsn {
        self.status.borrow().durable
    }

    /// Returns the reason why the journal cannot be written at present.
    pub(crate) fn failing(&self) -> Option<Arc<str>> {
        self.status.borrow().failing.clone()
    }

    /// Returns true if every entry is written and published.
    pub(crate) fn is_current(&self) -> bool {
        self.durable() >= self.journal.last_lsn() && self.pending_publications.is_empty()
    }

    fn wait(&self, goal: Goal) -> impl Future<Output = Result<(), Arc<str>>> + use<> {
        let lsn = self.journal.last_lsn();
        let result = if self.is_reached(lsn, goal) {
            Some(Ok(()))
        } else if goal == Goal::PublishedOrFailing {
            // A failure that is known is returned at once: the status may not change for a while.
            self.failing().map(Err)
        } else {
            None
        };
        let wait = match result {
            Some(result) => Wait::Done(result),
            None => Wait::Pending(self.register(lsn, goal)),
        };
        async move {
            match wait {
                Wait::Done(result) => result,
                // The sender is dropped only when the system is dropped.
                Wait::Pending(answer) => answer.await.unwrap_or(Ok(())),
            }
        }
    }

    fn is_reached(&self, lsn: Lsn, goal: Goal) -> bool {
        self.durable() >= lsn
            && (goal == Goal::Written
                || self
                    .pending_publications
                    .oldest()
                    .is_none_or(|oldest| oldest > lsn))
    }

    fn register(&self, lsn: Lsn, goal: Goal) -> oneshot::Receiver<Result<(), Arc<str>>> {
        let (reply, answer) = oneshot::channel();
        let mut waiting = self.waiting();
        waiting.next_number += 1;
        let number = waiting.next_number;
        let waiter = Waiter { goal, reply };
        waiting.waiters.insert((lsn, number), waiter);
        if !std::mem::replace(&mut waiting.following, true) {
            actix_rt::spawn(self.clone().follow());
        }
        answer
    }

    /// Follows the journal until there are no waiters.
    async fn follow(self) {
        let mut status = self.journal.status();
        loop {
            self.wake();
            if self.stop_if_idle() {
                return;
            }
            if status.changed().await.is_err() {
                self.waiting().following = false;
                return;
            }
        }
    }

    fn stop_if_idle(&self) -> bool {
        let mut waiting = self.waiting();
        if waiting.waiters.is_empty() {
            waiting.following = false;
        }
        !waiting.following
    }

    /// Wakes the waiters whose goal is reached, in the order of the journal.
    pub(crate) fn wake(&self) {
        let (written, failing) = {
            let status = self.status.borrow();
            (status.durable, status.failing.clone())
        };
        if self.waiting().waiters.is_empty() {
            return;
        }
        let oldest = self.pending_publications.oldest();
        let ready: Vec<(Waiter, Result<(), Arc<str>>)> = {
            let mut waiting = self.waiting();
            let ready = waiting.waiters.extract_if(.., |(lsn, _), waiter| {
                let published = || oldest.is_none_or(|oldest| oldest > *lsn);
                let gone = waiter.reply.is_closed();
                let failing =
                    waiter.goal == Goal::PublishedOrFailing && failing.is_some() && written < *lsn;
                gone || failing
                    || (written >= *lsn && (waiter.goal == Goal::Written || published()))
            });
            ready
                .map(|((lsn, _), waiter)| {
                    let answer = match &failing {
                        Some(why) if written < lsn => Err(Arc::clone(why)),
                        _ => Ok(()),
                    };
                    (waiter, answer)
                })
                .collect()
        };
        for (waiter, answer) in ready {
            // The waiter may have been dropped.
            let _ = waiter.reply.send(answer);
        }
    }
}
