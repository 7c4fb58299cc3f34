//! The histories of all parents, bounded in total. Owned by the registry; pure.

use std::collections::BTreeMap;

use super::history::History;
use super::ids::SessionId;
use super::task::Task;
use crate::maps::Map;

/// The number of histories kept, and of their entries in total. The history changed longest ago is evicted first.
const MAX_PARENTS: usize = 10_000;
const MAX_TOTAL_ENTRIES: usize = 100_000;

/// The histories by parent.
#[derive(Debug, Default)]
pub struct Histories {
    by_parent: Map<SessionId, ParentHistory>,
    // The newest change of each history.
    by_change: BTreeMap<u64, SessionId>,
    changes: u64,
    entries: usize,
}

#[derive(Debug, Default)]
struct ParentHistory {
    changed: u64,
    history: History,
}

impl Histories {
    /// Records the current state of a task in the history of a parent, which is created if necessary.
    pub fn record(&mut self, parent: &SessionId, task: &Task) {
        self.changes += 1;
        let parent_history = self.by_parent.entry(parent.clone()).or_default();
        self.by_change.remove(&parent_history.changed);
        parent_history.changed = self.changes;
        self.by_change.insert(self.changes, parent.clone());
        let before = parent_history.history.len();
        parent_history.history.record(task);
        self.entries = self.entries - before + parent_history.history.len();
        while (self.by_parent.len() > MAX_PARENTS || self.entries > MAX_TOTAL_ENTRIES)
            && let Some((_, oldest)) = self.by_change.pop_first()
        {
            let removed = self.by_parent.remove(&oldest);
            self.entries -= removed.map_or(0, |parent_history| parent_history.history.len());
        }
    }

    /// Returns the history of a parent, if it is kept.
    pub fn of(&self, parent: &SessionId) -> Option<&History> {
        self.by_parent
            .get(parent)
            .map(|parent_history| &parent_history.history)
    }

    /// Returns the number of histories.
    pub fn len(&self) -> usize {
        self.by_parent.len()
    }

    /// Returns true if there is no history.
    pub fn is_empty(&self) -> bool {
        self.by_parent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::history::MAX_ENTRIES;
    use crate::domain::task::Launch;
    use crate::domain::time::Timestamp;

    fn task(number: usize) -> Task {
        let id = format!("bg_{number:08x}").as_str().into();
        Task::accept(id, Launch::default(), 1, Timestamp::from_millis(0))
    }

    fn parent(number: usize) -> SessionId {
        SessionId::new(format!("ses_{number}"))
    }

    #[test]
    fn entries_are_bounded_and_active_history_is_kept() {
        let mut histories = Histories::default();
        let full = MAX_TOTAL_ENTRIES / MAX_ENTRIES;
        for number in 0..2 * full {
            for place in 0..MAX_ENTRIES {
                histories.record(&parent(number), &task(number * MAX_ENTRIES + place));
            }
            // One of the first parents stays active.
            histories.record(&parent(0), &task(0));
        }
        let entries = |number| histories.of(&parent(number)).map(|of| of.entries().count());
        assert_eq!(histories.len(), full);
        assert_eq!(entries(0), Some(MAX_ENTRIES));
        assert_eq!(entries(1), None);
        assert_eq!(entries(2 * full - 1), Some(MAX_ENTRIES));
        let counted: usize = (0..2 * full).filter_map(entries).sum();
        assert_eq!(
            (histories.entries, counted),
            (MAX_TOTAL_ENTRIES, MAX_TOTAL_ENTRIES)
        );
    }

    #[test]
    fn parents_are_bounded() {
        let mut histories = Histories::default();
        for number in 0..MAX_PARENTS + 5 {
            histories.record(&parent(number), &task(number));
        }
        assert_eq!(histories.len(), MAX_PARENTS);
        assert!(histories.of(&parent(4)).is_none());
        assert!(histories.of(&parent(5)).is_some());
    }
}
