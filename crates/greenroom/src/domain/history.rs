//! A parent's history: its newest hundred tasks with their current state, and the compact Markdown form for a session's
//! compaction.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::foreign_text::one_line;
use super::ids::{SessionId, TaskId};
use super::task::{Task, TaskStatus, cut};
use crate::maps::Map;

/// The number of entries of a history.
pub const MAX_ENTRIES: usize = 100;
/// The number of entries in the Markdown form.
pub const MARKDOWN_ENTRIES: usize = 20;

/// One task in a parent's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HistoryEntry {
    /// The task.
    pub task: TaskId,
    /// The agent.
    pub agent: Arc<str>,
    /// A label set by the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Arc<str>>,
    /// The current state.
    pub status: TaskStatus,
    /// The description for people.
    pub description: Arc<str>,
    /// The session, once it exists.
    #[serde(rename = "sessionID", default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

impl HistoryEntry {
    fn of(task: &Task) -> Self {
        Self {
            task: task.id.clone(),
            agent: task.agent.clone(),
            category: task.category.clone(),
            status: task.status(),
            description: task.description.clone(),
            session: task.session.clone(),
        }
    }
}

/// A parent's history, oldest first.
#[derive(Debug, Clone, Default)]
pub struct History {
    entries: VecDeque<HistoryEntry>,
    /// The position of each task, counted from the first task ever recorded.
    positions: Map<TaskId, u64>,
    /// The number of evicted entries.
    removed: u64,
}

impl History {
    /// Records the current state of a task: updates its entry or appends a new one.
    pub fn record(&mut self, task: &Task) {
        if let Some(entry) = self
            .position(&task.id)
            .and_then(|at| self.entries.get_mut(at))
        {
            // The other fields of an entry never change.
            entry.status = task.status();
            entry.session.clone_from(&task.session);
            return;
        }
        let position = self.removed + self.entries.len() as u64;
        self.positions.insert(task.id.clone(), position);
        self.entries.push_back(HistoryEntry::of(task));
        if self.entries.len() > MAX_ENTRIES
            && let Some(oldest) = self.entries.pop_front()
        {
            self.positions.remove(&oldest.task);
            self.removed += 1;
        }
    }

    fn position(&self, task: &TaskId) -> Option<usize> {
        let position = self.positions.get(task)?.checked_sub(self.removed)?;
        usize::try_from(position).ok()
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the entries, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &HistoryEntry> {
        self.entries.iter()
    }
}

/// Returns the compact Markdown form of a history: its newest twenty entries, and the rule to resume a session instead
/// of repeating its task. Empty for an empty history.
pub fn markdown(entries: &[HistoryEntry]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let mut text = String::from("## Background tasks\n\n");
    for entry in entries.iter().rev().take(MARKDOWN_ENTRIES).rev() {
        let description = one_line(&entry.description);
        let session = entry
            .session
            .as_ref()
            .map_or("no session", SessionId::as_str);
        let session = one_line(session);
        let category = entry
            .category
            .as_deref()
            .map(|category| format!(", {}", one_line(category)))
            .unwrap_or_default();
        text.push_str(&format!(
            "- `{}` {} ({}{category}), session `{session}`: {}\n",
            one_line(entry.task.as_str()),
            entry.status.as_str(),
            one_line(&entry.agent),
            cut(&description, 240),
        ));
    }
    text.push_str(
        "\nResume a session of this list (`session_id`) rather than start its task again.\n",
    );
    text
}
