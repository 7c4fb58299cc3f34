//! `greenroom why`: prints the timeline of a task and its current state.

use greenroom::TaskTimeline;
use greenroom::domain::time::Timestamp;
use serde_json::Value;

use super::args::TaskArgs;
use super::client::{Client, TaskView};
use super::failure::Failure;
use super::manage::now;
use super::run::json_text;
use super::show::progress;
use super::terminal::{one_line, print_out, truncate};
use crate::config::Environment;

/// Prints why a task waits or how it ended.
pub async fn why(args: TaskArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::from_process())?;
    let body: Value = client.get(&["v1", "tasks", &args.id, "why"], &[]).await?;
    if args.client.json {
        print_out(&json_text(&body)?);
        return Ok(());
    }
    let why: TaskTimeline = client.decode(body)?;
    let body: Value = client.get(&["v1", "tasks", why.task.as_str()], &[]).await?;
    print_out(&timeline(&why, &client.decode(body)?, now()));
    Ok(())
}

/// Returns the timeline of a task, one event per line, and its current state.
pub fn timeline(why: &TaskTimeline, view: &TaskView, now: Timestamp) -> String {
    let task = &view.task;
    let mut text = format!("{}  {}\n", task.id, one_line(&task.description));
    let mut day = String::new();
    for event in &why.events {
        let at = event.at.to_string();
        let (date, time) = at.split_once('T').unwrap_or(("", &at));
        if date != day {
            text.push_str(&format!("{date} (UTC)\n"));
            date.clone_into(&mut day);
        }
        let time = time.trim_end_matches('Z');
        let line = format!(
            "  {time}  {:<20}  {}",
            truncate(&one_line(&event.what), 20),
            one_line(&event.detail)
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if why.events.is_empty() {
        text.push_str("  nothing is remembered of what happened to it\n");
    }
    let status_line = match &why.waits_for {
        Some(waits_for) => format!("waits: {}", one_line(&waits_for.text)),
        None if task.status().is_terminal() => {
            let reasons = [task.error(), task.note()].into_iter().flatten();
            let reasons: Vec<String> = reasons.map(one_line).collect();
            let status = task.status().as_str();
            if reasons.is_empty() {
                format!("ended: {status}")
            } else {
                format!("ended: {status}: {}", reasons.join("; "))
            }
        }
        None => format!("now: {}", progress(view, task.duration(now))),
    };
    text.push_str(&status_line);
    text.push('\n');
    text
}
