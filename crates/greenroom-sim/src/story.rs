//! The format of a story. Unknown fields are ignored and unknown steps do nothing. The runner reads the
//! configuration and the steps, the scripted server reads its script, `check` reads the expected result.

use std::collections::BTreeMap;

use greenroom::Config;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A story.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// The name of the story.
    #[serde(default)]
    pub name: String,
    /// Limits and timeouts.
    #[serde(default)]
    pub config: StoryConfig,
    /// The scripted agent server.
    #[serde(default)]
    pub server: Script,
    /// The steps, with their times.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// The time of the last observation, in virtual milliseconds.
    pub end_at: u64,
}

/// The settings of a story; the reference profile sets all others.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoryConfig {
    default_concurrency: Option<u32>,
    #[serde(default)]
    provider_concurrency: BTreeMap<String, u32>,
    #[serde(default)]
    model_concurrency: BTreeMap<String, u32>,
    max_concurrency: Option<u32>,
    stale_timeout_ms: Option<u64>,
}

impl StoryConfig {
    /// Returns the reference profile with the settings of the story. Ids and jitter come from a fixed seed,
    /// so a story always runs the same way.
    pub fn profile(&self) -> Config {
        let mut config = Config::reference();
        config.seed = Some(7);
        config.limits.providers = self.provider_concurrency.clone();
        config.limits.models = self.model_concurrency.clone();
        if let Some(limit) = self.default_concurrency {
            config.limits.default = limit;
        }
        if let Some(max) = self.max_concurrency {
            config.limits.max = max;
        }
        if let Some(millis) = self.stale_timeout_ms {
            config.lifecycle.stale_timeout = std::time::Duration::from_millis(millis);
        }
        config
    }
}

/// The script of the agent server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Script {
    /// Declared sessions; the key `$a` is the session that will be created for task `a`.
    #[serde(default)]
    pub sessions: IndexMap<String, Declared>,
    /// The declaration of every created session.
    #[serde(default)]
    pub child_defaults: Declared,
    /// The delay of creates that no entry of `delays` matches, in milliseconds.
    #[serde(default)]
    pub create_delay_ms: u64,
    /// The delays of calls.
    #[serde(default)]
    pub delays: Vec<Rule>,
    /// The faults of calls.
    #[serde(default)]
    pub faults: Vec<Rule>,
}

/// The declaration of a session; fields that are left out keep their value.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Declared {
    /// Its messages, in the format of opencode.
    pub messages: Option<Vec<Value>>,
    /// The todo list.
    pub todos: Option<Vec<Value>>,
    /// `busy`, `idle`, `retry` or `missing`: a word, or an object with that word as its `type`.
    pub status: Option<Value>,
    /// The directory of the session.
    pub directory: Option<String>,
}

/// A delay or a fault, and the calls it applies to.
#[derive(Debug, Clone, Deserialize)]
pub struct Rule {
    /// The name of the call.
    pub call: String,
    /// Matches only calls about this session.
    pub session: Option<String>,
    /// Matches only calls for this task.
    pub task: Option<String>,
    /// Matches only the n-th call that matches otherwise, counted from 1.
    pub nth: Option<u32>,
    /// Matches only calls from this time on.
    pub from: Option<u64>,
    /// Matches only calls before this time.
    pub until: Option<u64>,
    /// Of a delay: the delay of the answer, in milliseconds.
    #[serde(default)]
    pub ms: u64,
    /// Of a fault: the kind of the fault.
    #[serde(default)]
    pub mode: FaultMode,
    /// Of a fault: the error of the server, as it is.
    pub error: Option<Value>,
}

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultMode {
    /// The call fails.
    #[default]
    Reject,
    /// The answer is an error.
    Field,
    /// A create is answered without an id.
    Noid,
    /// The call is never answered and has no effect.
    Hang,
    /// The call is never answered but has its effect.
    Lost,
}

/// A step.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// The time of the step, in virtual milliseconds.
    pub at: u64,
    /// True if the next step follows at once, without settling.
    #[serde(default)]
    pub together: bool,
    /// The action.
    #[serde(flatten)]
    pub action: Action,
}

/// The action of a step.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Action {
    /// Launches a task.
    Launch {
        /// The alias of the task.
        r#as: String,
        /// The input of the launch.
        input: Map<String, Value>,
    },
    /// Delivers an event of the server.
    Event {
        /// The event, in the format of opencode.
        event: Value,
    },
    /// Changes the script of a session.
    Server {
        /// The session.
        session: String,
        /// The changed fields.
        #[serde(flatten)]
        change: Declared,
    },
    /// Cancels a task.
    Cancel {
        /// The alias of the task.
        task: String,
        /// The options.
        #[serde(default)]
        options: CancelOverrides,
    },
    /// Cancels a task if its slot is not granted yet.
    CancelPending {
        /// The alias of the task.
        task: String,
    },
    /// Resumes an ended task.
    Resume {
        /// The session of the task.
        session: String,
        /// The prompt.
        #[serde(default)]
        prompt: String,
        /// The parent that is notified of the end.
        #[serde(rename = "parentSessionID")]
        parent_session: Option<String>,
        /// The message of the parent that requested the resume.
        #[serde(rename = "parentMessageID")]
        parent_message: Option<String>,
        /// The agent of the parent.
        parent_agent: Option<String>,
    },
    /// Tracks a session.
    Track {
        /// The id of the new task, or the alias of a known one.
        task: String,
        /// The session.
        session: String,
        /// The parent that is notified of the end.
        #[serde(rename = "parentSessionID")]
        parent_session: String,
        /// A short description.
        #[serde(default)]
        description: String,
        /// The agent of the task.
        agent: Option<String>,
        /// The agent of the parent.
        parent_agent: Option<String>,
        /// The concurrency key of the task.
        concurrency_key: Option<String>,
    },
    /// Queries tasks.
    Query {
        /// The kind of the query.
        what: QueryKind,
        /// The session of the query.
        session: Option<String>,
    },
    /// Takes an observation.
    Observe {
        /// The label of the observation.
        label: Option<String>,
    },
    /// Shuts the system down and aborts running tasks.
    Shutdown,
    /// A step of an unknown kind. Does nothing.
    #[serde(other)]
    Other,
}

/// The options of a cancel. An absent option has the default of the handle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelOverrides {
    /// The caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the session is aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_session: Option<bool>,
    /// Whether the notification of the parent is skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_notification: Option<bool>,
}

/// The kind of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum QueryKind {
    /// The tasks of a session.
    Children,
    /// The tasks of a session and of all sessions below it.
    Descendants,
    /// Running tasks.
    Running,
    /// Tasks that are not running.
    NotRunning,
    /// The newest task of a session.
    BySession,
}

impl QueryKind {
    /// Returns the name in files and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Children => "children",
            Self::Descendants => "descendants",
            Self::Running => "running",
            Self::NotRunning => "notRunning",
            Self::BySession => "bySession",
        }
    }
}

impl Story {
    /// Returns the steps in the order of their times, each with its index in the file.
    pub fn in_order(&self) -> Vec<(usize, &Step)> {
        let mut steps: Vec<(usize, &Step)> = self.steps.iter().enumerate().collect();
        steps.sort_by_key(|(_, step)| step.at);
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_at_one_time_keep_order() {
        let story: Story = serde_json::from_str(
            r#"{"endAt": 9, "steps": [
                {"at": 5, "do": "observe", "label": "x"}, {"at": 1, "do": "shutdown"}, {"at": 5, "do": "sing"}]}"#,
        )
        .unwrap();
        let order: Vec<usize> = story.in_order().iter().map(|(index, _)| *index).collect();
        assert_eq!(order, [1, 0, 2]);
        assert!(matches!(story.steps[2].action, Action::Other));
    }

    #[test]
    fn default_limits_are_those_of_reference() {
        let config = StoryConfig::default().profile();
        assert_eq!(config.limits.default, 5);
        assert_eq!(
            config.lifecycle.stale_timeout,
            std::time::Duration::from_secs(180)
        );
    }
}
