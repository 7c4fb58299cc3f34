//! Changes of tasks that are decided and not yet published. The registry publishes a change once it is durable, in the order
//! of the decisions. The queue is kept over restarts of the registry, so that no change is lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::handle::TaskChange;
use crate::lock::lock;
use crate::ports::journal::Lsn;

/// A change that is not yet published.
#[derive(Debug, Clone)]
pub(crate) struct PendingPublication {
    pub(crate) number: u64,
    /// The position in the journal; none until the change is appended.
    lsn: Option<Lsn>,
    pub(crate) change: TaskChange,
}

/// The queue of pending publications, oldest first. While the journal cannot be written, it grows by a few changes for each
/// open task: no new tasks are accepted then.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingPublications(Arc<Mutex<VecDeque<PendingPublication>>>);

impl PendingPublications {
    fn pending(&self) -> MutexGuard<'_, VecDeque<PendingPublication>> {
        lock(&self.0)
    }

    /// Adds a change that is about to be appended.
    pub(crate) fn push(&self, number: u64, change: TaskChange) {
        self.pending().push_back(PendingPublication {
            number,
            lsn: None,
            change,
        });
    }

    /// Records the position of a change that was appended.
    pub(crate) fn appended(&self, number: u64, lsn: Lsn) {
        if let Some(pending) = self
            .pending()
            .iter_mut()
            .rev()
            .find(|pending| pending.number == number)
        {
            pending.lsn = Some(lsn);
        }
    }

    /// Reconciles the queue with the journal after a restart of the registry. Changes numbered up to `newest` were appended;
    /// later ones without a position were not, and are removed.
    pub(crate) fn settle(&self, newest: u64, lsn: Lsn) {
        let mut pending = self.pending();
        pending.retain(|pending| pending.lsn.is_some() || pending.number <= newest);
        for pending in pending.iter_mut() {
            pending.lsn.get_or_insert(lsn);
        }
    }

    /// Takes the oldest change, if it is durable.
    pub(crate) fn take(&self, durable: Lsn) -> Option<PendingPublication> {
        let mut pending = self.pending();
        let first = pending.front()?.lsn?;
        if first > durable {
            return None;
        }
        pending.pop_front()
    }

    /// Returns the position of the oldest change; the lowest position if that change is not appended yet.
    pub(crate) fn oldest(&self) -> Option<Lsn> {
        let pending = self.pending();
        let first = pending.front()?;
        Some(first.lsn.unwrap_or_default())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending().is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.pending().len()
    }
}
