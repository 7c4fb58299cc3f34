//! The replies of the tools about tasks: short, with the next step, without a suggestion to poll. Pure: the time is an
//! argument.

use greenroom::TaskDetail;
use greenroom::domain::history::HistoryEntry;
use greenroom::domain::ids::TaskId;
use greenroom::domain::output::Output;
use greenroom::domain::task::{Task, cut};
use greenroom::domain::time::{Timestamp, duration_text};

use super::pages;
use crate::cli::client::TaskView;
use crate::cli::show;
use crate::cli::terminal::one_line;

/// Maximum length of a description, in characters.
const MAX_DESCRIPTION: usize = 240;
/// Maximum length of other lines, in characters.
const MAX_LINE: usize = 2000;
/// Maximum number of named descendants of a cancelled task.
const MAX_NAMED: usize = 20;
/// Maximum number of tasks in a list.
pub const MAX_LISTED: usize = 100;

/// How a caller learns of the end of its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeMode {
    /// A message wakes its session.
    Message,
    /// Not at all: the caller has no session.
    None,
    /// Not at all: the process of its session ends with the turn.
    EndsWithTurn,
}

/// Returns the reply to a launch or resume.
pub fn launched(detail: &TaskDetail, wake_mode: WakeMode) -> String {
    let task = &detail.task;
    let head = match task.run.0 {
        1 => "Background task launched.",
        _ => "Background task resumed in its session.",
    };
    let mut text = format!("{head}\n\n");
    facts(&mut text, task);
    fact(&mut text, "status", task.status().as_str());
    waits_line(&mut text, detail);
    if let Some(error) = task.error() {
        fact(&mut text, "error", &line(error));
    }
    text.push('\n');
    text.push_str(&next_step(task, wake_mode));
    text
}

/// Returns the next step while a task is open.
fn next_step(task: &Task, wake_mode: WakeMode) -> String {
    let id = &task.id;
    match (task.status().is_terminal(), wake_mode) {
        (true, _) => {
            format!("It has ended already: read it with background_output(task_id=\"{id}\").")
        }
        (false, WakeMode::Message) => format!(
            "You will be notified when it ends. Do not poll or wait for it: go on with other work, or end your turn. \
             Then read its result with background_output(task_id=\"{id}\")."
        ),
        (false, WakeMode::EndsWithTurn) => format!(
            "This opencode ends with your turn, and cannot be notified: go on with other work, then wait for the task with \
             background_output(task_id=\"{id}\", block=true) before you end your turn."
        ),
        (false, WakeMode::None) => format!(
            "No session is notified when it ends. Go on with other work; when you need its result, wait for it with \
             background_output(task_id=\"{id}\", block=true)."
        ),
    }
}

/// The position in a long text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadPosition {
    /// True for the newest messages first.
    pub from_end: bool,
    /// Offset into the answer, in characters.
    pub offset: usize,
}

/// Returns the reply about an ended task.
pub fn ended(output: &Output, now: Timestamp, position: ReadPosition) -> String {
    let task = &output.task;
    let mut text = String::new();
    facts(&mut text, task);
    fact(&mut text, "status", task.status().as_str());
    match task.started_at() {
        Some(_) => fact(&mut text, "duration", &duration_text(task.duration(now))),
        None => fact(&mut text, "duration", "it never started"),
    }
    if let Some(error) = task.error() {
        fact(&mut text, "error", &line(error));
    }
    if let Some(note) = task.note() {
        fact(&mut text, "note", &line(note));
    }
    text.push('\n');
    match (&output.messages, &output.result) {
        (Some(messages), _) => {
            let more = output.has_more == Some(true);
            text.push_str(&pages::page(messages, more, position.from_end));
        }
        (None, Some(result)) => {
            text.push_str(&pages::answer(result, task.id.as_str(), position.offset))
        }
        (None, None) => text.push_str("(its session has nothing to read)"),
    }
    if task.status().is_failure()
        && let Some(session) = &task.session
    {
        text.push_str(&format!(
            "\n\nIt can go on where it stopped: background_task(session_id=\"{session}\", prompt=…)."
        ));
    }
    text
}

/// The state of an open task.
#[derive(Debug)]
pub struct OpenTask<'a> {
    /// The task, with the reason why it waits.
    pub detail: &'a TaskDetail,
    /// Number of its own open tasks.
    pub below: usize,
    /// Its messages so far, if requested.
    pub output: &'a Output,
    /// True if the newest messages were requested.
    pub from_end: bool,
    /// How the caller learns of its end.
    pub wake_mode: WakeMode,
}

/// Returns the reply about an open task.
pub fn open_task(state: &OpenTask<'_>, now: Timestamp) -> String {
    let task = &state.detail.task;
    let shown = TaskView {
        task: task.clone(),
        waits_for: state.detail.waits_for.clone(),
    };
    let mut text = String::new();
    facts(&mut text, task);
    let since = match task.started_at() {
        Some(_) => task.duration(now),
        None => now.since(task.queued_at),
    };
    match &state.detail.waits_for {
        Some(_) => {
            let status = format!("{} · {}", task.status().as_str(), duration_text(since));
            fact(&mut text, "status", &status);
            waits_line(&mut text, state.detail);
        }
        None => fact(&mut text, "status", &show::progress(&shown, since)),
    }
    if !task.asking.is_empty() {
        fact(&mut text, "waits for", "an answer to its request");
    }
    match state.below {
        0 => {}
        1 => fact(
            &mut text,
            "own tasks",
            "1 open; it waits for it when it is done itself",
        ),
        open => fact(
            &mut text,
            "own tasks",
            &format!("{open} open; it waits for them when it is done itself"),
        ),
    }
    if let Some(message) = &task.progress.last_message {
        fact(&mut text, "last message", &line(message));
    }
    if let Some(messages) = &state.output.messages {
        let more = state.output.has_more == Some(true);
        text.push_str(&format!(
            "\n{}\n",
            pages::page(messages, more, state.from_end)
        ));
    }
    if state.output.timed_out == Some(true) {
        text.push_str("\nIt did not end within the time you waited.");
    }
    text.push('\n');
    text.push_str(&next_step(task, state.wake_mode));
    text
}

/// Returns the reply to a cancel, with the open descendants of the task.
pub fn cancelled(tasks: &[Task], below: &[TaskId]) -> String {
    let mut text = match tasks {
        [] => return "None of your background tasks is open; nothing changed.".to_owned(),
        [_] => "Cancelled:\n".to_owned(),
        several => format!("Cancelled {} tasks:\n", several.len()),
    };
    for task in tasks.iter().take(MAX_LISTED) {
        text.push_str(&format!("- `{}` {}\n", task.id, about(task)));
    }
    more(&mut text, tasks.len());
    text.push_str(match tasks {
        [_] => "You will not be notified of it.",
        _ => "You will not be notified of them.",
    });
    // Named by id, so that the caller can cancel them without `all`.
    match below {
        [] => {}
        [id] => text.push_str(&format!(
            " A task of its own goes on: background_cancel(taskId=\"{id}\") ends that too."
        )),
        several => {
            let named: Vec<&str> = several.iter().take(MAX_NAMED).map(TaskId::as_str).collect();
            text.push_str(&format!(
                " {} tasks of its own go on, which background_cancel ends one by one: {}",
                several.len(),
                named.join(", ")
            ));
            text.push_str(if several.len() > MAX_NAMED {
                ", …"
            } else {
                "."
            });
        }
    }
    text
}

/// Returns the reply to a further prompt.
pub fn sent(task: &Task, wake_mode: WakeMode) -> String {
    format!(
        "Passed on to task {}. {}",
        task.id,
        next_step(task, wake_mode)
    )
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq)]
pub enum ListEntry {
    /// A task in memory.
    InMemory(Box<TaskDetail>),
    /// A task that has left memory.
    History(HistoryEntry),
}

/// Returns the caller's tasks, oldest first. `all` is the total number; the list contains the newest.
pub fn list(tasks: &[ListEntry], all: usize, wake_mode: WakeMode, now: Timestamp) -> String {
    if tasks.is_empty() {
        return "No background tasks.".to_owned();
    }
    let mut text = match all {
        1 => "1 background task:\n".to_owned(),
        several => format!("{several} background tasks, newest last:\n"),
    };
    if all > tasks.len() {
        text.push_str(&format!("… and {} older ones\n", all - tasks.len()));
    }
    let mut open = false;
    for task in tasks {
        match task {
            ListEntry::InMemory(detail) => {
                open |= !detail.task.status().is_terminal();
                text.push_str(&live_entry(detail, now));
            }
            ListEntry::History(entry) => text.push_str(&format!(
                "- `{}` {}, {}: {}\n",
                entry.task,
                entry.status.as_str(),
                named(
                    &entry.agent,
                    entry.session.as_ref().map(|session| session.as_str())
                ),
                cut(&one_line(&entry.description), MAX_DESCRIPTION)
            )),
        }
    }
    text.push_str(match (open, wake_mode) {
        (true, WakeMode::Message) => "You will be notified when the open ones end: do not poll.",
        (true, WakeMode::None | WakeMode::EndsWithTurn) => {
            "Wait for an open one with background_output(task_id, block=true): do not poll."
        }
        (false, _) => "Read a result with background_output(task_id).",
    });
    text
}

fn live_entry(detail: &TaskDetail, now: Timestamp) -> String {
    let task = &detail.task;
    let time = match (task.started_at(), task.status().is_terminal()) {
        (Some(_), _) => format!(" {}", duration_text(task.duration(now))),
        (None, true) => String::new(),
        (None, false) => format!(" {}", duration_text(now.since(task.queued_at))),
    };
    let waits = detail
        .waits_for
        .as_ref()
        .map(|waits| format!(" ({})", waits.text));
    format!(
        "- `{}` {}{time}{}, {}\n",
        task.id,
        task.status().as_str(),
        waits.unwrap_or_default(),
        about(task)
    )
}

/// Returns agent, session and description of a task.
fn about(task: &Task) -> String {
    let session = task.session.as_ref().map(|session| session.as_str());
    format!(
        "{}: {}",
        named(&task.agent, session),
        cut(&one_line(&task.description), MAX_DESCRIPTION)
    )
}

fn named(agent: &str, session: Option<&str>) -> String {
    let session = session.map(|session| format!(", {session}"));
    format!("{}{}", one_line(agent), session.unwrap_or_default())
}

fn more(text: &mut String, all: usize) {
    if all > MAX_LISTED {
        text.push_str(&format!("… and {} more\n", all - MAX_LISTED));
    }
}

fn facts(text: &mut String, task: &Task) {
    fact(text, "task_id", task.id.as_str());
    fact(text, "description", &line(&task.description));
    fact(text, "agent", &line(&task.agent));
    if let Some(session) = &task.session {
        fact(text, "session_id", session.as_str());
    }
}

fn waits_line(text: &mut String, detail: &TaskDetail) {
    if let Some(waits) = &detail.waits_for {
        fact(text, "waits for", &line(&waits.text));
    }
}

fn fact(text: &mut String, name: &str, value: &str) {
    text.push_str(&format!("{name}: {value}\n"));
}

fn line(text: &str) -> String {
    cut(&one_line(text), MAX_LINE).to_owned()
}
