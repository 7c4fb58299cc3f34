//! The arguments of each tool as types. The schema for agents and the parser are generated from them; agents read the
//! doc comments of the fields.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The arguments of one tool.
pub trait ToolArgs: DeserializeOwned + JsonSchema {
    /// The name of the tool.
    const TOOL: &'static str;
    /// The description of the tool, for agents.
    const ABOUT: &'static str;
    /// Argument names of other tools, with the name here.
    const ALIASES: &'static [(&'static str, &'static str)] = &[];

    /// Returns the required arguments that may be left out because of the given ones.
    fn waived(_given: &Map<String, Value>) -> &'static [&'static str] {
        &[]
    }
}

/// `background_task`
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackgroundTaskArgs {
    /// The task in three to six words, for people.
    #[schemars(required)]
    pub description: Option<String>,
    /// The prompt for the agent: all it needs to know, since it sees nothing of this conversation.
    #[schemars(required)]
    pub prompt: Option<String>,
    /// Which agent does it, for instance "explore".
    #[schemars(required)]
    pub agent: Option<String>,
    /// The model as "provider/model"; without it the agent's own.
    pub model: Option<String>,
    /// A label that is kept with the task and shown.
    pub category: Option<String>,
    /// Names of skills, kept with the task and shown.
    pub skills: Option<Vec<String>>,
    /// The absolute path of the directory to work in; without it the directory of the parent session.
    pub directory: Option<String>,
    /// Resume the session of an ended task instead of starting a new one: it goes on with all it knows. Only the prompt is
    /// used then.
    pub session_id: Option<String>,
}

impl ToolArgs for BackgroundTaskArgs {
    const TOOL: &'static str = "background_task";
    const ABOUT: &'static str = "Launch a task for another agent in the background, or resume one by its session_id. Returns \
        a task_id at once; several run at the same time. You are notified when tasks end: do not poll or wait, go on with other \
        work or end your turn. Read a result with background_output.";
    const ALIASES: &'static [(&'static str, &'static str)] = &[("subagent_type", "agent")];

    fn waived(given: &Map<String, Value>) -> &'static [&'static str] {
        if given.contains_key("session_id") {
            &["description", "agent"]
        } else {
            &[]
        }
    }
}

/// `background_output`
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackgroundOutputArgs {
    /// The task's id, or its session id.
    #[schemars(required)]
    pub task_id: Option<String>,
    /// Wait for the task's end. Rarely needed: you are notified when it ends.
    #[schemars(extend("default" = false))]
    pub block: Option<bool>,
    /// How long to wait at most with block, in milliseconds.
    #[schemars(range(max = 600_000), extend("default" = 60_000))]
    pub timeout: Option<u64>,
    /// The messages of the whole session instead of the last answer.
    #[schemars(extend("default" = false))]
    pub full_session: Option<bool>,
    /// Reasoning too.
    #[schemars(extend("default" = false))]
    pub include_thinking: Option<bool>,
    /// What tools gave back too.
    #[schemars(extend("default" = false))]
    pub include_tool_results: Option<bool>,
    /// At most so many messages.
    #[schemars(range(min = 1, max = 100), extend("default" = 100))]
    pub message_limit: Option<usize>,
    /// The newest messages instead of the oldest, with full_session.
    #[schemars(extend("default" = false))]
    pub from_end: Option<bool>,
    /// Only messages after this one, with full_session.
    pub since_message_id: Option<String>,
    /// Cut reasoning to so many characters.
    #[schemars(extend("default" = 2000))]
    pub thinking_max_chars: Option<usize>,
    /// Begin so many characters into the answer: to read on in one that was cut.
    #[schemars(extend("default" = 0))]
    pub offset: Option<usize>,
}

impl ToolArgs for BackgroundOutputArgs {
    const TOOL: &'static str = "background_output";
    const ABOUT: &'static str = "Read the result of a background task that has ended, or see how one stands. You are notified \
        when a task ends: call this then, and do not poll with it. Reading consumes nothing.";
    const ALIASES: &'static [(&'static str, &'static str)] = &[("session_id", "task_id")];
}

/// `background_cancel`
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackgroundCancelArgs {
    /// The id of the task to cancel, or its session id.
    #[serde(rename = "taskId")]
    pub task_id: Option<String>,
    /// Cancel all tasks you launched and all below them, instead of one.
    #[schemars(extend("default" = false))]
    pub all: Option<bool>,
}

impl ToolArgs for BackgroundCancelArgs {
    const TOOL: &'static str = "background_cancel";
    const ABOUT: &'static str = "Cancel a background task by its taskId, or all you launched with all=true. You are not notified \
        of tasks that you cancel.";
    const ALIASES: &'static [(&'static str, &'static str)] = &[("session_id", "taskId")];
}

/// `background_send`
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackgroundSendArgs {
    /// The id of a running task, or its session id.
    #[schemars(required)]
    pub task_id: Option<String>,
    /// The prompt for the agent.
    #[schemars(required)]
    pub prompt: Option<String>,
}

impl ToolArgs for BackgroundSendArgs {
    const TOOL: &'static str = "background_send";
    const ABOUT: &'static str = "Give a running background task a further instruction. To go on with a task that has ended, \
        use background_task with its session_id.";
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("session_id", "task_id"), ("message", "prompt")];
}

/// `background_list`
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackgroundListArgs {
    /// Only these states, with commas between them: pending, running, completed, error, cancelled, interrupt.
    pub status: Option<String>,
}

impl ToolArgs for BackgroundListArgs {
    const TOOL: &'static str = "background_list";
    const ABOUT: &'static str = "List the background tasks you launched, with their states. For an overview, not for \
        waiting: you are notified when tasks end.";
}
