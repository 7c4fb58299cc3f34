//! What happened to a task, in words: one entry per change that matters to somebody who asks why it waits or why it ended.
//! The journal keeps the lines; `greenroom why` and `GET /v1/tasks/{id}/why` tell them. Pure.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::ids::TaskId;
use super::notice::NoticeKind;
use super::outbox::DeliveryStatus;
use super::task::{Task, TaskStatus};
use crate::ports::journal::JournalEntry;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TimelineEntry {
    /// What happened, in a word or two.
    pub what: Cow<'static, str>,
    /// The particulars; empty if there are none.
    pub detail: String,
}

impl TimelineEntry {
    /// What happened in a word or two, and the particulars.
    pub fn new(what: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            detail: detail.into(),
        }
    }
}

/// How many lines of a timeline are kept; after that the newest takes the place of the one before it.
pub const MAX_ENTRIES: usize = 100;

/// Adds a entry to what is kept of a timeline.
pub fn push<T>(timeline: &mut Vec<(T, TimelineEntry)>, at: T, entry: TimelineEntry) {
    if timeline.len() == MAX_ENTRIES {
        timeline.pop();
    }
    timeline.push((at, entry));
}

/// A message is about to be sent: the entry of each of its tasks, which names the message.
const SENDING_TO_PARENT: &str = "telling the parent";

/// The lines a change adds, each with whom it is about: a task by its id, or a message to a parent by its own.
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
            single(task, "left its batch", format!("{parent} is not told"))
        }
        JournalEntry::Sending { parent, message } => {
            let kind = match message.facts.kind {
                NoticeKind::Individual => "note",
                NoticeKind::Final => "final message",
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
            TimelineEntry::new("message refused", "the next one says it too"),
        )],
        JournalEntry::Delivery { id, status, .. } => {
            let entry = match status {
                DeliveryStatus::Delivered => TimelineEntry::new("parent told", id.as_str()),
                DeliveryStatus::Dropped(why) => {
                    TimelineEntry::new("message given up", why.as_str())
                }
                DeliveryStatus::Pending => {
                    TimelineEntry::new("message not accepted", "it is sent again")
                }
                DeliveryStatus::Sending => return Vec::new(),
            };
            vec![(id.as_str(), entry)]
        }
        JournalEntry::Forgotten(task, _) => single(task, "left memory", String::new()),
        JournalEntry::Task { changed: None, .. }
        | JournalEntry::Joined { .. }
        | JournalEntry::Settled { .. }
        | JournalEntry::Closed { .. }
        | JournalEntry::ParentGone(..)
        | JournalEntry::Silenced(..)
        | JournalEntry::Aborted(..)
        | JournalEntry::Key(_)
        | JournalEntry::Unaccepted(_) => Vec::new(),
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

/// The timeline of a task: its own lines and those of the messages that told of it, in the order of time. `kept` says what is
/// kept about a task or a message.
pub fn of_task<T: Ord + Copy>(
    task: &TaskId,
    read_entries: impl Fn(&str) -> Vec<(T, TimelineEntry)>,
) -> Vec<(T, TimelineEntry)> {
    let mut timeline = read_entries(task.as_str());
    let mut messages: Vec<String> = Vec::new();
    for (_, entry) in timeline
        .iter()
        .filter(|(_, entry)| entry.what == SENDING_TO_PARENT)
    {
        let id = entry.detail.split(' ').next().unwrap_or_default();
        if !messages.iter().any(|known| known == id) {
            messages.push(id.to_owned());
        }
    }
    for message in messages {
        timeline.extend(read_entries(&message));
    }
    // Stable: of one instant, the task's own come first.
    timeline.sort_by_key(|(at, _)| *at);
    timeline
}
