//! Carries out what agents ask for. Every host of agents comes here, so that a tool does and says the same wherever it is
//! called from.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use greenroom::domain::history::HistoryEntry;
use greenroom::domain::ids::ModelRef;
use greenroom::domain::output::OutputOptions;
use greenroom::domain::task::{Launch, Resume, Task, TaskStatus};
use greenroom::{
    CancelError, CancelOptions, CancelScope, Greenroom, ListFilter, TaskDetail, WaitFor,
};
use serde_json::Value;

use super::arguments::read;
use super::call::{Caller, ToolReply};
use super::orders::{Cancelling, Launching, Listing, Order, Reading, Sending};
use super::reach::Reach;
use super::refusal::Refusal;
use super::words::{self, LISTED, Listed, Place, Standing};
use crate::http::tasks::{LONGEST_WAIT_MS, USUAL_WAIT_MS, statuses};

/// How long a launch that is about to start is given to have its session, so that its answer can name it. One that must
/// wait for its slot is answered at once.
const SESSION_WITHIN: Duration = Duration::from_millis(300);

/// The tools. A cheap clone.
#[derive(Debug, Clone)]
pub struct Tools {
    greenroom: Greenroom,
}

impl Tools {
    /// The tools of that system.
    pub fn new(greenroom: Greenroom) -> Self {
        Self { greenroom }
    }

    /// The system they work on.
    pub(crate) fn greenroom(&self) -> &Greenroom {
        &self.greenroom
    }

    /// Carries out a call; a refusal is a reply too. Dropping the call ends its waiting and nothing else.
    pub async fn call(&self, tool: &str, args: Value, caller: &Caller) -> ToolReply {
        let done = match tool {
            Launching::TOOL => self.launch(args, caller).await,
            Reading::TOOL => self.output(args, caller).await,
            Cancelling::TOOL => self.cancel(args, caller).await,
            Sending::TOOL => self.send(args, caller).await,
            Listing::TOOL => self.list(args, caller).await,
            other => Err(unknown(other)),
        };
        done.unwrap_or_else(|refusal| ToolReply {
            output: refusal.text(),
            title: Some("not done".to_owned()),
            metadata: None,
            is_error: true,
        })
    }

    async fn launch(&self, args: Value, caller: &Caller) -> Result<ToolReply, Refusal> {
        let order: Launching = read(args).map_err(Refusal::arguments)?;
        let task = match &order.session_id {
            Some(session) => self.resume(session, &order, caller).await?,
            None => self.start(order, caller).await?,
        };
        let detail = self.with_session(task).await;
        Ok(ToolReply::about(
            &detail.task,
            words::launched(&detail, caller.told()),
            detail.task.description.to_string(),
        ))
    }

    async fn start(&self, order: Launching, caller: &Caller) -> Result<Task, Refusal> {
        let launch = Launch {
            description: order.description.unwrap_or_default(),
            prompt: order.prompt.unwrap_or_default(),
            agent: order.agent.unwrap_or_default(),
            parent_session: caller.session.clone(),
            parent_message: caller.message.clone().filter(|_| caller.session.is_some()),
            parent_agent: caller.agent.clone().filter(|_| caller.session.is_some()),
            model: order.model.as_deref().map(model).transpose()?,
            category: order.category,
            skills: order.skills.unwrap_or_default(),
            directory: order.directory.map(|path| absolute(path, caller)),
            ..Launch::default()
        };
        match caller.key(&launch) {
            None => Ok(self.greenroom.launch(launch).await?),
            Some(key) => Ok(self.greenroom.launch_once(key, launch).await?.0),
        }
    }

    async fn resume(
        &self,
        session: &str,
        order: &Launching,
        caller: &Caller,
    ) -> Result<Task, Refusal> {
        let found = Reach::of(caller.session.as_ref())
            .find(&self.greenroom, session)
            .await
            .ok_or_else(|| Refusal::no_session(session))?;
        // By a task's id too: agents take the one for the other.
        let session = found
            .task
            .session
            .ok_or_else(|| Refusal::no_session(session))?;
        let resume = Resume {
            session: Some(session),
            prompt: order.prompt.clone().unwrap_or_default(),
            parent_session: caller.session.clone(),
            parent_message: caller.message.clone().filter(|_| caller.session.is_some()),
            parent_agent: caller.agent.clone().filter(|_| caller.session.is_some()),
        };
        Ok(self.greenroom.resume(resume).await?)
    }

    /// The task as it is now; one that is about to start is given the moment it takes to have its session.
    async fn with_session(&self, task: Task) -> TaskDetail {
        let (id, run) = (task.id.clone(), task.run);
        let now = self.greenroom.find(id.as_str()).await;
        let held_up = now.as_ref().is_some_and(|detail| {
            let waits = detail.waits_for.as_ref();
            waits.is_some_and(|waits| waits.limit > 0 && waits.in_use >= waits.limit as usize)
        });
        if !held_up {
            let started = self.greenroom.wait(&id, run, WaitFor::Started);
            // It is no failure if it takes longer.
            let _ = tokio::time::timeout(SESSION_WITHIN, started).await;
        }
        match self.greenroom.find(id.as_str()).await.or(now) {
            Some(detail) => detail,
            None => TaskDetail::new(task),
        }
    }

    async fn output(&self, args: Value, caller: &Caller) -> Result<ToolReply, Refusal> {
        let order: Reading = read(args).map_err(Refusal::arguments)?;
        let name = order.task_id.clone().unwrap_or_default();
        let task = self.to_read(&name, caller).await?.task;
        let mut timed_out = false;
        if order.block == Some(true) && !task.status().is_terminal() {
            let limit = order.timeout.unwrap_or(USUAL_WAIT_MS).min(LONGEST_WAIT_MS);
            let end = self.greenroom.wait(&task.id, task.run, WaitFor::Ended);
            timed_out = tokio::time::timeout(Duration::from_millis(limit), end)
                .await
                .is_err();
        }
        let full = order.full_session == Some(true);
        let options = OutputOptions {
            full_session: full,
            include_thinking: order.include_thinking == Some(true),
            include_tool_results: order.include_tool_results == Some(true),
            message_limit: order.message_limit,
            from_end: order.from_end == Some(true),
            since_message: order.since_message_id.filter(|_| full),
            thinking_max_chars: order.thinking_max_chars,
            result_offset: order.offset.unwrap_or(0),
        };
        // Of an answer that is too long the newest messages are the ones to see.
        let place = Place {
            from_end: options.from_end || !full,
            offset: options.result_offset,
        };
        // By its id: a session may have got another task while this one was waited for.
        let mut output = self.greenroom.output(task.id.as_str(), options).await?;
        let now = greenroom::clock::Clock::system().now();
        let task = output.task.clone();
        let title = format!("{} ({})", task.description, task.status().as_str());
        if task.status().is_terminal() {
            return Ok(ToolReply::about(
                &task,
                words::ended(&output, now, place),
                title,
            ));
        }
        output.timed_out = timed_out.then_some(true);
        let detail = self.greenroom.find(task.id.as_str()).await;
        // It may have ended in this moment: then the next read says so.
        let detail = detail
            .filter(|detail| !detail.task.status().is_terminal())
            .unwrap_or_else(|| TaskDetail::new(task.clone()));
        let standing = Standing {
            detail: &detail,
            below: self.open_below(&task).await.len(),
            output: &output,
            from_end: place.from_end,
            told: caller.told(),
        };
        Ok(ToolReply::about(
            &task,
            words::unfinished(&standing, now),
            title,
        ))
    }

    async fn cancel(&self, args: Value, caller: &Caller) -> Result<ToolReply, Refusal> {
        let order: Cancelling = read(args).map_err(Refusal::arguments)?;
        match (order.task_id, order.all == Some(true)) {
            (Some(name), false) => self.cancel_one(&name, caller).await,
            (None, true) => Ok(self.cancel_all(caller).await),
            (Some(_), true) => Err(Refusal::arguments(
                "all: cancels every task of yours; give either taskId or all".to_owned(),
            )),
            (None, false) => Err(Refusal::arguments(
                "taskId: is missing; give the id of the task to cancel, or all=true".to_owned(),
            )),
        }
    }

    async fn cancel_one(&self, name: &str, caller: &Caller) -> Result<ToolReply, Refusal> {
        let task = self.to_change(name, caller).await?.task;
        let options = cancel_options(&task, caller);
        match self.greenroom.cancel(&task.id, options).await {
            Ok(task) => {
                let below = self.open_below(&task).await;
                let below: Vec<_> = below.into_iter().map(|task| task.id).collect();
                let text = words::cancelled(std::slice::from_ref(&task), &below);
                let title = format!("cancelled {}", task.description);
                Ok(ToolReply::about(&task, text, title))
            }
            Err(CancelError::NotCancellable(task)) => Err(Refusal::ended(&task)),
            Err(CancelError::Unknown(task)) => Err(Refusal::no_task(task.as_str())),
        }
    }

    async fn cancel_all(&self, caller: &Caller) -> ToolReply {
        let mut cancelled = Vec::new();
        match &caller.session {
            None => {
                let options = CancelOptions {
                    source: "tool".to_owned(),
                    ..CancelOptions::default()
                };
                cancelled = self.greenroom.cancel_all(CancelScope::All, options).await;
            }
            Some(session) => {
                let mut open = self.greenroom.tasks_of(session, true).await;
                open.retain(|task| !task.status().is_terminal());
                // What waits first: nothing starts in a slot that a cancelled one gives back.
                open.sort_by_key(|task| task.status() != TaskStatus::Pending);
                for task in open {
                    let options = cancel_options(&task, caller);
                    // One that has just ended has ended.
                    if let Ok(task) = self.greenroom.cancel(&task.id, options).await {
                        cancelled.push(task);
                    }
                }
            }
        }
        ToolReply {
            output: words::cancelled(&cancelled, &[]),
            title: Some(format!("cancelled {}", count(cancelled.len()))),
            metadata: None,
            is_error: false,
        }
    }

    async fn send(&self, args: Value, caller: &Caller) -> Result<ToolReply, Refusal> {
        let order: Sending = read(args).map_err(Refusal::arguments)?;
        let name = order.task_id.unwrap_or_default();
        let task = self.to_change(&name, caller).await?.task;
        let prompt = order.prompt.unwrap_or_default();
        let task = self.greenroom.send(&task.id, prompt).await?;
        let title = task.description.clone();
        Ok(ToolReply::about(
            &task,
            words::sent(&task, caller.told()),
            title.to_string(),
        ))
    }

    async fn list(&self, args: Value, caller: &Caller) -> Result<ToolReply, Refusal> {
        let order: Listing = read(args).map_err(Refusal::arguments)?;
        let wanted = statuses(order.status.as_deref().unwrap_or_default());
        let wanted = wanted.map_err(Refusal::arguments)?;
        let (tasks, past) = match &caller.session {
            None => {
                let filter = ListFilter {
                    limit: Some(1000),
                    ..ListFilter::default()
                };
                let mut tasks = self.greenroom.list(filter).await.tasks;
                tasks.reverse();
                (tasks, Vec::new())
            }
            Some(session) => (
                self.greenroom.tasks_of(session, false).await,
                self.greenroom.history(session).await,
            ),
        };
        let known: HashSet<_> = tasks.iter().map(|task| task.id.clone()).collect();
        let fits = |status: TaskStatus| wanted.is_empty() || wanted.contains(&status);
        let past = past
            .into_iter()
            .filter(|entry: &HistoryEntry| !known.contains(&entry.task) && fits(entry.status));
        let mut listed: Vec<Listed> = past.map(Listed::Past).collect();
        let tasks = tasks.into_iter().filter(|task| fits(task.status()));
        listed.extend(tasks.map(|task| Listed::Known(Box::new(TaskDetail::new(task)))));
        let all = listed.len();
        listed.drain(..all.saturating_sub(LISTED));
        for task in &mut listed {
            if let Listed::Known(detail) = task
                && detail.task.status() == TaskStatus::Pending
                && let Some(waiting) = self.greenroom.find(detail.task.id.as_str()).await
            {
                **detail = waiting;
            }
        }
        let now = greenroom::clock::Clock::system().now();
        Ok(ToolReply {
            output: words::list(&listed, all, caller.told(), now),
            title: Some(count(all)),
            metadata: None,
            is_error: false,
        })
    }

    async fn to_read(&self, name: &str, caller: &Caller) -> Result<TaskDetail, Refusal> {
        let found = Reach::of(caller.session.as_ref())
            .find_to_read(&self.greenroom, name)
            .await;
        found.ok_or_else(|| Refusal::no_task(name))
    }

    async fn to_change(&self, name: &str, caller: &Caller) -> Result<TaskDetail, Refusal> {
        let found = Reach::of(caller.session.as_ref())
            .find(&self.greenroom, name)
            .await;
        found.ok_or_else(|| Refusal::no_task(name))
    }

    async fn open_below(&self, task: &Task) -> Vec<Task> {
        let Some(session) = &task.session else {
            return Vec::new();
        };
        let mut below = self.greenroom.tasks_of(session, true).await;
        below.retain(|task| !task.status().is_terminal());
        below
    }
}

fn unknown(tool: &str) -> Refusal {
    let tools = super::catalogue();
    let names: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
    Refusal::new(
        format!(
            "there is no tool {:?}",
            greenroom::domain::task::cut(tool, 60)
        ),
        format!("There are {}.", names.join(", ")),
    )
}

/// The caller knows of what it cancels itself; another parent must be told.
fn cancel_options(task: &Task, caller: &Caller) -> CancelOptions {
    CancelOptions {
        source: "tool".to_owned(),
        skip_notification: caller.session.is_some() && task.parent_session == caller.session,
        ..CancelOptions::default()
    }
}

fn model(text: &str) -> Result<ModelRef, Refusal> {
    let (provider_id, model_id) = crate::cli::args::words::model(text.trim())
        .map_err(|problem| Refusal::arguments(format!("model: {problem}")))?;
    Ok(ModelRef {
        provider_id,
        model_id,
        variant: None,
    })
}

/// A path as the caller means it: below its own directory if it names none to begin at.
fn absolute(path: String, caller: &Caller) -> String {
    match caller.directory.as_deref().map(Path::new) {
        Some(directory) if directory.is_absolute() && Path::new(&path).is_relative() => {
            directory.join(&path).to_string_lossy().into_owned()
        }
        _ => path,
    }
}

fn count(tasks: usize) -> String {
    match tasks {
        1 => "1 task".to_owned(),
        several => format!("{several} tasks"),
    }
}
