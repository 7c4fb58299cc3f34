//! Formats tasks for people: a table, the details of one task, a progress line. Pure: time and colour are arguments.

use greenroom::WaitsFor;
use greenroom::domain::output::OutputMessage;
use greenroom::domain::task::Task;
use greenroom::domain::time::{Timestamp, duration_text};

use super::client::TaskView;
use super::terminal::{Style, display_width, one_line, truncate};

/// Minimum width of the description while other columns can be dropped.
const DESCRIPTION: usize = 16;

/// Returns a table of tasks, truncated to the terminal's width if given. A narrow terminal drops the columns for tool
/// calls, agent and time, in this order.
pub fn table(tasks: &[Task], now: Timestamp, style: Style, width: Option<usize>) -> String {
    if tasks.is_empty() {
        return "no tasks\n".to_owned();
    }
    let head = ["ID", "STATE", "AGENT", "TIME", "TOOLS", "DESCRIPTION"].map(str::to_owned);
    let rows: Vec<[String; 6]> = tasks.iter().map(|task| row(task, now)).collect();
    let mut widths = [0; 6];
    for row in std::iter::once(&head).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(display_width(cell));
        }
    }
    if let Some(width) = width {
        for column in [4, 2, 3] {
            if widths[..5].iter().map(|width| width + 2).sum::<usize>() + DESCRIPTION > width {
                widths[column] = 0;
            }
        }
    }
    let mut text = line(&head, &widths, width, |_, cell| cell);
    for (task, row) in tasks.iter().zip(&rows) {
        text.push_str(&line(row, &widths, width, |column, cell| {
            if column == 1 {
                style.paint(task.status(), &cell)
            } else {
                cell
            }
        }));
    }
    text
}

fn row(task: &Task, now: Timestamp) -> [String; 6] {
    [
        one_line(task.id.as_str()),
        task.status().as_str().to_owned(),
        truncate(&one_line(&task.agent), 20),
        time(task, now),
        task.progress.tool_calls.to_string(),
        one_line(&task.description),
    ]
}

/// Returns the run time or the wait time.
fn time(task: &Task, now: Timestamp) -> String {
    match task.started_at() {
        Some(_) => duration_text(task.duration(now)),
        None if task.status().is_terminal() => "-".to_owned(),
        None => duration_text(now.since(task.queued_at)),
    }
}

fn line(
    cells: &[String; 6],
    widths: &[usize; 6],
    width: Option<usize>,
    paint: impl Fn(usize, String) -> String,
) -> String {
    let mut text = String::new();
    let mut used = 0;
    for (column, cell) in cells.iter().enumerate() {
        if column == 5 {
            let remaining = width.map_or(usize::MAX, |width| width.saturating_sub(used));
            text.push_str(&truncate(cell, remaining));
        } else if widths[column] > 0 {
            let padded = format!("{cell}{}", " ".repeat(widths[column] - display_width(cell)));
            text.push_str(&paint(column, padded));
            text.push_str("  ");
            used += widths[column] + 2;
        }
    }
    format!("{}\n", text.trim_end())
}

/// Returns the details of a task, one per line.
pub fn details(view: &TaskView, now: Timestamp, style: Style) -> String {
    let task = &view.task;
    let mut text = String::new();
    let mut fact = |name: &str, value: &str| text.push_str(&format!("{name:<12} {value}\n"));
    fact("id", &one_line(task.id.as_str()));
    fact("state", &style.status(task.status()));
    fact("description", &one_line(&task.description));
    fact("agent", &one_line(&task.agent));
    if let Some(model) = &task.model {
        let variant = model
            .variant
            .as_deref()
            .map(|variant| format!(" ({variant})"))
            .unwrap_or_default();
        fact(
            "model",
            &one_line(&format!(
                "{}/{}{variant}",
                model.provider_id, model.model_id
            )),
        );
    }
    if let Some(session) = &task.session {
        fact("session", &one_line(session.as_str()));
    }
    if let Some(parent) = &task.parent_session {
        fact("parent", &one_line(parent.as_str()));
    }
    if let Some(directory) = &task.directory {
        fact("directory", &one_line(directory));
    }
    fact("time", &time(task, now));
    if let Some(waits_for) = &view.waits_for {
        fact("waits for", &one_line(&waits_for.text));
    }
    if task.run.0 > 1 {
        fact("run", &task.run.to_string());
    }
    let last = task
        .progress
        .last_tool
        .as_deref()
        .map(|tool| format!(", last {tool}"))
        .unwrap_or_default();
    fact(
        "tool calls",
        &one_line(&format!("{}{last}", task.progress.tool_calls)),
    );
    if let Some(retrying) = &task.retrying {
        fact("retrying", &one_line(&retrying.message));
    }
    for asking in &task.asking {
        fact("asks", &one_line(&asking.what));
    }
    if let Some(error) = task.error() {
        fact("error", &one_line(error));
    }
    if let Some(note) = task.note() {
        fact("note", &one_line(note));
    }
    if let Some(message) = &task.progress.last_message {
        fact("last message", &one_line(message));
    }
    text
}

/// Returns the progress of a task in one line: state, queue position, last tool, elapsed time.
pub fn progress(view: &TaskView, elapsed: std::time::Duration) -> String {
    let task = &view.task;
    let mut parts = vec![task.status().as_str().to_owned()];
    if let Some(WaitsFor {
        key,
        position,
        in_use,
        limit,
        ..
    }) = &view.waits_for
    {
        parts.push(match limit {
            0 => format!("place {position} in line for {key}"),
            _ => format!("place {position} in line for {key}, {in_use} of {limit} slots in use"),
        });
    }
    if let Some(retrying) = &task.retrying {
        parts.push(format!("the provider asks to wait: {}", retrying.message));
    } else if let Some(asking) = task.asking.first() {
        parts.push(format!("asks: {}", asking.what));
    } else if let Some(tool) = &task.progress.last_tool {
        let plural = if task.progress.tool_calls == 1 {
            ""
        } else {
            "s"
        };
        parts.push(format!(
            "{} tool call{plural}, last {tool}",
            task.progress.tool_calls
        ));
    }
    parts.push(duration_text(elapsed));
    one_line(&parts.join(" · "))
}

/// Returns one message of a session.
pub fn message(message: &OutputMessage) -> String {
    let mut text = format!("[{}", one_line(&message.role));
    if let Some(agent) = &message.agent {
        text.push_str(&format!(" {}", one_line(agent)));
    }
    text.push_str("]\n");
    if let Some(thinking) = &message.thinking {
        text.push_str(&format!("(thinking) {thinking}\n"));
    }
    for tool in &message.tools {
        let status = tool.status.as_deref().unwrap_or("called");
        text.push_str(&format!(
            "* {} {}\n",
            one_line(&tool.tool),
            one_line(status)
        ));
        if let Some(output) = &tool.output {
            text.push_str(&format!("{output}\n"));
        }
    }
    if !message.text.is_empty() {
        text.push_str(&format!("{}\n", message.text));
    }
    text
}
