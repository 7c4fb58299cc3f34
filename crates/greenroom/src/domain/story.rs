//! What happened to a task, in words: one line per change that matters to somebody who asks why it waits or why it ended.
//! The journal keeps the lines; `greenroom why` and `GET /v1/tasks/{id}/why` tell them. Pure.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::ids::TaskId;
use super::notice::NoticeKind;
use super::outbox::DeliveryStatus;
use super::task::{Task, TaskStatus};
use crate::ports::journal::Entry;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Line {
    /// What happened, in a word or two.
    pub what: Cow<'static, str>,
    /// The particulars; empty if there are none.
    pub detail: String,
}

impl Line {
    /// What happened in a word or two, and the particulars.
    pub fn new(what: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            detail: detail.into(),
        }
    }
}

/// How many lines of a story are kept; after that the newest takes the place of the one before it.
pub const LINES: usize = 100;

/// Adds a line to what is kept of a story.
pub fn keep<T>(story: &mut Vec<(T, Line)>, at: T, line: Line) {
    if story.len() == LINES {
        story.pop();
    }
    story.push((at, line));
}

/// A message is about to be sent: the line of each of its tasks, which names the message.
const TELLING: &str = "telling the parent";

/// The lines a change adds, each with whom it is about: a task by its id, or a message to a parent by its own.
pub fn lines(entry: &Entry) -> Vec<(&str, Line)> {
    fn of<'a>(task: &'a TaskId, what: &'static str, detail: String) -> Vec<(&'a str, Line)> {
        vec![(task.as_str(), Line::new(what, detail))]
    }
    match entry {
        Entry::Task {
            task,
            changed: Some(changed),
            ..
        } => {
            let line = changed_line(task, changed.from);
            vec![(task.id.as_str(), line)]
        }
        Entry::Granted(task, run) => of(task, "slot granted", format!("run {run}")),
        Entry::Prompted(task, run) => of(task, "prompt accepted", format!("run {run}")),
        Entry::Noted(task, line) => vec![(task.as_str(), line.clone())],
        Entry::Left(parent, task) => of(task, "left its batch", format!("{parent} is not told")),
        Entry::Sending { parent, message } => {
            let kind = match message.facts.kind {
                NoticeKind::Individual => "note",
                NoticeKind::Final => "final message",
            };
            let tasks = message.reports.iter().map(|report| &report.fact.task);
            let line = Line::new(TELLING, format!("{} {kind} to {parent}", message.id));
            tasks.map(|task| (task.as_str(), line.clone())).collect()
        }
        Entry::Returned(_, id) => vec![(
            id.as_str(),
            Line::new("message refused", "the next one says it too"),
        )],
        Entry::Delivery { id, status, .. } => {
            let line = match status {
                DeliveryStatus::Delivered => Line::new("parent told", id.as_str()),
                DeliveryStatus::Dropped(why) => Line::new("message given up", why.as_str()),
                DeliveryStatus::Pending => Line::new("message not accepted", "it is sent again"),
                DeliveryStatus::Sending => return Vec::new(),
            };
            vec![(id.as_str(), line)]
        }
        Entry::Forgotten(task, _) => of(task, "left memory", String::new()),
        Entry::Task { changed: None, .. }
        | Entry::Joined { .. }
        | Entry::Settled { .. }
        | Entry::Closed { .. }
        | Entry::ParentGone(..)
        | Entry::Silenced(..)
        | Entry::Aborted(..)
        | Entry::Key(_)
        | Entry::Unaccepted(_) => Vec::new(),
    }
}

fn changed_line(task: &Task, from: Option<TaskStatus>) -> Line {
    let session = || {
        let session = task.session.as_ref();
        session.map_or_else(String::new, |session| format!("in session {session}"))
    };
    match (from, task.status()) {
        (None, TaskStatus::Running) => Line::new("tracked", session()),
        (None, _) => Line::new(
            "accepted",
            format!("queues under {}", task.concurrency_group),
        ),
        (Some(_), TaskStatus::Pending) => Line::new(
            "resumed",
            format!("run {}, queues under {}", task.run, task.concurrency_group),
        ),
        (Some(_), TaskStatus::Running) => Line::new("running", session()),
        (Some(_), ended) => {
            let why = [task.error(), task.note()].into_iter().flatten();
            let why: Vec<&str> = why.collect();
            Line::new(ended.as_str(), why.join("; "))
        }
    }
}

/// The story of a task: its own lines and those of the messages that told of it, in the order of time. `kept` says what is
/// kept about a task or a message.
pub fn told<T: Ord + Copy>(task: &TaskId, kept: impl Fn(&str) -> Vec<(T, Line)>) -> Vec<(T, Line)> {
    let mut story = kept(task.as_str());
    let mut messages: Vec<String> = Vec::new();
    for (_, line) in story.iter().filter(|(_, line)| line.what == TELLING) {
        let id = line.detail.split(' ').next().unwrap_or_default();
        if !messages.iter().any(|known| known == id) {
            messages.push(id.to_owned());
        }
    }
    for message in messages {
        story.extend(kept(&message));
    }
    // Stable: of one instant, the task's own come first.
    story.sort_by_key(|(at, _)| *at);
    story
}
