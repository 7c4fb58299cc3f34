//! `greenroom mcp`: MCP on stdin and stdout, for hosts that start their servers as processes. The protocol is spoken here,
//! what it asks for is done by the running service; each call is one request, so that the service may be started again
//! in between.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use greenroom::TaskDetail;
use greenroom::domain::halves;
use rmcp::ServiceExt;
use rmcp::service::ServerInitializeError;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use super::args::ClientArgs;
use super::client::{BLOCK, Client, Shown};
use super::failure::{FAILED, Failure};
use crate::config::Environment;
use crate::http::tools::ToolAnswer;
use crate::mcp::{Desk, McpServer};
use crate::tools::orders::{Order, Reading};
use crate::tools::{Caller, ToolReply};

/// How long the service may take for a call that waits as long as it may.
const CALL_WITHIN: Duration = Duration::from_secs(BLOCK.as_secs() + 40);

/// Bytes of stdin between two readers.
const PIPED: usize = 64 * 1024;

/// The longest line that is made whole; of a longer one each piece of that length is.
const LINE: u64 = 16 * 1024 * 1024;

/// Speaks MCP until stdin ends.
pub async fn mcp(args: ClientArgs) -> Result<(), Failure> {
    let client = Client::new(&args, &Environment::of_process())?;
    // Somebody should learn now, and not at the first call, that there is no service or the secret is wrong.
    let _: Value = client.get(&["v1", "tools"], &[]).await?;
    let server = McpServer::new(Arc::new(Service { client }));
    let running = match server
        .serve((whole(tokio::io::stdin()), tokio::io::stdout()))
        .await
    {
        Ok(running) => running,
        // Nobody said anything: nothing to do.
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

/// Its lines as they come, each made whole: what half an emoji stands in is no line to the protocol's reader, which then
/// leaves its sender without an answer.
fn whole(input: impl AsyncRead + Unpin + 'static) -> impl AsyncRead {
    let (mut to, from) = tokio::io::duplex(PIPED);
    actix_web::rt::spawn(async move {
        let mut input = BufReader::new(input);
        let mut line = Vec::new();
        // Ends with the input, or when nobody reads any more.
        while let Ok(1..) = (&mut input).take(LINE).read_until(b'\n', &mut line).await {
            let mended = halves::mended(&line);
            let line_read = mended.as_deref().unwrap_or(&line);
            if to.write_all(line_read).await.is_err() {
                return;
            }
            line.clear();
        }
    });
    from
}

/// The tools of a running service.
#[derive(Debug)]
struct Service {
    client: Client,
}

#[async_trait]
impl Desk for Service {
    async fn call(&self, tool: &str, arguments: Value, caller: &Caller) -> ToolReply {
        let body = json!({ "arguments": arguments, "sessionID": caller.session });
        let path = ["v1", "tools", tool];
        let answer: Result<ToolAnswer, Failure> =
            self.client.post_within(&path, &body, CALL_WITHIN).await;
        answer.map_or_else(refused, ToolReply::from)
    }

    async fn find(&self, task: &str) -> Result<Option<TaskDetail>, String> {
        let found: Result<Shown, Failure> = self.client.get(&["v1", "tasks", task], &[]).await;
        match found {
            Ok(Shown { task, waits_for }) => {
                let mut detail = TaskDetail::new(task);
                detail.waits_for = waits_for;
                Ok(Some(detail))
            }
            Err(failure) if failure.code == FAILED => Ok(None),
            Err(failure) => Err(failure.message),
        }
    }

    async fn shows(&self, task: &str, caller: &Caller) -> bool {
        let arguments = json!({ "task_id": task });
        !self.call(Reading::TOOL, arguments, caller).await.is_error
    }
}

/// A service that is not there is the agent's to know, and not the end of the conversation.
fn refused(failure: Failure) -> ToolReply {
    ToolReply {
        output: format!("Error: {}\n{}", failure.message, failure.hint),
        title: Some("not done".to_owned()),
        metadata: None,
        is_error: true,
    }
}
