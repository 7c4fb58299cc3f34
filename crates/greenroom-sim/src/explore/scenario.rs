//! The format of a scenario: a story whose agent server is the model of opencode instead of a script. Fields have the
//! names of the stories' wherever they mean the same; `opencode` says what the model leaves to chance, or, once a scenario
//! is minimised, which decisions were not the usual ones. Written by `generate` and `shrink`, told by `driver`.

use std::collections::BTreeMap;
use std::time::Duration;

use greenroom::Config;
use greenroom::config::OnParentAbort;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::story::CancelOverrides;

/// One scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// What it shows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// Whose policies hold.
    pub profile: Profile,
    /// Limits and time-outs.
    #[serde(default)]
    pub config: Settings,
    /// The model of opencode.
    pub opencode: Opencode,
    /// What is done, and when.
    pub steps: Vec<Step>,
    /// When everything that is wrong with the server is mended, in virtual milliseconds.
    pub healed_at: u64,
}

/// Whose policies hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The product's own.
    Default,
    /// Those of the reference implementation.
    Reference,
    /// The product's own, and the process ends at random instants: there is a disk, and another process goes on.
    Crashes,
}

/// What a scenario sets; all else is the profile's. Times are milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of the configuration")]
pub struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_concurrency: Option<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub provider_concurrency: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub model_concurrency: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_down_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_ended_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debounce_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake_on_failure: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_for_busy_parent: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_on_parent_abort: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_depth: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeated_tool_calls: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_attempts: Option<u32>,
}

/// The model of opencode.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Opencode {
    /// What chance goes by.
    #[serde(default)]
    pub seed: u64,
    /// How often what happens.
    #[serde(default)]
    pub odds: Odds,
    /// The decisions that are not the usual ones; with them nothing else is left to chance.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::old_names::deserialize_decisions"
    )]
    pub decisions: Option<BTreeMap<String, i64>>,
}

/// How often what happens: in a thousand, unless another unit is named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Odds {
    /// An event does not come.
    pub event_lost: u32,
    /// An event comes twice.
    pub event_doubled: u32,
    /// An event comes late.
    pub event_late: u32,
    /// How late at most, in milliseconds.
    pub event_late_ms: i64,
    /// True if late events are overtaken by others.
    pub event_reordered: bool,
    /// A call does not get there.
    pub call_unreachable: u32,
    /// A call is answered with an error.
    pub call_refused: u32,
    /// A call is cut, without effect.
    pub call_cut_before: u32,
    /// A call is cut, with its effect.
    pub call_cut_after: u32,
    /// A call is never answered and has no effect.
    pub call_hangs: u32,
    /// A call is never answered and has its effect.
    pub call_hangs_after: u32,
    /// A call is answered late.
    pub call_slow: u32,
    /// How late at most, in milliseconds.
    pub call_slow_ms: i64,
    /// One of our own actors panics at a place it passes, in a hundred thousand.
    #[serde(alias = "sabotage")]
    pub failpoint: u32,
    /// The process ends at an append, a commit, or before or after a call; in ten thousand.
    pub crash: u32,
    /// Only at places whose name begins so.
    #[serde(alias = "sabotageOf")]
    pub failpoint_prefix: String,
    /// Somebody does something at the very instant at which a call is answered.
    #[serde(alias = "ambush")]
    pub race_injection: u32,
    /// An abort is answered and lost.
    pub abort_lost: u32,
    /// How often which kind of turn, by weight, in the order of [`super::model::TurnKind`].
    pub turns: Vec<u32>,
}

impl Odds {
    /// True if no event is lost, late or doubled.
    pub fn events_are_true(&self) -> bool {
        self.event_lost == 0 && self.event_doubled == 0 && self.event_late == 0
    }

    /// True if no call goes wrong.
    pub fn calls_are_true(&self) -> bool {
        [
            self.call_unreachable,
            self.call_refused,
            self.call_cut_before,
            self.call_cut_after,
            self.call_hangs,
            self.call_hangs_after,
            self.call_slow,
            self.abort_lost,
        ]
        .iter()
        .all(|&odds| odds == 0)
    }
}

/// One thing done at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When, in virtual milliseconds.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// What a step does. A session is named by its id; `$t1` is the session of task `t1`, and a step that names one which is
/// not there does nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[expect(
    missing_docs,
    reason = "each variant says what it does; its fields are named like the handle's"
)]
pub enum Action {
    /// Launches a task; its alias is its description too.
    Launch {
        r#as: String,
        input: Map<String, Value>,
    },
    /// Cancels a task.
    Cancel {
        task: String,
        #[serde(default)]
        options: CancelOverrides,
    },
    /// Cancels a task if its slot is not granted yet.
    CancelPending { task: String },
    /// Cancels everything below a session, or everything.
    CancelAll {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
    },
    /// Goes on with an ended task.
    Resume {
        session: String,
        prompt: String,
        #[serde(
            rename = "parentSessionID",
            default,
            skip_serializing_if = "Option::is_none"
        )]
        parent_session: Option<String>,
    },
    /// Gives a running task a further prompt.
    Send { task: String, prompt: String },
    /// Adopts a session, or gives a known task another parent.
    Track {
        task: String,
        session: String,
        #[serde(rename = "parentSessionID")]
        parent_session: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        concurrency_key: Option<String>,
    },
    /// Changes limits.
    SetLimits { limits: Map<String, Value> },
    /// Somebody else prompts a session: its user, or whoever started it elsewhere.
    UserMessage { session: String },
    /// The user aborts a session.
    UserAbort { session: String },
    /// Somebody answers what a session asks.
    UserAnswer { session: String },
    /// Somebody deletes a session.
    Delete { session: String },
    /// The server cannot be reached for so long.
    Outage { ms: u64 },
    /// The server is killed and comes back after so long.
    Restart { ms: u64 },
    /// The event stream breaks for so long, calls go through.
    BreakLink { ms: u64 },
    /// The system is shut down.
    Shutdown,
}

impl Scenario {
    /// True if actors of ours are made to panic.
    pub fn injects_panics(&self) -> bool {
        let decisions = self.opencode.decisions.iter().flatten();
        let mut recorded = decisions.filter(|(name, _)| name.starts_with("failpoint "));
        self.opencode.odds.failpoint > 0 || recorded.next().is_some()
    }

    /// True if the process may end and another begin.
    pub fn crashes(&self) -> bool {
        self.profile == Profile::Crashes
    }

    /// The configuration it asks for.
    pub fn config(&self) -> Config {
        let mut config = match self.profile {
            Profile::Default | Profile::Crashes => Config::default(),
            Profile::Reference => Config::reference(),
        };
        let set = &self.config;
        let millis = Duration::from_millis;
        config.seed = Some(self.opencode.seed);
        config.directory = super::model::BASE.into();
        config
            .limits
            .providers
            .clone_from(&set.provider_concurrency);
        config.limits.models.clone_from(&set.model_concurrency);
        replace(&mut config.limits.default, set.default_concurrency);
        replace(&mut config.limits.max, set.max_concurrency);
        let lifecycle = &mut config.lifecycle;
        replace(
            &mut lifecycle.stale_timeout,
            set.stale_timeout_ms.map(millis),
        );
        replace(&mut lifecycle.task_ttl, set.task_ttl_ms.map(millis));
        replace(
            &mut lifecycle.retry_timeout,
            set.retry_timeout_ms.map(millis),
        );
        replace(&mut lifecycle.ask_timeout, set.ask_timeout_ms.map(millis));
        replace(&mut lifecycle.server_down, set.server_down_ms.map(millis));
        replace(&mut lifecycle.keep_ended, set.keep_ended_ms.map(millis));
        replace(&mut lifecycle.restart_attempts, set.restart_attempts);
        if let Some(ttl) = set.queue_ttl_ms {
            lifecycle.queue_ttl = Some(millis(ttl));
        }
        let notifications = &mut config.notifications;
        replace(&mut notifications.debounce, set.debounce_ms.map(millis));
        replace(&mut notifications.wake_on_failure, set.wake_on_failure);
        replace(
            &mut notifications.wait_for_busy_parent,
            set.wait_for_busy_parent,
        );
        if set.cancel_on_parent_abort == Some(true) {
            notifications.on_parent_abort = OnParentAbort::Cancel;
        }
        replace(&mut config.safety.max_depth, set.max_depth);
        replace(
            &mut config.safety.repeated_tool_calls,
            set.repeated_tool_calls,
        );
        config
    }
}

fn replace<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}
