//! Watching a task from the command line until its run has ended: the live line, and Ctrl-C, which asks once whether
//! to cancel and leaves at the second time. `run` and `resume` use it.

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

use super::client::{Client, Shown};
use super::failure::{FAILED, Failure};
use super::patience::patiently;
use super::show;
use super::term::{LiveLine, one_line};

/// How often the line is drawn.
const REDRAW: Duration = Duration::from_millis(250);
/// How long the line waits for news.
const NEWS_WITHIN: Duration = Duration::from_secs(2);
/// The service is asked for news at every so many drawings.
const ASK_EVERY: u32 = 2;

/// Follows a task to the end of its run and answers with what there is to read.
pub async fn until_end(client: &Client, task: &TaskId) -> Result<Output, Failure> {
    let mut watch = Watch {
        client,
        task,
        line: LiveLine::new(),
        shown: None,
        began: Instant::now(),
    };
    watch.run().await
}

struct Watch<'a> {
    client: &'a Client,
    task: &'a TaskId,
    line: LiveLine,
    shown: Option<Shown>,
    began: Instant,
}

impl Watch<'_> {
    async fn run(&mut self) -> Result<Output, Failure> {
        let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| {
            Failure::new(FAILED, format!("signals cannot be taken: {error}"), "")
        })?;
        let client = self.client;
        let id = self.task.as_str();
        let news = RefCell::new(None);
        let visible = self.line.is_visible();
        let tell = |text: &str| match visible {
            // The line is drawn over and over: what is said must not run into it.
            true => drop(news.replace(Some(text.to_owned()))),
            false => super::serve::say(text),
        };
        let mut end = std::pin::pin!(ended(client, id, tell));
        let mut ticks = interval(REDRAW);
        let mut drawn: u32 = 0;
        let mut question: Option<oneshot::Receiver<bool>> = None;
        let mut asked = false;
        loop {
            tokio::select! {
                output = &mut end => {
                    if question.is_some() {
                        // The question stands there without an answer.
                        super::serve::say("");
                    }
                    return output;
                }
                _ = ticks.tick(), if self.line.is_visible() && question.is_none() => {
                    if drawn.is_multiple_of(ASK_EVERY) {
                        // A line that is late is left out, so that Ctrl-C is heard.
                        let path = ["v1", "tasks", id];
                        let look = client.get(&path, &[]);
                        self.shown = timeout(NEWS_WITHIN, look).await.ok().and_then(Result::ok);
                    }
                    drawn = drawn.wrapping_add(1);
                    if let Some(text) = news.take() {
                        self.line.clear();
                        super::serve::say(&text);
                    }
                    self.draw();
                }
                _ = interrupts.recv() => {
                    self.line.clear();
                    if asked || !std::io::stdin().is_terminal() {
                        return Err(self.left());
                    }
                    asked = true;
                    question = Some(ask());
                }
                answer = answered(&mut question) => {
                    question = None;
                    if answer {
                        let reason = json!({ "reason": "cancelled at the terminal" });
                        match client.post::<Value>(&["v1", "tasks", id, "cancel"], &reason).await {
                            // It has ended by itself meanwhile: its end says how.
                            Ok(_) | Err(Failure { code: FAILED, .. }) => {}
                            Err(failure) => return Err(failure),
                        }
                    }
                }
            }
        }
    }

    fn draw(&mut self) {
        if let Some(shown) = &self.shown {
            let text = format!(
                "{} {}",
                self.task,
                show::progress(shown, self.began.elapsed())
            );
            self.line.draw(&text);
        }
    }

    fn left(&self) -> Failure {
        // Behind the `^C` that the terminal shows.
        super::serve::say("");
        let hint = format!(
            "`greenroom output {0} --follow` watches it again, `greenroom cancel {0}` stops it",
            self.task
        );
        Failure::new(FAILED, format!("left; task {} goes on", self.task), hint)
    }
}

/// Reads again and again until the run has ended: one read waits at most ten minutes, and a service that goes away is
/// waited for.
async fn ended(client: &Client, id: &str, tell: impl Fn(&str)) -> Result<Output, Failure> {
    loop {
        let output: Output = patiently(async || client.wait(id).await, &tell).await?;
        if output.task.status().is_terminal() {
            return Ok(output);
        }
    }
}

/// Asks whether to cancel. The answer is read on a thread of its own, which ends with the process if none comes.
fn ask() -> oneshot::Receiver<bool> {
    let _ = write!(
        std::io::stderr(),
        "\ncancel the task? [y/N] (Ctrl-C leaves) "
    );
    let (answer, answered) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        let yes = read.is_ok() && matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes");
        // Nobody waits for the answer any more if the task has ended meanwhile.
        let _ = answer.send(yes);
    });
    answered
}

async fn answered(question: &mut Option<oneshot::Receiver<bool>>) -> bool {
    match question {
        Some(answer) => answer.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

/// How a task ended, or where it stands, in one line.
pub fn ending(task: &Task) -> String {
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
