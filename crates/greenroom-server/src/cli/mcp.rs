//! `greenroom mcp`: an MCP server on stdin and stdout, for hosts that start their servers as processes. Each tool call
//! is one request to the running service, so the service may restart between calls.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use greenroom::TaskDetail;
use greenroom::clock::Clock;
use greenroom::domain::lenient_json;
use greenroom::domain::time::Timestamp;
use rmcp::ServiceExt;
use rmcp::service::ServerInitializeError;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use super::args::ClientArgs;
use super::client::{Client, MAX_BLOCK, TaskView};
use super::failure::{FAILED, Failure};
use crate::config::Environment;
use crate::http::tools::ToolAnswer;
use crate::mcp::{McpServer, ToolDispatcher};
use crate::tools::args::{BackgroundOutputArgs, ToolArgs};
use crate::tools::{Caller, ToolReply};

/// Time limit of a call that blocks for [`MAX_BLOCK`].
const CALL_TIMEOUT: Duration = Duration::from_secs(MAX_BLOCK.as_secs() + 40);

/// Size of the pipe between stdin and the MCP server, in bytes.
const PIPE_BYTES: usize = 64 * 1024;

/// Maximum length of a repaired line. A longer line is repaired in pieces.
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// Serves MCP until stdin ends.
pub async fn mcp(args: ClientArgs) -> Result<(), Failure> {
    let client = Client::new(&args, &Environment::from_process())?;
    // Reports a missing service or a wrong secret at the start, not at the first call.
    let _: Value = client.get(&["v1", "tools"], &[]).await?;
    let server = McpServer::new(Arc::new(RemoteTools { client }));
    let running = match server
        .serve((repaired_lines(tokio::io::stdin()), tokio::io::stdout()))
        .await
    {
        Ok(running) => running,
        // Stdin ended before the first message.
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => {
            let hint = "the first message must be `initialize` or `server/discover`, one JSON object a line";
            return Err(Failure::new(
                FAILED,
                format!("no MCP on stdin: {error}"),
                hint,
            ));
        }
    };
    let ended = running.waiting().await;
    ended
        .map(|_| ())
        .map_err(|error| Failure::new(FAILED, format!("MCP on stdin broke off: {error}"), ""))
}

/// Returns the input with repaired lines. The MCP server cannot parse a line with a lone surrogate, and would not
/// answer it.
fn repaired_lines(input: impl AsyncRead + Unpin + 'static) -> impl AsyncRead {
    let (mut to, from) = tokio::io::duplex(PIPE_BYTES);
    actix_web::rt::spawn(async move {
        let mut input = BufReader::new(input);
        let mut line = Vec::new();
        // Ends with the input, or when the reader is closed.
        while let Ok(1..) = (&mut input)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .await
        {
            let mended = lenient_json::repair(&line);
            let repaired = mended.as_deref().unwrap_or(&line);
            if to.write_all(repaired).await.is_err() {
                return;
            }
            line.clear();
        }
    });
    from
}

/// The tools of a running service, over HTTP.
#[derive(Debug)]
struct RemoteTools {
    client: Client,
}

#[async_trait]
impl ToolDispatcher for RemoteTools {
    async fn call(&self, tool: &str, arguments: Value, caller: &Caller) -> ToolReply {
        let body = json!({ "arguments": arguments, "sessionID": caller.session });
        let path = ["v1", "tools", tool];
        let answer: Result<ToolAnswer, Failure> = self
            .client
            .post_with_timeout(&path, &body, CALL_TIMEOUT)
            .await;
        answer.map_or_else(error_reply, ToolReply::from)
    }

    async fn find(&self, task: &str) -> Result<Option<TaskDetail>, String> {
        let found: Result<TaskView, Failure> = self.client.get(&["v1", "tasks", task], &[]).await;
        match found {
            Ok(TaskView { task, waits_for }) => {
                let mut detail = TaskDetail::new(task);
                detail.waits_for = waits_for;
                Ok(Some(detail))
            }
            Err(failure) if failure.code == FAILED => Ok(None),
            Err(failure) => Err(failure.message),
        }
    }

    fn now(&self) -> Timestamp {
        Clock::system().now()
    }

    async fn can_read(&self, task: &str, caller: &Caller) -> bool {
        let arguments = json!({ "task_id": task });
        !self
            .call(BackgroundOutputArgs::TOOL, arguments, caller)
            .await
            .is_error
    }
}

/// An unreachable service is a reply to the agent and does not end the MCP session.
fn error_reply(failure: Failure) -> ToolReply {
    ToolReply {
        output: format!("Error: {}\n{}", failure.message, failure.hint),
        title: Some("not done".to_owned()),
        metadata: None,
        is_error: true,
    }
}
