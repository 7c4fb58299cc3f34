//! Carries out tool calls. All hosts of agents use it, so that a tool behaves the same on every path.

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

use super::args::{
    BackgroundCancelArgs, BackgroundListArgs, BackgroundOutputArgs, BackgroundSendArgs,
    BackgroundTaskArgs, ToolArgs,
};
use super::call::{Caller, ToolReply};
use super::parse::parse_args;
use super::scope::Scope;
use super::text::{self, ListEntry, MAX_LISTED, OpenTask, ReadPosition};
use super::tool_error::ToolError;
use crate::http::tasks::{DEFAULT_WAIT_MS, MAX_WAIT_MS, statuses};

/// Time a launch waits for its session, so that the reply can name it. Not used if the task must wait for a slot.
const SESSION_TIMEOUT: Duration = Duration::from_millis(300);

/// The tools of one service. A cheap clone.
#[derive(Debug, Clone)]
pub struct Tools {
    greenroom: Greenroom,
}

impl Tools {
    /// Creates the tools for an actor system.
    pub fn new(greenroom: Greenroom) -> Self {
        Self { greenroom }
    }

    /// Returns the actor system.
    pub(crate) fn greenroom(&self) -> &Greenroom {
        &self.greenroom
    }

    /// Carries out a call. Errors of the tool are replies too. A dropped call stops waiting and has no other effect.
    pub async fn call(&self, tool: &str, args: Value, caller: &Caller) -> ToolReply {
        let result = match tool {
            BackgroundTaskArgs::TOOL => self.launch(args, caller).await,
            BackgroundOutputArgs::TOOL => self.output(args, caller).await,
            BackgroundCancelArgs::TOOL => self.cancel(args, caller).await,
            BackgroundSendArgs::TOOL => self.send(args, caller).await,
            BackgroundListArgs::TOOL => self.list(args, caller).await,
            other => Err(unknown(other)),
        };
        result.unwrap_or_else(|error| ToolReply {
            output: error.text(),
            title: Some("not done".to_owned()),
            metadata: None,
            is_error: true,
        })
    }

    async fn launch(&self, args: Value, caller: &Caller) -> Result<ToolReply, ToolError> {
        let args: BackgroundTaskArgs = parse_args(args).map_err(ToolError::arguments)?;
        let task = match &args.session_id {
            Some(session) => self.resume(session, &args, caller).await?,
            None => self.start(args, caller).await?,
        };
        let detail = self.with_session(task).await;
        Ok(ToolReply::about(
            &detail.task,
            text::launched(&detail, caller.wake_mode()),
            detail.task.description.to_string(),
        ))
    }

    async fn start(&self, args: BackgroundTaskArgs, caller: &Caller) -> Result<Task, ToolError> {
        let launch = Launch {
            description: args.description.unwrap_or_default(),
            prompt: args.prompt.unwrap_or_default(),
            agent: args.agent.unwrap_or_default(),
            parent_session: caller.session.clone(),
            parent_message: caller.message.clone().filter(|_| caller.session.is_some()),
            parent_agent: caller.agent.clone().filter(|_| caller.session.is_some()),
            model: args.model.as_deref().map(model).transpose()?,
            category: args.category,
            skills: args.skills.unwrap_or_default(),
            directory: args.directory.map(|path| absolute(path, caller)),
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
        args: &BackgroundTaskArgs,
        caller: &Caller,
    ) -> Result<Task, ToolError> {
        let found = Scope::for_caller(caller.session.as_ref())
            .find(&self.greenroom, session)
            .await
            .ok_or_else(|| ToolError::session_not_found(session))?;
        // A task id is accepted too: agents confuse the two.
        let session = found
            .task
            .session
            .ok_or_else(|| ToolError::session_not_found(session))?;
        let resume = Resume {
            session: Some(session),
            prompt: args.prompt.clone().unwrap_or_default(),
            parent_session: caller.session.clone(),
            parent_message: caller.message.clone().filter(|_| caller.session.is_some()),
            parent_agent: caller.agent.clone().filter(|_| caller.session.is_some()),
        };
        Ok(self.greenroom.resume(resume).await?)
    }

    /// Returns the current state of a launched task. Waits a moment for its session if a slot is free.
    async fn with_session(&self, task: Task) -> TaskDetail {
        let (id, run) = (task.id.clone(), task.run);
        let now = self.greenroom.find(id.as_str()).await;
        let waits_for_slot = now.as_ref().is_some_and(|detail| {
            let waits = detail.waits_for.as_ref();
            waits.is_some_and(|waits| waits.limit > 0 && waits.in_use >= waits.limit as usize)
        });
        if !waits_for_slot {
            let started = self.greenroom.wait(&id, run, WaitFor::Started);
            // A longer start is not an error.
            let _ = tokio::time::timeout(SESSION_TIMEOUT, started).await;
        }
        match self.greenroom.find(id.as_str()).await.or(now) {
            Some(detail) => detail,
            None => TaskDetail::new(task),
        }
    }

    async fn output(&self, args: Value, caller: &Caller) -> Result<ToolReply, ToolError> {
        let args: BackgroundOutputArgs = parse_args(args).map_err(ToolError::arguments)?;
        let name = args.task_id.clone().unwrap_or_default();
        let task = self.find_readable(&name, caller).await?.task;
        let mut timed_out = false;
        if args.block == Some(true) && !task.status().is_terminal() {
            let limit = args.timeout.unwrap_or(DEFAULT_WAIT_MS).min(MAX_WAIT_MS);
            let end = self.greenroom.wait(&task.id, task.run, WaitFor::Ended);
            timed_out = tokio::time::timeout(Duration::from_millis(limit), end)
                .await
                .is_err();
        }
        let full = args.full_session == Some(true);
        let options = OutputOptions {
            full_session: full,
            include_thinking: args.include_thinking == Some(true),
            include_tool_results: args.include_tool_results == Some(true),
            message_limit: args.message_limit,
            from_end: args.from_end == Some(true),
            since_message: args.since_message_id.filter(|_| full),
            thinking_max_chars: args.thinking_max_chars,
            result_offset: args.offset.unwrap_or(0),
        };
        // Of a long answer the newest messages matter.
        let position = ReadPosition {
            from_end: options.from_end || !full,
            offset: options.result_offset,
        };
        // By task id: the session may belong to another task after the wait.
        let mut output = self.greenroom.output(task.id.as_str(), options).await?;
        let now = self.greenroom.now();
        let task = output.task.clone();
        let title = format!("{} ({})", task.description, task.status().as_str());
        if task.status().is_terminal() {
            return Ok(ToolReply::about(
                &task,
                text::ended(&output, now, position),
                title,
            ));
        }
        output.timed_out = timed_out.then_some(true);
        let detail = self.greenroom.find(task.id.as_str()).await;
        // If the task has just ended, the next read returns the result.
        let detail = detail
            .filter(|detail| !detail.task.status().is_terminal())
            .unwrap_or_else(|| TaskDetail::new(task.clone()));
        let state = OpenTask {
            detail: &detail,
            below: self.open_below(&task).await.len(),
            output: &output,
            from_end: position.from_end,
            wake_mode: caller.wake_mode(),
        };
        Ok(ToolReply::about(&task, text::open_task(&state, now), title))
    }

    async fn cancel(&self, args: Value, caller: &Caller) -> Result<ToolReply, ToolError> {
        let args: BackgroundCancelArgs = parse_args(args).map_err(ToolError::arguments)?;
        match (args.task_id, args.all == Some(true)) {
            (Some(name), false) => self.cancel_one(&name, caller).await,
            (None, true) => Ok(self.cancel_all(caller).await),
            (Some(_), true) => Err(ToolError::arguments(
                "all: cancels every task of yours; give either taskId or all".to_owned(),
            )),
            (None, false) => Err(ToolError::arguments(
                "taskId: is missing; give the id of the task to cancel, or all=true".to_owned(),
            )),
        }
    }

    async fn cancel_one(&self, name: &str, caller: &Caller) -> Result<ToolReply, ToolError> {
        let task = self.find_in_scope(name, caller).await?.task;
        let options = cancel_options(&task, caller);
        match self.greenroom.cancel(&task.id, options).await {
            Ok(task) => {
                let below = self.open_below(&task).await;
                let below: Vec<_> = below.into_iter().map(|task| task.id).collect();
                let text = text::cancelled(std::slice::from_ref(&task), &below);
                let title = format!("cancelled {}", task.description);
                Ok(ToolReply::about(&task, text, title))
            }
            Err(CancelError::NotCancellable(task)) => Err(ToolError::ended(&task)),
            Err(CancelError::Unknown(task)) => Err(ToolError::task_not_found(task.as_str())),
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
                // Waiting tasks first, so that they do not start in the slots of cancelled ones.
                open.sort_by_key(|task| task.status() != TaskStatus::Pending);
                for task in open {
                    let options = cancel_options(&task, caller);
                    // The task may have ended in the meantime.
                    if let Ok(task) = self.greenroom.cancel(&task.id, options).await {
                        cancelled.push(task);
                    }
                }
            }
        }
        ToolReply {
            output: text::cancelled(&cancelled, &[]),
            title: Some(format!("cancelled {}", count(cancelled.len()))),
            metadata: None,
            is_error: false,
        }
    }

    async fn send(&self, args: Value, caller: &Caller) -> Result<ToolReply, ToolError> {
        let args: BackgroundSendArgs = parse_args(args).map_err(ToolError::arguments)?;
        let name = args.task_id.unwrap_or_default();
        let task = self.find_in_scope(&name, caller).await?.task;
        let prompt = args.prompt.unwrap_or_default();
        let task = self.greenroom.send(&task.id, prompt).await?;
        let title = task.description.clone();
        Ok(ToolReply::about(
            &task,
            text::sent(&task, caller.wake_mode()),
            title.to_string(),
        ))
    }

    async fn list(&self, args: Value, caller: &Caller) -> Result<ToolReply, ToolError> {
        let args: BackgroundListArgs = parse_args(args).map_err(ToolError::arguments)?;
        let statuses_filter = statuses(args.status.as_deref().unwrap_or_default());
        let statuses_filter = statuses_filter.map_err(ToolError::arguments)?;
        let (tasks, history) = match &caller.session {
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
        let in_memory: HashSet<_> = tasks.iter().map(|task| task.id.clone()).collect();
        let fits =
            |status: TaskStatus| statuses_filter.is_empty() || statuses_filter.contains(&status);
        let history = history
            .into_iter()
            .filter(|entry: &HistoryEntry| !in_memory.contains(&entry.task) && fits(entry.status));
        let mut listed: Vec<ListEntry> = history.map(ListEntry::History).collect();
        let tasks = tasks.into_iter().filter(|task| fits(task.status()));
        listed.extend(tasks.map(|task| ListEntry::InMemory(Box::new(TaskDetail::new(task)))));
        let all = listed.len();
        listed.drain(..all.saturating_sub(MAX_LISTED));
        for task in &mut listed {
            if let ListEntry::InMemory(detail) = task
                && detail.task.status() == TaskStatus::Pending
                && let Some(waiting) = self.greenroom.find(detail.task.id.as_str()).await
            {
                **detail = waiting;
            }
        }
        let now = self.greenroom.now();
        Ok(ToolReply {
            output: text::list(&listed, all, caller.wake_mode(), now),
            title: Some(count(all)),
            metadata: None,
            is_error: false,
        })
    }

    async fn find_readable(&self, name: &str, caller: &Caller) -> Result<TaskDetail, ToolError> {
        let found = Scope::for_caller(caller.session.as_ref())
            .find_readable(&self.greenroom, name, caller.message.as_ref())
            .await;
        found.ok_or_else(|| ToolError::task_not_found(name))
    }

    async fn find_in_scope(&self, name: &str, caller: &Caller) -> Result<TaskDetail, ToolError> {
        let found = Scope::for_caller(caller.session.as_ref())
            .find(&self.greenroom, name)
            .await;
        found.ok_or_else(|| ToolError::task_not_found(name))
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

fn unknown(tool: &str) -> ToolError {
    let tools = super::catalogue();
    let names: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
    ToolError::new(
        format!(
            "there is no tool {:?}",
            greenroom::domain::task::cut(tool, 60)
        ),
        format!("There are {}.", names.join(", ")),
    )
}

/// Skips the message to the caller, which knows of its own cancel; another parent still gets one.
fn cancel_options(task: &Task, caller: &Caller) -> CancelOptions {
    CancelOptions {
        source: "tool".to_owned(),
        skip_notification: caller.session.is_some() && task.parent_session == caller.session,
        ..CancelOptions::default()
    }
}

fn model(text: &str) -> Result<ModelRef, ToolError> {
    let (provider_id, model_id) = crate::cli::args::parsers::model(text.trim())
        .map_err(|problem| ToolError::arguments(format!("model: {problem}")))?;
    Ok(ModelRef {
        provider_id,
        model_id,
        variant: None,
    })
}

/// Resolves a relative path against the caller's directory.
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
