//! The configuration: every setting, its default and its bounds. The names match the keys of the server's configuration
//! file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::restrictions::AgentRules;

/// The configuration of a system. [`Config::default`] is the default profile.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// Limits of tasks that run at the same time.
    pub limits: Limits,
    /// How a run is watched, and when it is abandoned.
    pub lifecycle: Lifecycle,
    /// How parents are notified.
    pub notifications: Notifications,
    /// Limits that stop a runaway task.
    pub safety: Safety,
    /// Timeouts of calls to the agent server.
    pub calls: CallLimits,
    /// Restrictions by agent name (case-insensitive). An entry replaces the built-in rule of that agent.
    pub agents: BTreeMap<String, AgentRules>,
    /// The directory of sessions whose launch and parent name none.
    pub directory: Arc<str>,
    /// The seed of ids and jitter. Without a seed they come from the operating system's random source.
    pub seed: Option<u64>,
}

/// Limits of slots. Zero is unlimited everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The limit of a key without a more specific rule.
    pub default: u32,
    /// The limit of all keys together.
    pub max: u32,
    /// Limits by provider, shared by all models of the provider without an entry in `models`.
    pub providers: BTreeMap<String, u32>,
    /// Limits by `provider/model`.
    pub models: BTreeMap<String, u32>,
    /// The maximum number of waiting tasks. Further launches are refused.
    pub max_waiting: usize,
    /// The maximum size of the prompts and skill contents of all waiting tasks, in bytes. Further launches are refused.
    pub max_waiting_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            default: 5,
            max: 0,
            providers: BTreeMap::new(),
            models: BTreeMap::new(),
            max_waiting: 1_000_000,
            max_waiting_bytes: 256 << 20,
        }
    }
}

/// Settings of the watch over a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Lifecycle {
    /// The idle guard: an idle status within this time after the start is only acted on when the time has passed.
    pub min_idle: Duration,
    /// The interval of status polls while any run is active.
    pub poll_interval: Duration,
    /// Silence after which an idle run is stale.
    pub stale_timeout: Duration,
    /// The minimum age of a stale run.
    pub stale_min_runtime: Duration,
    /// Silence after which a busy run is abandoned.
    pub task_ttl: Duration,
    /// Time idle without an answer after which the prompt counts as not taken up. None disables this rule.
    pub not_taken_up: Option<Duration>,
    /// The maximum time that the server may back off.
    pub retry_timeout: Duration,
    /// The maximum time that a child may wait for an answer to a request.
    pub ask_timeout: Duration,
    /// The maximum time that a task may wait for its slot. None is forever.
    pub queue_ttl: Option<Duration>,
    /// The maximum time that a start retries an unreachable server.
    pub server_down: Duration,
    /// The maximum number of prompts to continue a run that the server lost.
    pub restart_attempts: u32,
    /// The time that an ended task stays in memory after its batch has closed.
    pub keep_ended: Duration,
    /// The time that the journal keeps a task.
    pub retention: Duration,
    /// The policy for a completion check that failed.
    pub failed_check: FailedCheck,
    /// Whether the status is read after an abort, and the abort is repeated while the session is busy.
    pub look_after_abort: bool,
    /// How long after the last abort in a directory the end of its instance or process still means that the sessions were
    /// cut off, not stopped by a person. None: every abort counts as a person's at once.
    pub abort_grace: Option<Duration>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            min_idle: Duration::from_secs(5),
            poll_interval: Duration::from_secs(3),
            stale_timeout: 3 * MINUTE,
            stale_min_runtime: Duration::from_secs(30),
            task_ttl: 30 * MINUTE,
            not_taken_up: Some(Duration::from_secs(30)),
            retry_timeout: 10 * MINUTE,
            ask_timeout: 10 * MINUTE,
            queue_ttl: None,
            server_down: 10 * MINUTE,
            restart_attempts: 1,
            keep_ended: 10 * MINUTE,
            retention: 14 * 24 * 60 * MINUTE,
            failed_check: FailedCheck::Retry { failures: 3 },
            look_after_abort: true,
            abort_grace: Some(Duration::from_secs(2)),
        }
    }
}

/// The policy for a completion check that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedCheck {
    /// The check is repeated at the next poll. After this many failures in a row the task completes with a note.
    Retry {
        /// The number of failures.
        failures: u32,
    },
    /// A failed check counts as passed.
    CountsAsPassed,
}

/// Settings of messages to parents.
#[derive(Debug, Clone, PartialEq)]
pub struct Notifications {
    /// False sends no messages.
    pub enabled: bool,
    /// Tasks that settle within this time share one message.
    pub debounce: Duration,
    /// Whether a failure wakes the parent before its batch is done.
    pub wake_on_failure: bool,
    /// Whether messages wait while the parent is busy.
    pub wait_for_busy_parent: bool,
    /// The maximum time that a waking message waits for a busy parent.
    pub wake_ceiling: Duration,
    /// Whether toasts are sent.
    pub toasts: bool,
    /// Whether messages are silent after the user aborted the parent, until the next user message.
    pub silence_after_parent_abort: bool,
    /// The policy for the tasks of a parent that its user aborted.
    pub on_parent_abort: OnParentAbort,
    /// Time after which an undeliverable message is dropped.
    pub give_up: Duration,
    /// How long an accepted message may take to appear in the parent's history, before the history is read and the message
    /// is sent again. None: an accepted message counts as delivered.
    pub confirm_stored: Option<Duration>,
    /// Whether messages and prompts are held while the session is reverted, and how often it is read meanwhile. None: the
    /// revert of a session is not read.
    pub revert_check: Option<Duration>,
}

impl Default for Notifications {
    fn default() -> Self {
        Self {
            enabled: true,
            debounce: Duration::from_millis(100),
            wake_on_failure: true,
            wait_for_busy_parent: true,
            wake_ceiling: Duration::from_secs(60),
            toasts: true,
            silence_after_parent_abort: true,
            on_parent_abort: OnParentAbort::Keep,
            give_up: Duration::from_secs(24 * 3600),
            confirm_stored: Some(Duration::from_secs(10)),
            revert_check: Some(Duration::from_secs(60)),
        }
    }
}

/// The policy for the tasks of a parent that its user aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnParentAbort {
    /// The tasks continue.
    Keep,
    /// All descendants are cancelled.
    Cancel,
}

/// Limits that stop a runaway task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Safety {
    /// The maximum depth of tasks that launch tasks.
    pub max_depth: u32,
    /// The maximum number of tool calls of one run.
    pub max_tool_calls: u32,
    /// The number of consecutive calls of the same tool with the same input that stops a run.
    pub repeated_tool_calls: u32,
}

impl Default for Safety {
    fn default() -> Self {
        Self {
            max_depth: 3,
            max_tool_calls: 4000,
            repeated_tool_calls: 20,
        }
    }
}

/// Timeouts of calls to the agent server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallLimits {
    /// The timeout of creating a session.
    pub create: Duration,
    /// The timeout of sending a task's prompt.
    pub prompt: Duration,
    /// The timeout of sending a message to a parent.
    pub notify: Duration,
    /// The timeout of every other call.
    pub other: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            create: Duration::from_secs(30),
            prompt: Duration::from_secs(120),
            notify: Duration::from_secs(30),
            other: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Returns the configuration in which every optional policy matches the reference implementation, for recorded
    /// scenarios.
    pub fn reference() -> Self {
        let mut config = Self {
            directory: "/base".into(),
            ..Self::default()
        };
        config.lifecycle.not_taken_up = None;
        config.lifecycle.queue_ttl = Some(Duration::from_secs(30 * 60));
        config.lifecycle.failed_check = FailedCheck::CountsAsPassed;
        config.lifecycle.look_after_abort = false;
        config.lifecycle.abort_grace = None;
        config.notifications.confirm_stored = None;
        config.notifications.revert_check = None;
        config.notifications.debounce = Duration::ZERO;
        config.notifications.wake_on_failure = false;
        config.notifications.wait_for_busy_parent = false;
        config
    }
}
