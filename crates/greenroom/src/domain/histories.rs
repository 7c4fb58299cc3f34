//! The histories of all parents: as many as may be remembered together. Owned by the registry; pure.

use std::collections::BTreeMap;

use super::history::History;
use super::ids::SessionId;
use super::task::Task;
use crate::maps::Map;

/// How many parents' histories are kept, and how many entries they may have together: sessions come and go for as long as
/// a service lives. The history changed longest ago goes first.
const MAX_PARENTS: usize = 10_000;
const MAX_TOTAL_ENTRIES: usize = 100_000;

/// Every parent's history.
#[derive(Debug, Default)]
pub struct Histories {
    by_parent: Map<SessionId, ParentHistory>,
    // Which change of all was the newest of each.
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
    /// Records what a task is now in the history of that parent, which begins with it if there is none.
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

    /// That parent's history, if one is kept.
    pub fn of(&self, parent: &SessionId) -> Option<&History> {
        self.by_parent
            .get(parent)
            .map(|parent_history| &parent_history.history)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_parent.len()
    }

    /// True if there is none.
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
            // One of the first goes on.
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
