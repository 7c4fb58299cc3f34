//! The format of a scenario: a story with the model of opencode in place of a scripted server. Fields have
//! the same names as in stories where they mean the same. `opencode` holds the odds of random decisions or,
//! in a minimised scenario, the decisions that differ from their defaults. Written by `generate` and
//! `shrink`, run by `driver`.

use std::collections::BTreeMap;
use std::time::Duration;

use greenroom::Config;
use greenroom::config::OnParentAbort;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::story::CancelOverrides;

/// A scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// The name of the scenario.
    #[serde(default)]
    pub name: String,
    /// The violation that the scenario shows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// The profile of the policies.
    pub profile: Profile,
    /// Limits and timeouts.
    #[serde(default)]
    pub config: Settings,
    /// The model of opencode.
    pub opencode: Opencode,
    /// The steps, with their times.
    pub steps: Vec<Step>,
    /// The time at which all faults of the server end, in virtual milliseconds.
    pub healed_at: u64,
}

/// A profile of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The default profile.
    Default,
    /// The profile of the reference implementation.
    Reference,
    /// The default profile with crashes of the process at random instants, a disk, and restarts.
    Crashes,
    /// The default profile with the ordinary life of opencode: ended instances, reverts, lost agents and models.
    Ordinary,
    /// The ordinary life of opencode together with crashes of the process.
    #[serde(rename = "ordinary-crashes")]
    OrdinaryCrashes,
}

impl Profile {
    /// Returns true if the process may crash.
    pub fn crashes(self) -> bool {
        matches!(self, Self::Crashes | Self::OrdinaryCrashes)
    }

    /// Returns true for the profiles with the ordinary life of opencode.
    pub fn is_ordinary(self) -> bool {
        matches!(self, Self::Ordinary | Self::OrdinaryCrashes)
    }
}

/// The settings of a scenario; the profile sets all others. Times are milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are the configuration's")]
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
    /// The seed of random decisions.
    #[serde(default)]
    pub seed: u64,
    /// The odds of random decisions.
    #[serde(default)]
    pub odds: Odds,
    /// The decisions that differ from their defaults. If present, no decision is random.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::old_names::deserialize_decisions"
    )]
    pub decisions: Option<BTreeMap<String, i64>>,
}

/// The odds of random decisions, in a thousand unless another unit is named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Odds {
    /// An event is lost.
    pub event_lost: u32,
    /// An event is delivered twice.
    pub event_doubled: u32,
    /// An event is late.
    pub event_late: u32,
    /// The maximum delay of a late event, in milliseconds.
    pub event_late_ms: i64,
    /// True if later events may overtake a late one.
    pub event_reordered: bool,
    /// A call does not reach the server.
    pub call_unreachable: u32,
    /// A call is answered with an error.
    pub call_refused: u32,
    /// The connection of a call is cut before its effect.
    pub call_cut_before: u32,
    /// The connection of a call is cut after its effect.
    pub call_cut_after: u32,
    /// A call is never answered and has no effect.
    pub call_hangs: u32,
    /// A call is never answered and has its effect.
    pub call_hangs_after: u32,
    /// A call is answered late.
    pub call_slow: u32,
    /// The maximum delay of a slow call, in milliseconds.
    pub call_slow_ms: i64,
    /// An actor panics at a failpoint, in a hundred thousand.
    #[serde(alias = "sabotage")]
    pub failpoint: u32,
    /// The process crashes at an append, at a commit, or before or after a call, in ten thousand.
    pub crash: u32,
    /// Only failpoints whose name starts with this prefix fire.
    #[serde(alias = "sabotageOf")]
    pub failpoint_prefix: String,
    /// An action races with the answer of a call.
    #[serde(alias = "ambush")]
    pub race_injection: u32,
    /// An abort is answered and lost.
    pub abort_lost: u32,
    /// A notification is accepted and never stored.
    #[serde(skip_serializing_if = "is_zero")]
    pub notice_not_stored: u32,
    /// A notification is accepted and stored some seconds later.
    #[serde(skip_serializing_if = "is_zero")]
    pub notice_stored_late: u32,
    /// A notification is accepted and stored 9 to 12 s later, about when the wait for it ends.
    #[serde(skip_serializing_if = "is_zero")]
    pub notice_stored_after_wait: u32,
    /// The instance is disposed shortly after a notification that wakes was stored.
    #[serde(skip_serializing_if = "is_zero")]
    pub notice_cut_off: u32,
    /// True if unknown agents and early aborts have the effects of the real server: a prompt for an unknown agent is
    /// not stored, and an abort before the first step is reported by the message alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exact_effects: bool,
    /// The weights of the kinds of turns, in the order of [`super::model::TurnKind`].
    pub turns: Vec<u32>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(odds: &u32) -> bool {
    *odds == 0
}

impl Odds {
    /// Returns true if no event is lost, late or doubled.
    pub fn events_are_true(&self) -> bool {
        self.event_lost == 0 && self.event_doubled == 0 && self.event_late == 0
    }

    /// Returns true if no call fails.
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

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The time of the step, in virtual milliseconds.
    pub at: u64,
    /// The action.
    #[serde(flatten)]
    pub action: Action,
}

/// The action of a step. A session is named by its id; `$t1` is the session of task `t1`. A step with an
/// unknown session does nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[expect(
    missing_docs,
    reason = "each variant is named after its action; its fields are named like the handle's"
)]
pub enum Action {
    /// Launches a task; its alias is also its description.
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
    /// Cancels all tasks below a session, or all tasks.
    CancelAll {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
    },
    /// Resumes an ended task.
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
    /// Sends a further prompt to a running task.
    Send { task: String, prompt: String },
    /// Tracks a session, or gives a known task another parent.
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
    /// Prompts a session from outside Greenroom.
    UserMessage { session: String },
    /// Aborts a session as its user.
    UserAbort { session: String },
    /// Answers the question of a session.
    UserAnswer { session: String },
    /// Deletes a session.
    Delete { session: String },
    /// Makes the server unreachable for some milliseconds.
    Outage { ms: u64 },
    /// Kills the server and restarts it after some milliseconds.
    Restart { ms: u64 },
    /// Breaks the event stream for some milliseconds; calls still succeed.
    BreakLink { ms: u64 },
    /// Disposes the instance of the directory. The server aborts its running sessions.
    Dispose,
    /// Ends the process of opencode in an orderly way, and starts another after some milliseconds. The process aborts
    /// its running sessions.
    EndProcess { ms: u64 },
    /// Ends another process of opencode in the folder, which runs no session of the scenario.
    EndSecondProcess,
    /// Removes an agent from the configuration.
    LoseAgent {
        agent: String,
        /// True if the agent is still unknown after the healing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        permanent: bool,
    },
    /// Removes a model, `provider/model`, from the configuration.
    LoseModel {
        model: String,
        /// True if the model is still unknown after the healing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        permanent: bool,
    },
    /// Reverts a session to its newest user message.
    Revert { session: String },
    /// Restores what a revert has hidden.
    Unrevert { session: String },
    /// Copies a session, as its user does.
    Fork { session: String },
    /// Shuts the system down.
    Shutdown,
}

impl Scenario {
    /// Returns true if failpoints may fire.
    pub fn injects_panics(&self) -> bool {
        let decisions = self.opencode.decisions.iter().flatten();
        let mut recorded = decisions.filter(|(name, _)| name.starts_with("failpoint "));
        self.opencode.odds.failpoint > 0 || recorded.next().is_some()
    }

    /// Returns true if the process may crash.
    pub fn crashes(&self) -> bool {
        self.profile.crashes()
    }

    /// Returns true if the scenario contains the ordinary life of opencode, whose promises are then checked.
    pub fn is_ordinary(&self) -> bool {
        self.profile.is_ordinary()
    }

    /// Returns the configuration of the scenario.
    pub fn config(&self) -> Config {
        let mut config = match self.profile {
            Profile::Reference => Config::reference(),
            _ => Config::default(),
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
