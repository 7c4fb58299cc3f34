//! Lists and calls the tools over HTTP, for hosts without MCP and without the bridge.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use greenroom::domain::ids::{MessageId, SessionId};
use greenroom::domain::task::cut;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::app::Api;
use super::error::ApiError;
use super::input::Body;
use super::operation::Json;
use crate::tools::{Caller, ToolReply, catalogue};

/// A tool.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Tool {
    /// What agents call it.
    name: String,
    /// What people call it.
    title: String,
    /// What it does and when to use it, for agents.
    description: String,
    /// The JSON schema of its arguments.
    schema: Value,
}

/// The tools.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ToolList {
    /// In the order in which agents meet them.
    tools: Vec<Tool>,
}

/// `GET /v1/tools`
pub async fn list(_: Data<Api>) -> Json<ToolList> {
    let tools = catalogue().into_iter().map(|tool| Tool {
        name: tool.name.to_owned(),
        title: tool.title.to_owned(),
        description: tool.description.to_owned(),
        schema: tool.schema,
    });
    Json(ToolList {
        tools: tools.collect(),
    })
}

/// The body of a call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolBody {
    /// The arguments, by the tool's schema; invalid ones are refused in the answer.
    #[serde(default)]
    arguments: Option<serde_json::Map<String, Value>>,
    /// The session that calls; without it no session is notified of ends, and all tasks are within reach.
    #[serde(rename = "sessionID")]
    session: Option<SessionId>,
    /// The message in which it calls.
    #[serde(rename = "messageID")]
    message: Option<MessageId>,
    /// The call: one that comes twice is one launch.
    #[serde(rename = "callID")]
    call: Option<String>,
    /// The agent that calls.
    agent: Option<String>,
    /// Where it works.
    directory: Option<String>,
}

/// What an agent gets back.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolAnswer {
    /// What the agent reads.
    pub output: String,
    /// A few words for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Of the task it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// True if it was not done.
    pub is_error: bool,
}

impl From<ToolReply> for ToolAnswer {
    fn from(reply: ToolReply) -> Self {
        Self {
            output: reply.output,
            title: reply.title,
            metadata: reply.metadata,
            is_error: reply.is_error,
        }
    }
}

impl From<ToolAnswer> for ToolReply {
    fn from(answer: ToolAnswer) -> Self {
        Self {
            output: answer.output,
            title: answer.title,
            metadata: answer.metadata,
            is_error: answer.is_error,
        }
    }
}

/// `POST /v1/tools/{tool}`: the reply of a tool. Errors of the tool are replies too.
pub async fn call(
    api: Data<Api>,
    tool: Path<String>,
    body: Body<ToolBody>,
) -> Result<Json<ToolAnswer>, ApiError> {
    let tools = catalogue();
    if !tools.iter().any(|known| known.name == *tool) {
        let names: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "tool_not_found",
            format!("no tool {:?}", cut(&tool, 100)),
            format!("there are {}", names.join(", ")),
        ));
    }
    let body = body.0;
    let caller = Caller {
        session: body.session,
        message: body.message,
        agent: body.agent,
        call: body.call,
        directory: body.directory,
        ends_with_turn: false,
    };
    let arguments = body.arguments.map_or(Value::Null, Value::Object);
    let reply = api.tools.call(&tool, arguments, &caller).await;
    Ok(Json(reply.into()))
}
