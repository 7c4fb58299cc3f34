//! Why a task waits or how it came to its end, for people: one line per thing that happened, then how it stands. Pure but
//! for the command itself.

use greenroom::Why;
use greenroom::domain::time::Timestamp;
use serde_json::Value;

use super::args::OneArgs;
use super::client::{Client, Shown};
use super::failure::Failure;
use super::manage::now;
use super::run::json_text;
use super::show::progress;
use super::term::{fit, one_line, out};
use crate::config::Environment;

/// Says what a task waits for or why it ended, with what happened to it.
pub async fn why(args: OneArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::of_process())?;
    let body: Value = client.get(&["v1", "tasks", &args.id, "why"], &[]).await?;
    if args.client.json {
        out(&json_text(&body)?);
        return Ok(());
    }
    let why: Why = client.understood(body)?;
    let body: Value = client.get(&["v1", "tasks", why.task.as_str()], &[]).await?;
    out(&story(&why, &client.understood(body)?, now()));
    Ok(())
}

/// The story of a task, one line an event with its time of day, and last how it stands.
pub fn story(why: &Why, shown: &Shown, now: Timestamp) -> String {
    let task = &shown.task;
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
            fit(&one_line(&event.what), 20),
            one_line(&event.detail)
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if why.events.is_empty() {
        text.push_str("  nothing is remembered of what happened to it\n");
    }
    let stands = match &why.waits_for {
        Some(waits_for) => format!("waits: {}", one_line(&waits_for.text)),
        None if task.status().is_terminal() => {
            let reasons = [task.error(), task.note()].into_iter().flatten();
            let reasons: Vec<String> = reasons.map(one_line).collect();
            let status = task.status().as_str();
            match reasons.is_empty() {
                true => format!("ended: {status}"),
                false => format!("ended: {status}: {}", reasons.join("; ")),
            }
        }
        None => format!("now: {}", progress(shown, task.duration(now))),
    };
    text.push_str(&stands);
    text.push('\n');
    text
}
