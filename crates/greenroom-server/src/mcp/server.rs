//! The protocol's side of the tools: listing and calling them, telling how a wait goes on, and launches as tasks of the
//! protocol's own. It keeps nothing: what it says of a task is read when it is asked for.

use std::sync::Arc;
use std::time::Duration;

use greenroom::TaskDetail;
use greenroom::domain::task::TaskStatus;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, ContentBlock,
    CreateTaskResult, GetTaskParams, GetTaskResult, Implementation, JsonObject, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ServerCapabilities, ServerConfig, Tool,
    UpdateTaskParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use super::desk::Desk;
use super::shapes;
use crate::tools::arguments::read;
use crate::tools::orders::{Cancelling, Launching, Order, Reading};
use crate::tools::{Caller, ToolReply};

/// Calls under way at a time, over all clients: one whose client has gone may wait on.
const MOST_CALLS: usize = 1000;
/// How often somebody who waits is told how the task stands.
const TELL_EVERY: Duration = Duration::from_secs(5);

const INSTRUCTIONS: &str = "Greenroom runs tasks for other agents in the background. Launch several with background_task, go on \
    with other work, and read each result with background_output. If you name your session as parent_session_id you are told \
    when tasks end, so never poll; else wait with background_output(block=true).";

/// One client's view of the tools. A cheap clone.
#[derive(Clone)]
pub struct McpServer {
    desk: Arc<dyn Desk>,
    calls: Arc<Semaphore>,
}

impl McpServer {
    /// The tools of that desk.
    pub fn new(desk: Arc<dyn Desk>) -> Self {
        Self {
            desk,
            calls: Arc::new(Semaphore::new(MOST_CALLS)),
        }
    }

    /// A call, watched if it waits. Whoever cancels it ends the waiting, not the task.
    async fn called(
        &self,
        tool: &str,
        arguments: Value,
        caller: &Caller,
        context: &RequestContext<RoleServer>,
    ) -> Result<ToolReply, ErrorData> {
        let _under_way = self.calls.try_acquire().map_err(|_| {
            let problem = format!("{MOST_CALLS} calls are under way already; call again later");
            ErrorData::internal_error(problem, None)
        })?;
        let waits_for = waits_for(tool, &arguments);
        let token = context.meta.get_progress_token();
        let call = self.desk.call(tool, arguments, caller);
        let mut call = std::pin::pin!(call);
        let mut tick = tokio::time::interval(TELL_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = 0_u32;
        // A session reads only the tasks of its own tree, here too.
        let mut is_shown = caller.session.is_none();
        loop {
            tokio::select! {
                biased;
                reply = &mut call => return Ok(reply),
                () = context.ct.cancelled() => {
                    return Err(ErrorData::internal_error("the call was cancelled; the task goes on", None));
                }
                _ = tick.tick() => {}
            }
            let (Some(task), Some(token)) = (&waits_for, &token) else {
                continue;
            };
            is_shown = is_shown || self.desk.shows(task, caller).await;
            if !is_shown {
                continue;
            }
            let Ok(Some(detail)) = self.desk.find(task).await else {
                continue;
            };
            told += 1;
            let progress = ProgressNotificationParam::new(token.clone(), f64::from(told))
                .with_message(shapes::progress(&detail, now()));
            // A client that has gone is noticed by its transport.
            let _ = context.peer.notify_progress(progress).await;
        }
    }

    async fn task(&self, id: &str) -> Result<TaskDetail, ErrorData> {
        let found = self.desk.find(id).await;
        let found = found.map_err(|problem| ErrorData::internal_error(problem, None))?;
        found
            .filter(|found| found.task.id.as_str() == id)
            .ok_or_else(|| {
                let id = greenroom::domain::task::cut(id, 100);
                ErrorData::invalid_params(format!("there is no task {id:?}"), None)
            })
    }
}

impl ServerHandler for McpServer {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(
                Implementation::new("greenroom", env!("CARGO_PKG_VERSION")).with_title("Greenroom"),
            )
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(shapes::tools()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        shapes::tools().into_iter().find(|tool| tool.name == name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let mut arguments: JsonObject = request.arguments.unwrap_or_default();
        let caller = match shapes::caller(&mut arguments) {
            Ok(caller) => caller,
            Err(problem) => {
                let text = format!("Error: {problem}\nCorrect the arguments and call again.");
                return Ok(CallToolResult::error(vec![ContentBlock::text(text)]).into());
            }
        };
        let arguments = Value::Object(arguments);
        let reply = self
            .called(&request.name, arguments, &caller, &context)
            .await?;
        // Who is told of the end has the task's id; who is not gets the end itself.
        let takes_tasks = context
            .client_capabilities()
            .is_some_and(|capabilities| capabilities.supports_tasks());
        let launched = request.name == Launching::TOOL && caller.session.is_none();
        if launched && takes_tasks && !reply.is_error {
            let id = reply
                .metadata
                .as_ref()
                .and_then(|metadata| metadata["taskId"].as_str());
            if let Some(id) = id {
                let task = shapes::task(&self.task(id).await?, now());
                return Ok(CallToolResponse::Task(CreateTaskResult::new(task)));
            }
        }
        Ok(shapes::result(reply).into())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let detail = self.task(&request.task_id).await?;
        let result = match detail.task.status() == TaskStatus::Completed {
            true => {
                let arguments = json!({ "task_id": detail.task.id });
                let reply = self
                    .desk
                    .call(Reading::TOOL, arguments, &Caller::default())
                    .await;
                Some(shapes::result(reply))
            }
            false => None,
        };
        Ok(GetTaskResult::new(shapes::detailed(&detail, result, now())))
    }

    /// What children ask for is answered by people, not by the client.
    async fn update_task(
        &self,
        request: UpdateTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.task(&request.task_id).await.map(|_| ())
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let task = self.task(&request.task_id).await?.task;
        if !task.status().is_terminal() {
            let arguments = json!({ "taskId": task.id });
            // One that has just ended has ended.
            self.desk
                .call(Cancelling::TOOL, arguments, &Caller::default())
                .await;
        }
        Ok(())
    }
}

/// The task whose end a call waits for.
fn waits_for(tool: &str, arguments: &Value) -> Option<String> {
    let reading: Reading = match tool {
        Reading::TOOL => read(arguments.clone()).ok()?,
        _ => return None,
    };
    reading.task_id.filter(|_| reading.block == Some(true))
}

fn now() -> greenroom::domain::time::Timestamp {
    greenroom::clock::Clock::system().now()
}

impl std::fmt::Debug for McpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("McpServer").finish_non_exhaustive()
    }
}
