//! Watches a task until its run ends: the progress line, and Ctrl-C, which offers to cancel the task at the first press
//! and detaches at the second. Used by `run` and `resume`.

use std::cell::RefCell;
use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use greenroom::domain::ids::TaskId;
use greenroom::domain::output::Output;
use greenroom::domain::task::Task;
use greenroom::domain::time::duration_text;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval, timeout};

use super::client::{Client, TaskView};
use super::failure::{FAILED, Failure};
use super::retry::retry_while_unreachable;
use super::show;
use super::terminal::{ProgressLine, one_line, print_err};

/// Interval between two drawings.
const REDRAW: Duration = Duration::from_millis(250);
/// Time limit of a status request.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// Number of drawings per status request.
const TICKS_PER_STATUS: u32 = 2;

/// Watches a task until its run ends and returns its output.
pub async fn watch_until_ended(client: &Client, task: &TaskId) -> Result<Output, Failure> {
    let mut watch = Watcher {
        client,
        task,
        line: ProgressLine::new(),
        view: None,
        started: Instant::now(),
    };
    watch.run().await
}

struct Watcher<'a> {
    client: &'a Client,
    task: &'a TaskId,
    line: ProgressLine,
    view: Option<TaskView>,
    started: Instant,
}

impl Watcher<'_> {
    async fn run(&mut self) -> Result<Output, Failure> {
        let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| {
            Failure::new(FAILED, format!("signals cannot be taken: {error}"), "")
        })?;
        let client = self.client;
        let id = self.task.as_str();
        let note = RefCell::new(None);
        let visible = self.line.is_visible();
        let notify = |text: &str| {
            if visible {
                // Printed by the next tick, which clears the line first.
                note.replace(Some(text.to_owned()));
            } else {
                print_err(text);
            }
        };
        let mut end = std::pin::pin!(wait_until_ended(client, id, notify));
        let mut ticks = interval(REDRAW);
        let mut ticks_drawn: u32 = 0;
        let mut question: Option<oneshot::Receiver<bool>> = None;
        let mut has_question = false;
        loop {
            tokio::select! {
                output = &mut end => {
                    if question.is_some() {
                        // The question has no answer.
                        print_err("");
                    }
                    return output;
                }
                _ = ticks.tick(), if self.line.is_visible() && question.is_none() => {
                    if ticks_drawn.is_multiple_of(TICKS_PER_STATUS) {
                        // A late status is skipped, so that Ctrl-C is handled.
                        let path = ["v1", "tasks", id];
                        let status = client.get(&path, &[]);
                        self.view = timeout(STATUS_TIMEOUT, status).await.ok().and_then(Result::ok);
                    }
                    ticks_drawn = ticks_drawn.wrapping_add(1);
                    if let Some(text) = note.take() {
                        self.line.clear();
                        print_err(&text);
                    }
                    self.draw();
                }
                _ = interrupts.recv() => {
                    self.line.clear();
                    if has_question || !std::io::stdin().is_terminal() {
                        return Err(self.detached());
                    }
                    has_question = true;
                    question = Some(ask_to_cancel());
                }
                answer = await_answer(&mut question) => {
                    question = None;
                    if answer {
                        let reason = json!({ "reason": "cancelled at the terminal" });
                        match client.post::<Value>(&["v1", "tasks", id, "cancel"], &reason).await {
                            // The task has ended in the meantime.
                            Ok(_) | Err(Failure { code: FAILED, .. }) => {}
                            Err(failure) => return Err(failure),
                        }
                    }
                }
            }
        }
    }

    fn draw(&mut self) {
        if let Some(view) = &self.view {
            let text = format!(
                "{} {}",
                self.task,
                show::progress(view, self.started.elapsed())
            );
            self.line.draw(&text);
        }
    }

    fn detached(&self) -> Failure {
        // Behind the echoed `^C`.
        print_err("");
        let hint = format!(
            "`greenroom output {0} --follow` watches it again, `greenroom cancel {0}` stops it",
            self.task
        );
        Failure::new(FAILED, format!("left; task {} goes on", self.task), hint)
    }
}

/// Repeats blocking reads until the run ends. A read blocks for at most ten minutes; an unreachable service is retried.
async fn wait_until_ended(
    client: &Client,
    id: &str,
    notify: impl Fn(&str),
) -> Result<Output, Failure> {
    loop {
        let output: Output =
            retry_while_unreachable(async || client.wait(id).await, &notify).await?;
        if output.task.status().is_terminal() {
            return Ok(output);
        }
    }
}

/// Asks whether to cancel. The answer is read on a separate thread, which ends with the process.
fn ask_to_cancel() -> oneshot::Receiver<bool> {
    let _ = write!(
        std::io::stderr(),
        "\ncancel the task? [y/N] (Ctrl-C leaves) "
    );
    let (answer, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        let yes = read.is_ok() && matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes");
        // The receiver is gone if the task has ended.
        let _ = answer.send(yes);
    });
    receiver
}

async fn await_answer(question: &mut Option<oneshot::Receiver<bool>>) -> bool {
    match question {
        Some(answer) => answer.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

/// Returns the state of a task in one line, with duration and error.
pub fn outcome_line(task: &Task) -> String {
    let took = task
        .started_at()
        .and(task.completed_at())
        .map(|end| duration_text(task.duration(end)));
    let took = took
        .map(|took| format!(" after {took}"))
        .unwrap_or_default();
    let why = task
        .error()
        .or(task.note())
        .map(|why| format!(": {}", one_line(why)))
        .unwrap_or_default();
    format!("{} {}{took}{why}", task.id, task.status().as_str())
}
