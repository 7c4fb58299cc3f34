//! `greenroom run` and `greenroom resume`: starts a task, watches it, and prints its result.

use std::io::IsTerminal;

use greenroom::domain::foreign_text::escaped_json;
use greenroom::domain::ids::ModelRef;
use greenroom::domain::task::{Launch, Task, TaskStatus};
use serde_json::{Value, json};

use super::args::{ResumeArgs, RunArgs};
use super::client::{Client, TaskView};
use super::failure::{FAILED, Failure};
use super::terminal::{one_line, print_err, print_out, printable, stderr_width, truncate};
use super::watch;
use crate::config::Environment;

/// Maximum width of a description derived from the prompt.
const DESCRIPTION: usize = 60;

/// Launches a task, watches it, and prints its result.
pub async fn run(args: RunArgs) -> Result<(), Failure> {
    let environment = Environment::from_process();
    let client = Client::new(&args.client, &environment)?;
    let body = serde_json::to_value(launch(&args, &environment)).map_err(|error| {
        Failure::new(FAILED, format!("the launch has no JSON form: {error}"), "")
    })?;
    let task: Task = client.post(&["v1", "tasks"], &body).await?;
    finish(&client, &task, args.detach, args.client.json).await
}

fn launch(args: &RunArgs, environment: &Environment) -> Launch {
    let model = args.model.as_ref().map(|(provider, model)| ModelRef {
        provider_id: provider.clone(),
        model_id: model.clone(),
        variant: args.variant.clone(),
    });
    let description = match &args.description {
        Some(description) => description.clone(),
        None => truncate(&one_line(&args.prompt), DESCRIPTION),
    };
    Launch {
        description,
        prompt: args.prompt.clone(),
        agent: args.agent.clone(),
        parent_session: args.parent.as_deref().map(Into::into),
        model,
        directory: args
            .directory
            .as_ref()
            .map(|path| environment.path(path).to_string_lossy().into_owned()),
        ..Launch::default()
    }
}

/// Resumes an ended task in its session.
pub async fn resume(args: ResumeArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::from_process())?;
    let view: TaskView = client.get(&["v1", "tasks", &args.id], &[]).await?;
    let Some(session) = view.task.session else {
        let hint = "it never started; launch it again with `greenroom run`";
        return Err(Failure::new(
            FAILED,
            format!("task {} has no session to go on in", view.task.id),
            hint,
        ));
    };
    let mut body = json!({ "prompt": args.prompt });
    if let Some(parent) = &args.parent {
        body["parentSessionID"] = json!(parent);
    }
    let task: Task = client
        .post(&["v1", "sessions", session.as_str(), "resume"], &body)
        .await?;
    finish(&client, &task, args.detach, args.client.json).await
}

async fn finish(client: &Client, task: &Task, detach: bool, json: bool) -> Result<(), Failure> {
    if detach {
        print_out(&if json {
            json_text(task)?
        } else {
            format!("{}\n", task.id)
        });
        return Ok(());
    }
    if !json {
        let line = format!("{} {}", task.id, one_line(&task.description));
        print_err(&stderr_width().map_or_else(|| line.clone(), |width| truncate(&line, width)));
    }
    let output = watch::watch_until_ended(client, &task.id).await?;
    let completed = output.task.status() == TaskStatus::Completed;
    if json {
        print_out(&json_text(&output)?);
    } else {
        if completed {
            print_err(&watch::outcome_line(&output.task));
        }
        if let Some(result) = &output.result {
            print_text(result);
        }
    }
    if completed {
        return Ok(());
    }
    let hint = match &output.task.session {
        Some(_) => format!(
            "`greenroom resume {} \"PROMPT\"` goes on with it",
            output.task.id
        ),
        None => String::new(),
    };
    Err(Failure::new(
        FAILED,
        watch::outcome_line(&output.task),
        hint,
    ))
}

/// Prints a text of an agent with a final line end; nothing for an empty text.
pub(super) fn print_text(text: &str) {
    if text.is_empty() {
        return;
    }
    let text = printable(text, std::io::stdout().is_terminal());
    print_out(&text);
    if !text.ends_with('\n') {
        print_out("\n");
    }
}

/// Returns a value in the format of `--json`, without raw control characters.
pub(super) fn json_text(value: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_value(value)
        .map(|value: Value| escaped_json(&format!("{value:#}\n")).into_owned());
    text.map_err(|error| Failure::new(FAILED, format!("the answer has no JSON form: {error}"), ""))
}
