//! The MCP server: lists and calls tools, sends progress during a blocking call, and offers launches as MCP tasks.
//! Holds no task state: each request reads the task.

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

use super::convert;
use super::tool_dispatcher::ToolDispatcher;
use crate::tools::args::{
    BackgroundCancelArgs, BackgroundOutputArgs, BackgroundTaskArgs, ToolArgs,
};
use crate::tools::parse::parse_args;
use crate::tools::{Caller, ToolReply};

/// Maximum number of concurrent calls over all clients. A call of a disconnected client may still wait.
const MAX_CALLS: usize = 1000;
/// Interval between progress notifications.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

const INSTRUCTIONS: &str = "Greenroom runs tasks for other agents in the background. Launch several with background_task, go on \
    with other work, and read each result with background_output. If you name your session as parent_session_id you are \
    notified when tasks end, so never poll; else wait with background_output(block=true).";

/// The MCP server of one client. A cheap clone.
#[derive(Clone)]
pub struct McpServer {
    tools: Arc<dyn ToolDispatcher>,
    calls: Arc<Semaphore>,
}

impl McpServer {
    /// Creates a server for the tools.
    pub fn new(tools: Arc<dyn ToolDispatcher>) -> Self {
        Self {
            tools,
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
        }
    }

    /// Calls a tool and sends progress while it waits for a task. A cancelled call stops waiting; the task continues.
    async fn call_with_progress(
        &self,
        tool: &str,
        arguments: Value,
        caller: &Caller,
        context: &RequestContext<RoleServer>,
    ) -> Result<ToolReply, ErrorData> {
        let _permit = self.calls.try_acquire().map_err(|_| {
            let problem = format!("{MAX_CALLS} calls are under way already; call again later");
            ErrorData::internal_error(problem, None)
        })?;
        let waits_for = waits_for(tool, &arguments);
        let token = context.meta.get_progress_token();
        let call = self.tools.call(tool, arguments, caller);
        let mut call = std::pin::pin!(call);
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut updates = 0_u32;
        // A session gets progress only for tasks of its own tree.
        let mut may_read = caller.session.is_none();
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
            may_read = may_read || self.tools.can_read(task, caller).await;
            if !may_read {
                continue;
            }
            let Ok(Some(detail)) = self.tools.find(task).await else {
                continue;
            };
            updates += 1;
            let progress = ProgressNotificationParam::new(token.clone(), f64::from(updates))
                .with_message(convert::progress(&detail, self.tools.now()));
            // The transport notices a disconnected client.
            let _ = context.peer.notify_progress(progress).await;
        }
    }

    async fn task(&self, id: &str) -> Result<TaskDetail, ErrorData> {
        let found = self.tools.find(id).await;
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
        Ok(ListToolsResult::with_all_items(convert::tools()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        convert::tools().into_iter().find(|tool| tool.name == name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let mut arguments: JsonObject = request.arguments.unwrap_or_default();
        let caller = match convert::caller(&mut arguments) {
            Ok(caller) => caller,
            Err(problem) => {
                let text = format!("Error: {problem}\nCorrect the arguments and call again.");
                return Ok(CallToolResult::error(vec![ContentBlock::text(text)]).into());
            }
        };
        let arguments = Value::Object(arguments);
        let reply = self
            .call_with_progress(&request.name, arguments, &caller, &context)
            .await?;
        // A caller with a session gets a message at the end; a caller without one gets an MCP task.
        let takes_tasks = context
            .client_capabilities()
            .is_some_and(|capabilities| capabilities.supports_tasks());
        let launched = request.name == BackgroundTaskArgs::TOOL && caller.session.is_none();
        if launched && takes_tasks && !reply.is_error {
            let id = reply
                .metadata
                .as_ref()
                .and_then(|metadata| metadata["taskId"].as_str());
            if let Some(id) = id {
                let task = convert::task(&self.task(id).await?, self.tools.now());
                return Ok(CallToolResponse::Task(CreateTaskResult::new(task)));
            }
        }
        Ok(convert::result(reply).into())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let detail = self.task(&request.task_id).await?;
        let result = if detail.task.status() == TaskStatus::Completed {
            let arguments = json!({ "task_id": detail.task.id });
            let reply = self
                .tools
                .call(BackgroundOutputArgs::TOOL, arguments, &Caller::default())
                .await;
            Some(convert::result(reply))
        } else {
            None
        };
        Ok(GetTaskResult::new(convert::detailed(
            &detail,
            result,
            self.tools.now(),
        )))
    }

    /// Ignores input for a task: people answer the requests of children, not MCP clients.
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
            // The task may have ended in the meantime.
            self.tools
                .call(BackgroundCancelArgs::TOOL, arguments, &Caller::default())
                .await;
        }
        Ok(())
    }
}

/// Returns the task that a call waits for.
fn waits_for(tool: &str, arguments: &Value) -> Option<String> {
    let args: BackgroundOutputArgs = match tool {
        BackgroundOutputArgs::TOOL => parse_args(arguments.clone()).ok()?,
        _ => return None,
    };
    args.task_id.filter(|_| args.block == Some(true))
}

impl std::fmt::Debug for McpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("McpServer").finish_non_exhaustive()
    }
}
