//! The timeline of a task: one entry per change that explains why the task waits or ended. The journal keeps the
//! entries; `greenroom why` and `GET /v1/tasks/{id}/why` return them. Pure.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::ids::TaskId;
use super::notice::NoticeKind;
use super::outbox::DeliveryStatus;
use super::task::{Task, TaskStatus};
use crate::ports::journal::JournalEntry;

/// One entry of a timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TimelineEntry {
    /// What happened, in a word or two.
    pub what: Cow<'static, str>,
    /// Details; empty if there are none.
    pub detail: Cow<'static, str>,
}

impl TimelineEntry {
    /// Creates an entry with what happened, in a word or two, and details.
    pub fn new(what: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            what: what.into(),
            detail: detail.into(),
        }
    }
}

/// The number of entries of a timeline. Once it is full, a new entry replaces the newest one.
pub const MAX_ENTRIES: usize = 100;

/// Adds an entry to a timeline.
pub fn push<T>(timeline: &mut Vec<(T, TimelineEntry)>, at: T, entry: TimelineEntry) {
    if timeline.len() == MAX_ENTRIES {
        timeline.pop();
    }
    timeline.push((at, entry));
}

/// The entry of each task of a message that is about to be sent; its details begin with the message's id.
const SENDING_TO_PARENT: &str = "notifying the parent";
/// The same entry in journals of earlier releases.
const FORMER_SENDING_TO_PARENT: &str = "telling the parent";

/// Returns the entries that a change adds, each with its subject: the id of a task, or of a message to a parent.
pub fn entries_of(change: &JournalEntry) -> Vec<(&str, TimelineEntry)> {
    fn single<'a>(
        task: &'a TaskId,
        what: &'static str,
        detail: String,
    ) -> Vec<(&'a str, TimelineEntry)> {
        vec![(task.as_str(), TimelineEntry::new(what, detail))]
    }
    match change {
        JournalEntry::Task {
            task,
            changed: Some(changed),
            ..
        } => {
            let entry = change_entry(task, changed.from);
            vec![(task.id.as_str(), entry)]
        }
        JournalEntry::Granted(task, run) => single(task, "slot granted", format!("run {run}")),
        JournalEntry::Prompted(task, run) => single(task, "prompt accepted", format!("run {run}")),
        JournalEntry::Noted(task, entry) => vec![(task.as_str(), entry.clone())],
        JournalEntry::Left(parent, task) => {
            single(task, "left its batch", format!("{parent} is not notified"))
        }
        JournalEntry::Sending { parent, message } => {
            let kind = match message.facts.kind {
                NoticeKind::Individual => "note",
                NoticeKind::Final => "final message",
                NoticeKind::Continue => "prompt to continue",
            };
            let tasks = message.reports.iter().map(|report| &report.fact.task);
            let entry = TimelineEntry::new(
                SENDING_TO_PARENT,
                format!("{} {kind} to {parent}", message.id),
            );
            tasks.map(|task| (task.as_str(), entry.clone())).collect()
        }
        JournalEntry::Returned(_, id) => vec![(
            id.as_str(),
            TimelineEntry::new("message refused", "the next message repeats it"),
        )],
        JournalEntry::Delivery { id, status, .. } => {
            let entry = match status {
                DeliveryStatus::Delivered => TimelineEntry::new("parent notified", id.to_string()),
                DeliveryStatus::Dropped(why) => TimelineEntry::new("message given up", why.clone()),
                DeliveryStatus::Pending => {
                    TimelineEntry::new("message not accepted", "it is sent again")
                }
                DeliveryStatus::Sending => return Vec::new(),
            };
            vec![(id.as_str(), entry)]
        }
        JournalEntry::TurnFailed { id, error, .. } => vec![(
            id.as_str(),
            TimelineEntry::new("turn failed", error.clone()),
        )],
        JournalEntry::Forgotten(task, _) => single(task, "left memory", String::new()),
        JournalEntry::Task { changed: None, .. }
        | JournalEntry::Joined { .. }
        | JournalEntry::Settled { .. }
        | JournalEntry::Closed { .. }
        | JournalEntry::ParentGone(..)
        | JournalEntry::Silenced(..)
        | JournalEntry::TurnUnwatched(..)
        | JournalEntry::Aborted(..)
        | JournalEntry::Key(_)
        | JournalEntry::Unaccepted(_)
        | JournalEntry::AbortReceived(..)
        | JournalEntry::AbortJudged(_)
        | JournalEntry::Owner(..) => Vec::new(),
    }
}

fn change_entry(task: &Task, from: Option<TaskStatus>) -> TimelineEntry {
    let session = || {
        let session = task.session.as_ref();
        session.map_or_else(String::new, |session| format!("in session {session}"))
    };
    match (from, task.status()) {
        (None, TaskStatus::Running) => TimelineEntry::new("tracked", session()),
        (None, _) => TimelineEntry::new(
            "accepted",
            format!("queues under {}", task.concurrency_group),
        ),
        (Some(TaskStatus::Running), TaskStatus::Pending) => TimelineEntry::new(
            "waits to continue",
            format!("attempt {} was cut off, {}", task.attempt(), session()),
        ),
        (Some(_), TaskStatus::Pending) => TimelineEntry::new(
            "resumed",
            format!("run {}, queues under {}", task.run, task.concurrency_group),
        ),
        (Some(_), TaskStatus::Running) => TimelineEntry::new("running", session()),
        (Some(_), ended) => {
            let why = [task.error(), task.note()].into_iter().flatten();
            let why: Vec<&str> = why.collect();
            TimelineEntry::new(ended.as_str(), why.join("; "))
        }
    }
}

fn is_sending_to_parent(entry: &TimelineEntry) -> bool {
    [SENDING_TO_PARENT, FORMER_SENDING_TO_PARENT].contains(&entry.what.as_ref())
}

/// Returns the timeline of a task in the order of time: its own entries and the entries of the messages that reported
/// it. `read_entries` returns the stored entries of a task or a message.
pub fn of_task<T: Ord + Copy>(
    task: &TaskId,
    read_entries: impl Fn(&str) -> Vec<(T, TimelineEntry)>,
) -> Vec<(T, TimelineEntry)> {
    let mut timeline = read_entries(task.as_str());
    let mut messages: Vec<String> = Vec::new();
    for (_, entry) in timeline
        .iter()
        .filter(|(_, entry)| is_sending_to_parent(entry))
    {
        let id = entry.detail.split(' ').next().unwrap_or_default();
        if !messages.iter().any(|known| known == id) {
            messages.push(id.to_owned());
        }
    }
    for message in messages {
        timeline.extend(read_entries(&message));
    }
    // Stable: at one instant the task's own entries come first.
    timeline.sort_by_key(|(at, _)| *at);
    timeline
}
