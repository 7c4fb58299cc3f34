//! `greenroom list`, `show`, `output`, `cancel` and `send`.

use greenroom::TaskPage;
use greenroom::domain::output::Output;
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use serde_json::{Value, json};

use super::args::{CancelArgs, ListArgs, OutputArgs, SendArgs, TaskArgs};
use super::client::{Client, TaskView};
use super::failure::Failure;
use super::run::{json_text, print_text};
use super::show;
use super::terminal::{Style, print_err, print_out, stdout_columns};
use crate::config::Environment;

pub(super) fn now() -> Timestamp {
    greenroom::clock::Clock::system().now()
}

/// Lists tasks, newest first.
pub async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::from_process())?;
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    let filters = [
        ("status", &args.status),
        ("parentSessionID", &args.parent),
        ("agent", &args.agent),
    ];
    query.extend(
        filters
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?))),
    );
    let page: TaskPage = client.get(&["v1", "tasks"], &query).await?;
    if args.client.json {
        print_out(&json_text(&page)?);
        return Ok(());
    }
    print_out(&show::table(
        &page.tasks,
        now(),
        Style::for_stdout(),
        stdout_columns(),
    ));
    if page.next_cursor.is_some() {
        print_err("there are more; --limit shows up to 1000");
    }
    Ok(())
}

/// Shows a task.
pub async fn show(args: TaskArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::from_process())?;
    let body: Value = client.get(&["v1", "tasks", &args.id], &[]).await?;
    if args.client.json {
        print_out(&json_text(&body)?);
        return Ok(());
    }
    let view: TaskView = client.decode(body)?;
    print_out(&show::details(&view, now(), Style::for_stdout()));
    Ok(())
}

/// Prints the result of a task, or what it has written so far.
pub async fn output(args: OutputArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::from_process())?;
    if args.follow {
        return super::follow::follow(&client, &args).await;
    }
    let full = if args.full { "true" } else { "false" };
    let query = [("fullSession", full), ("includeToolResults", full)];
    let output: Output = client
        .get(&["v1", "tasks", &args.id, "output"], &query)
        .await?;
    if args.client.json {
        print_out(&json_text(&output)?);
        return Ok(());
    }
    match (&output.messages, &output.result) {
        (Some(messages), _) => messages
            .iter()
            .for_each(|message| print_text(&show::message(message))),
        (None, Some(result)) => print_text(result),
        (None, None) => print_err(&format!(
            "{} is {} and has no result yet",
            output.task.id,
            output.task.status().as_str()
        )),
    }
    Ok(())
}

/// Cancels tasks.
pub async fn cancel(args: CancelArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::from_process())?;
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
        cancelled = client.decode(answer["cancelled"].clone())?;
    } else {
        body["descendants"] = json!(args.descendants);
        for id in &args.ids {
            match client.post(&["v1", "tasks", id, "cancel"], &body).await {
                Ok(task) => cancelled.push(task),
                // The other tasks are cancelled anyway; the last failure becomes the exit code.
                Err(failure) => {
                    if let Some(previous) = failed.replace(failure) {
                        print_err(previous.text().trim_end());
                    }
                }
            }
        }
    }
    if args.client.json {
        print_out(&json_text(&json!({ "cancelled": cancelled }))?);
    } else {
        for task in &cancelled {
            print_out(&format!("{} {}\n", task.id, task.status().as_str()));
        }
        if cancelled.is_empty() && failed.is_none() {
            print_err("nothing to cancel");
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Gives a running task a further instruction.
pub async fn send(args: SendArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::from_process())?;
    let body = json!({ "prompt": args.prompt });
    let task: Task = client
        .post(&["v1", "tasks", &args.id, "send"], &body)
        .await?;
    print_out(&if args.client.json {
        json_text(&task)?
    } else {
        format!("{} {}\n", task.id, task.status().as_str())
    });
    Ok(())
}
