//! The commands of every day: `list`, `show`, `output`, `cancel`, `send`.

use greenroom::TaskPage;
use greenroom::domain::output::Output;
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use serde_json::{Value, json};

use super::args::{CancelArgs, ListArgs, OneArgs, OutputArgs, SendArgs};
use super::client::{Client, Shown};
use super::failure::Failure;
use super::run::{json_text, print_text};
use super::serve::say;
use super::show;
use super::term::{Style, out, stdout_columns};
use crate::config::Environment;

pub(super) fn now() -> Timestamp {
    greenroom::clock::Clock::system().now()
}

/// Lists tasks, newest first.
pub async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::of_process())?;
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    let wishes = [
        ("status", &args.status),
        ("parentSessionID", &args.parent),
        ("agent", &args.agent),
    ];
    query.extend(
        wishes
            .into_iter()
            .filter_map(|(name, wish)| Some((name, wish.as_deref()?))),
    );
    let page: TaskPage = client.get(&["v1", "tasks"], &query).await?;
    if args.client.json {
        out(&json_text(&page)?);
        return Ok(());
    }
    out(&show::table(
        &page.tasks,
        now(),
        Style::of_stdout(),
        stdout_columns(),
    ));
    if page.next_cursor.is_some() {
        say("there are more; --limit shows up to 1000");
    }
    Ok(())
}

/// Shows a task.
pub async fn show(args: OneArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::of_process())?;
    let body: Value = client.get(&["v1", "tasks", &args.id], &[]).await?;
    if args.client.json {
        out(&json_text(&body)?);
        return Ok(());
    }
    let shown: Shown = client.understood(body)?;
    out(&show::details(&shown, now(), Style::of_stdout()));
    Ok(())
}

/// Prints the result of a task, or what it has written so far.
pub async fn output(args: OutputArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::of_process())?;
    if args.follow {
        return super::follow::follow(&client, &args).await;
    }
    let full = if args.full { "true" } else { "false" };
    let query = [("fullSession", full), ("includeToolResults", full)];
    let output: Output = client
        .get(&["v1", "tasks", &args.id, "output"], &query)
        .await?;
    if args.client.json {
        out(&json_text(&output)?);
        return Ok(());
    }
    match (&output.messages, &output.result) {
        (Some(messages), _) => messages
            .iter()
            .for_each(|message| print_text(&show::message(message))),
        (None, Some(result)) => print_text(result),
        (None, None) => say(&format!(
            "{} is {} and has no result yet",
            output.task.id,
            output.task.status().as_str()
        )),
    }
    Ok(())
}

/// Cancels tasks.
pub async fn cancel(args: CancelArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::of_process())?;
    let mut body = json!({});
    if let Some(reason) = &args.reason {
        body["reason"] = json!(reason);
    }
    let mut cancelled: Vec<Task> = Vec::new();
    let mut failed: Option<Failure> = None;
    if args.ids.is_empty() {
        match &args.parent {
            Some(parent) => body["parentSessionID"] = json!(parent),
            None => body["all"] = json!(true),
        }
        let answer: Value = client.post(&["v1", "tasks", "cancel"], &body).await?;
        cancelled = client.understood(answer["cancelled"].clone())?;
    } else {
        body["descendants"] = json!(args.descendants);
        for id in &args.ids {
            match client.post(&["v1", "tasks", id, "cancel"], &body).await {
                Ok(task) => cancelled.push(task),
                // The others are cancelled all the same; the last failure ends the command.
                Err(failure) => {
                    if let Some(earlier) = failed.replace(failure) {
                        say(earlier.text().trim_end());
                    }
                }
            }
        }
    }
    if args.client.json {
        out(&json_text(&json!({ "cancelled": cancelled }))?);
    } else {
        for task in &cancelled {
            out(&format!("{} {}\n", task.id, task.status().as_str()));
        }
        if cancelled.is_empty() && failed.is_none() {
            say("nothing to cancel");
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Gives a running task a further instruction.
pub async fn send(args: SendArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::of_process())?;
    let body = json!({ "prompt": args.prompt });
    let task: Task = client
        .post(&["v1", "tasks", &args.id, "send"], &body)
        .await?;
    out(&if args.client.json {
        json_text(&task)?
    } else {
        format!("{} {}\n", task.id, task.status().as_str())
    });
    Ok(())
}
