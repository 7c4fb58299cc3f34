//! The format of a story, read tolerantly: fields it does not know are ignored, steps it does not know do nothing. The
//! runner reads the configuration and the steps, the scripted server its script, `check` what is demanded.

use std::collections::BTreeMap;

use greenroom::Config;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One story.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// Limits and time-outs.
    #[serde(default)]
    pub config: StoryConfig,
    /// The scripted agent server.
    #[serde(default)]
    pub server: Script,
    /// What is done, and when.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// When the last observation is taken, in virtual milliseconds.
    pub end_at: u64,
}

/// What a story sets; all else is the reference profile.
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
    /// The reference profile with what the story sets. Ids and jitter come from a fixed seed, so that a story is told
    /// the same way each time.
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

/// What the agent server is scripted to be.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Script {
    /// Declared sessions; the key `$a` is the session that will be made for task `a`.
    #[serde(default)]
    pub sessions: IndexMap<String, Declared>,
    /// What every made session has.
    #[serde(default)]
    pub child_defaults: Declared,
    /// How long every create takes that no delay names.
    #[serde(default)]
    pub create_delay_ms: u64,
    /// Calls that take their time.
    #[serde(default)]
    pub delays: Vec<Rule>,
    /// Calls that go wrong.
    #[serde(default)]
    pub faults: Vec<Rule>,
}

/// What is declared of a session; what is left out stays as it is.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Declared {
    /// Its messages, as opencode would list them.
    pub messages: Option<Vec<Value>>,
    /// Its todo list.
    pub todos: Option<Vec<Value>>,
    /// `busy`, `idle`, `retry` or `missing`: a word, or an object with that word as its `type`.
    pub status: Option<Value>,
    /// Where it works.
    pub directory: Option<String>,
}

/// A delay or a fault: which calls it is about, and what happens to them.
#[derive(Debug, Clone, Deserialize)]
pub struct Rule {
    /// The call's name.
    pub call: String,
    /// Only calls about this session.
    pub session: Option<String>,
    /// Only calls about this task.
    pub task: Option<String>,
    /// Only this one of the calls that match otherwise, from 1.
    pub nth: Option<u32>,
    /// Only from this time on.
    pub from: Option<u64>,
    /// Only before this time.
    pub until: Option<u64>,
    /// Of a delay: how long the answer takes.
    #[serde(default)]
    pub ms: u64,
    /// Of a fault: how it goes wrong.
    #[serde(default)]
    pub mode: FaultMode,
    /// Of a fault: the server's error, as it is.
    pub error: Option<Value>,
}

/// How a call goes wrong.
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
    /// No answer ever, no effect.
    Hang,
    /// No answer ever, but the effect.
    Lost,
}

/// One thing done at one time.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// When, in virtual milliseconds.
    pub at: u64,
    /// True if the next step follows at once, without settling.
    #[serde(default)]
    pub together: bool,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Action {
    /// Launches a task.
    Launch {
        /// The alias it goes by.
        r#as: String,
        /// What it is launched with.
        input: Map<String, Value>,
    },
    /// The server tells of something.
    Event {
        /// As opencode sends it.
        event: Value,
    },
    /// The script changes.
    Server {
        /// For this session.
        session: String,
        /// What is different from now on.
        #[serde(flatten)]
        change: Declared,
    },
    /// Cancels a task.
    Cancel {
        /// Its alias.
        task: String,
        /// How.
        #[serde(default)]
        options: CancelOverrides,
    },
    /// Cancels a task if its slot is not granted yet.
    CancelPending {
        /// Its alias.
        task: String,
    },
    /// Goes on with an ended task.
    Resume {
        /// Its session.
        session: String,
        /// What its agent is told.
        #[serde(default)]
        prompt: String,
        /// Who is told of the end.
        #[serde(rename = "parentSessionID")]
        parent_session: Option<String>,
        /// Where it was asked for.
        #[serde(rename = "parentMessageID")]
        parent_message: Option<String>,
        /// The parent's agent.
        parent_agent: Option<String>,
    },
    /// Adopts a session.
    Track {
        /// The id it goes by, or the alias of a task.
        task: String,
        /// The session.
        session: String,
        /// Who is told of the end.
        #[serde(rename = "parentSessionID")]
        parent_session: String,
        /// A few words for people.
        #[serde(default)]
        description: String,
        /// Who does it.
        agent: Option<String>,
        /// The parent's agent.
        parent_agent: Option<String>,
        /// The slot it counts against.
        concurrency_key: Option<String>,
    },
    /// Asks for tasks.
    Query {
        /// Which.
        what: QueryKind,
        /// Of this session.
        session: Option<String>,
    },
    /// Looks at everything.
    Observe {
        /// What the observation is called.
        label: Option<String>,
    },
    /// Ends the system, aborting what runs.
    Shutdown,
    /// A step of another kind: nothing is done.
    #[serde(other)]
    Other,
}

/// How a task is cancelled; absent is the default of the handle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelOverrides {
    /// Who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether its session is aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_session: Option<bool>,
    /// Whether its parent is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_notification: Option<bool>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum QueryKind {
    /// The tasks of a session.
    Children,
    /// And theirs.
    Descendants,
    /// What runs.
    Running,
    /// All else.
    NotRunning,
    /// The newest task of a session.
    BySession,
}

impl QueryKind {
    /// Its name in files and traces.
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
    /// The steps in the order they are taken, each with its index in the file.
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
    fn steps_of_one_instant_keep_their_order() {
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
    fn a_story_without_limits_has_those_of_the_reference() {
        let config = StoryConfig::default().profile();
        assert_eq!(config.limits.default, 5);
        assert_eq!(
            config.lifecycle.stale_timeout,
            std::time::Duration::from_secs(180)
        );
    }
}
