//! What agents read of tasks: short, with what to do next, and never an invitation to poll. Pure: time comes in as an
//! argument.

use greenroom::TaskDetail;
use greenroom::domain::history::HistoryEntry;
use greenroom::domain::ids::TaskId;
use greenroom::domain::output::Output;
use greenroom::domain::task::{Task, cut};
use greenroom::domain::time::{Timestamp, duration_text};

use super::pages;
use crate::cli::client::Shown;
use crate::cli::show;
use crate::cli::term::one_line;

/// Characters of a description.
const DESCRIPTION: usize = 240;
/// Characters of anything else on one line.
const LINE: usize = 2000;
/// Tasks that go on below one that was cancelled, and are named.
const NAMED: usize = 20;
/// Tasks of a list, and of what was cancelled.
pub const LISTED: usize = 100;

/// What becomes of a caller when its tasks end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is a session: a message wakes it.
    Yes,
    /// It names no session: it must ask.
    No,
    /// It is a session whose process ends with its turn: it must wait.
    TooLate,
}

/// A task that was launched or resumed.
pub fn launched(detail: &TaskDetail, told: Told) -> String {
    let task = &detail.task;
    let head = match task.run.0 {
        1 => "Background task launched.",
        _ => "Background task resumed in its session.",
    };
    let mut text = format!("{head}\n\n");
    facts(&mut text, task);
    fact(&mut text, "status", task.status().as_str());
    waits(&mut text, detail);
    if let Some(error) = task.error() {
        fact(&mut text, "error", &line(error));
    }
    text.push('\n');
    text.push_str(&later(task, told));
    text
}

/// What to do while a task goes on.
fn later(task: &Task, told: Told) -> String {
    let id = &task.id;
    match (task.status().is_terminal(), told) {
        (true, _) => {
            format!("It has ended already: read it with background_output(task_id=\"{id}\").")
        }
        (false, Told::Yes) => format!(
            "You will be told when it ends. Do not poll or wait for it: go on with other work, or end your turn. \
             Then read its result with background_output(task_id=\"{id}\")."
        ),
        (false, Told::TooLate) => format!(
            "This opencode ends with your turn, and could not be told: go on with other work, then wait for the task with \
             background_output(task_id=\"{id}\", block=true) before you end your turn."
        ),
        (false, Told::No) => format!(
            "Nobody is told when it ends. Go on with other work; when you need its result, wait for it with \
             background_output(task_id=\"{id}\", block=true)."
        ),
    }
}

/// Where in a long text the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Of messages the newest ones.
    pub from_end: bool,
    /// The answer from so many characters on.
    pub offset: usize,
}

/// What is to be read of a task that has ended.
pub fn ended(output: &Output, now: Timestamp, place: Place) -> String {
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
            text.push_str(&pages::page(messages, more, place.from_end));
        }
        (None, Some(result)) => {
            text.push_str(&pages::answer(result, task.id.as_str(), place.offset))
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

/// How a task stands that has not ended.
#[derive(Debug)]
pub struct Standing<'a> {
    /// The task, and what it waits for.
    pub detail: &'a TaskDetail,
    /// Open tasks of its own.
    pub below: usize,
    /// Its messages so far, if they were asked for, and whether there are more.
    pub output: &'a Output,
    /// Whether the newest messages were asked for.
    pub from_end: bool,
    /// Whether the caller is told of its end.
    pub told: Told,
}

/// What is to be read of it.
pub fn unfinished(standing: &Standing<'_>, now: Timestamp) -> String {
    let task = &standing.detail.task;
    let shown = Shown {
        task: task.clone(),
        waits_for: standing.detail.waits_for.clone(),
    };
    let mut text = String::new();
    facts(&mut text, task);
    let since = match task.started_at() {
        Some(_) => task.duration(now),
        None => now.since(task.queued_at),
    };
    match &standing.detail.waits_for {
        Some(_) => {
            let status = format!("{} · {}", task.status().as_str(), duration_text(since));
            fact(&mut text, "status", &status);
            waits(&mut text, standing.detail);
        }
        None => fact(&mut text, "status", &show::progress(&shown, since)),
    }
    if !task.asking.is_empty() {
        fact(&mut text, "waits for", "somebody to answer what it asks");
    }
    match standing.below {
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
    if let Some(said) = &task.progress.last_message {
        fact(&mut text, "last said", &line(said));
    }
    if let Some(messages) = &standing.output.messages {
        let more = standing.output.has_more == Some(true);
        text.push_str(&format!(
            "\n{}\n",
            pages::page(messages, more, standing.from_end)
        ));
    }
    if standing.output.timed_out == Some(true) {
        text.push_str("\nIt did not end within the time you waited.");
    }
    text.push('\n');
    text.push_str(&later(task, standing.told));
    text
}

/// What was cancelled, and what goes on below it.
pub fn cancelled(tasks: &[Task], below: &[TaskId]) -> String {
    let mut text = match tasks {
        [] => return "None of your background tasks is open; nothing changed.".to_owned(),
        [_] => "Cancelled:\n".to_owned(),
        several => format!("Cancelled {} tasks:\n", several.len()),
    };
    for task in tasks.iter().take(LISTED) {
        text.push_str(&format!("- `{}` {}\n", task.id, about(task)));
    }
    more(&mut text, tasks.len());
    text.push_str(match tasks {
        [_] => "You will not be told of it.",
        _ => "You will not be told of them.",
    });
    // By their ids: nobody should have to end all he has for them.
    match below {
        [] => {}
        [id] => text.push_str(&format!(
            " A task of its own goes on: background_cancel(taskId=\"{id}\") ends that too."
        )),
        several => {
            let named: Vec<&str> = several.iter().take(NAMED).map(TaskId::as_str).collect();
            text.push_str(&format!(
                " {} tasks of its own go on, which background_cancel ends one by one: {}",
                several.len(),
                named.join(", ")
            ));
            text.push_str(match several.len() > NAMED {
                true => ", …",
                false => ".",
            });
        }
    }
    text
}

/// A prompt that was passed on.
pub fn sent(task: &Task, told: Told) -> String {
    format!("Passed on to task {}. {}", task.id, later(task, told))
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq)]
pub enum Listed {
    /// A task that is in memory.
    Known(Box<TaskDetail>),
    /// One that ended a while ago.
    Past(HistoryEntry),
}

/// The caller's tasks, oldest first; `all` of them, of which the list holds the newest.
pub fn list(tasks: &[Listed], all: usize, told: Told, now: Timestamp) -> String {
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
            Listed::Known(detail) => {
                open |= !detail.task.status().is_terminal();
                text.push_str(&known(detail, now));
            }
            Listed::Past(entry) => text.push_str(&format!(
                "- `{}` {}, {}: {}\n",
                entry.task,
                entry.status.as_str(),
                named(
                    &entry.agent,
                    entry.session.as_ref().map(|session| session.as_str())
                ),
                cut(&one_line(&entry.description), DESCRIPTION)
            )),
        }
    }
    text.push_str(match (open, told) {
        (true, Told::Yes) => "You will be told when the open ones end: do not poll.",
        (true, Told::No | Told::TooLate) => {
            "Wait for an open one with background_output(task_id, block=true): do not poll."
        }
        (false, _) => "Read a result with background_output(task_id).",
    });
    text
}

fn known(detail: &TaskDetail, now: Timestamp) -> String {
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

/// Who does it, where, and what it is.
fn about(task: &Task) -> String {
    let session = task.session.as_ref().map(|session| session.as_str());
    format!(
        "{}: {}",
        named(&task.agent, session),
        cut(&one_line(&task.description), DESCRIPTION)
    )
}

fn named(agent: &str, session: Option<&str>) -> String {
    let session = session.map(|session| format!(", {session}"));
    format!("{}{}", one_line(agent), session.unwrap_or_default())
}

fn more(text: &mut String, all: usize) {
    if all > LISTED {
        text.push_str(&format!("… and {} more\n", all - LISTED));
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

fn waits(text: &mut String, detail: &TaskDetail) {
    if let Some(waits) = &detail.waits_for {
        fact(text, "waits for", &line(&waits.text));
    }
}

fn fact(text: &mut String, name: &str, value: &str) {
    text.push_str(&format!("{name}: {value}\n"));
}

fn line(text: &str) -> String {
    cut(&one_line(text), LINE).to_owned()
}
