//! Waiting for what was decided to be durable. Whoever waits is woken in the order of the journal, not in whatever order a
//! channel has: effects keep the order of their causes, and a run under virtual time can be repeated. One task follows the
//! journal while anybody waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use super::pending_publications::PendingPublications;
use crate::ports::journal::{Journal, JournalStatus, Lsn};

/// What a waiter waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// It is written.
    Written,
    /// It is written, and readers have been shown it.
    Published,
    /// The same, or it cannot be written at present.
    PublishedOrFailing,
}

struct Waiter {
    goal: Goal,
    reply: oneshot::Sender<Result<(), Arc<str>>>,
}

#[derive(Default)]
struct Waiting {
    // One per effect, answer or reader under way: bounded by the tasks that are open.
    waiters: BTreeMap<(Lsn, u64), Waiter>,
    next_number: u64,
    following: bool,
}

/// The way of what was decided to being durable. Clones are one.
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
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once everything that was decided before this was called is written, whoever has seen it.
    pub(crate) fn written(&self) -> impl Future<Output = ()> + use<> {
        let written = self.wait(Goal::Written);
        async move {
            let _ = written.await;
        }
    }

    /// The same, and readers have been shown it.
    pub(crate) fn published(&self) -> impl Future<Output = ()> + use<> {
        let published = self.wait(Goal::Published);
        async move {
            let _ = published.await;
        }
    }

    /// The same for whoever has a caller waiting: an error says why the journal cannot be written.
    pub(crate) fn published_or_failing(
        &self,
    ) -> impl Future<Output = Result<(), Arc<str>>> + use<> {
        self.wait(Goal::PublishedOrFailing)
    }

    /// How far the journal is written.
    pub(crate) fn durable(&self) -> Lsn {
        self.status.borrow().durable
    }

    /// Why it cannot be written at present.
    pub(crate) fn failing(&self) -> Option<Arc<str>> {
        self.status.borrow().failing.clone()
    }

    /// True if everything that was decided is written and shown.
    pub(crate) fn is_current(&self) -> bool {
        self.durable() >= self.journal.last_lsn() && self.pending_publications.is_empty()
    }

    fn wait(&self, goal: Goal) -> impl Future<Output = Result<(), Arc<str>>> + use<> {
        let lsn = self.journal.last_lsn();
        let known = match self.is_reached(lsn, goal) {
            true => Some(Ok(())),
            // Known already: nothing may change for a while.
            false if goal == Goal::PublishedOrFailing => self.failing().map(Err),
            false => None,
        };
        let wait = known.is_none().then(|| self.register(lsn, goal));
        async move {
            match (known, wait) {
                (Some(known), _) => known,
                // Nobody is left to say so: the system has been let go of.
                (None, Some(wait)) => wait.await.unwrap_or(Ok(())),
                (None, None) => Ok(()),
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

    /// Follows the journal until nobody waits.
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

    /// Wakes whoever has waited long enough, in the order of the journal.
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
            // Whoever waited may have gone away.
            let _ = waiter.reply.send(answer);
        }
    }
}
