//! What a parent's tasks were: its newest hundred, with their state now, and the compact Markdown form that a session's
//! compaction carries along.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ids::{SessionId, TaskId};
use super::notification::{escape_wrapper, one_line};
use super::task::{Task, TaskStatus, cut};
use crate::maps::Map;

/// How many entries a parent's history keeps.
pub const MAX_ENTRIES: usize = 100;
/// How many of them the Markdown form shows.
pub const MARKDOWN_ENTRIES: usize = 20;

/// One task as its parent's history knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HistoryEntry {
    /// The task.
    pub task: TaskId,
    /// Who does it.
    pub agent: Arc<str>,
    /// A label of the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Arc<str>>,
    /// Its state now.
    pub status: TaskStatus,
    /// A few words for people.
    pub description: Arc<str>,
    /// Its session, once there is one.
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
    /// Where each stands, counted from the first there ever was.
    positions: Map<TaskId, u64>,
    /// How many have been let go of.
    removed: u64,
}

impl History {
    /// Records what a task is now: its entry is brought up to date, or added at the end if it has none.
    pub fn record(&mut self, task: &Task) {
        if let Some(entry) = self
            .position(&task.id)
            .and_then(|at| self.entries.get_mut(at))
        {
            // What else it says of a task never changes.
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

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &HistoryEntry> {
        self.entries.iter()
    }
}

/// The compact form of a history: its newest twenty, and the rule to resume a session rather than start it again. Empty
/// for an empty history.
pub fn markdown(entries: &[HistoryEntry]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let mut text = String::from("## Background tasks\n\n");
    for entry in entries.iter().rev().take(MARKDOWN_ENTRIES).rev() {
        let description = one_line(&entry.description);
        let description = escape_wrapper(&description);
        let session = entry
            .session
            .as_ref()
            .map_or("no session", SessionId::as_str);
        let category = entry
            .category
            .as_deref()
            .map(|category| format!(", {category}"))
            .unwrap_or_default();
        text.push_str(&format!(
            "- `{}` {} ({}{category}), session `{session}`: {}\n",
            entry.task,
            entry.status.as_str(),
            entry.agent,
            cut(&description, 240),
        ));
    }
    text.push_str(
        "\nResume a session of this list (`session_id`) rather than start its task again.\n",
    );
    text
}
