//! Changes of tasks that are decided and not yet shown: readers hear of one once it is durable, in the order of deciding.
//! They outlive the registry that decided them, so that one that dies in between takes no change with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::handle::TaskChange;
use crate::ports::journal::Lsn;

/// A change on its way to its readers.
#[derive(Debug, Clone)]
pub(crate) struct PendingPublication {
    pub(crate) number: u64,
    /// Where it is in the journal; none until it has been appended.
    lsn: Option<Lsn>,
    pub(crate) change: TaskChange,
}

/// Those on their way, oldest first. It grows while the journal cannot be written, by a few changes for each task that is
/// open then: nothing new is accepted meanwhile.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingPublications(Arc<Mutex<VecDeque<PendingPublication>>>);

impl PendingPublications {
    fn pending(&self) -> MutexGuard<'_, VecDeque<PendingPublication>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change is about to be appended.
    pub(crate) fn push(&self, number: u64, change: TaskChange) {
        self.pending().push_back(PendingPublication {
            number,
            lsn: None,
            change,
        });
    }

    /// It has been.
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

    /// After a death: what was appended is known by the numbers the journal has; the rest never was.
    pub(crate) fn settle(&self, newest: u64, lsn: Lsn) {
        let mut pending = self.pending();
        pending.retain(|pending| pending.lsn.is_some() || pending.number <= newest);
        for pending in pending.iter_mut() {
            pending.lsn.get_or_insert(lsn);
        }
    }

    /// The oldest one, if it is durable.
    pub(crate) fn take(&self, durable: Lsn) -> Option<PendingPublication> {
        let mut pending = self.pending();
        let first = pending.front()?.lsn?;
        if first > durable {
            return None;
        }
        pending.pop_front()
    }

    /// The place of the oldest one; one that is being appended has none before it either.
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
