//! Every knob, its default and its bounds. The names of the keys are those of the configuration file of the server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::restrictions::AgentRules;

/// How the system behaves. [`Config::default`] is what the behaviour page calls the default profile.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// How many tasks may run at once.
    pub limits: Limits,
    /// How a run is watched and when it is given up.
    pub lifecycle: Lifecycle,
    /// How parents are told.
    pub notifications: Notifications,
    /// What stops a task that does too much.
    pub safety: Safety,
    /// How long each kind of call may take.
    pub calls: CallLimits,
    /// What agents may not do, by name (without case); replaces the built-in rule of that agent.
    pub agents: BTreeMap<String, AgentRules>,
    /// Where sessions work if neither the launch nor the parent says.
    pub directory: Arc<str>,
    /// Makes ids and jitter repeatable; without it they come from the machine's randomness.
    pub seed: Option<u64>,
}

/// Slots. Zero is unlimited everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Of a key that has no closer rule.
    pub default: u32,
    /// Of all keys together.
    pub max: u32,
    /// Of a provider, shared by all of its models without an entry of their own.
    pub providers: BTreeMap<String, u32>,
    /// Of one `provider/model`.
    pub models: BTreeMap<String, u32>,
    /// How many tasks may wait; one more is refused.
    pub max_waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            default: 5,
            max: 0,
            providers: BTreeMap::new(),
            models: BTreeMap::new(),
            max_waiting: 1_000_000,
        }
    }
}

/// Watching.
#[derive(Debug, Clone, PartialEq)]
pub struct Lifecycle {
    /// Idle in the first moments of a run is believed only at their end.
    pub min_idle: Duration,
    /// How often the server is asked while anything runs.
    pub poll_interval: Duration,
    /// Silence after which a run is given up.
    pub stale_timeout: Duration,
    /// No run is stale before it is this old.
    pub stale_min_runtime: Duration,
    /// Silence after which a run that calls itself busy is given up.
    pub task_ttl: Duration,
    /// Idle without any answer of this run: the prompt was not taken up. None never judges so.
    pub not_taken_up: Option<Duration>,
    /// How long the server may back off.
    pub retry_timeout: Duration,
    /// How long a child may wait for an answer.
    pub ask_timeout: Duration,
    /// How long a task may wait for its slot. None is for ever.
    pub queue_ttl: Option<Duration>,
    /// How long a start tries to reach the server.
    pub server_down: Duration,
    /// How often a run is told to go on after the server lost it.
    pub restart_attempts: u32,
    /// How long an ended task stays in memory after its batch has closed.
    pub keep_ended: Duration,
    /// How long the journal keeps a task.
    pub retention: Duration,
    /// What a completion check that cannot be answered means.
    pub failed_check: FailedCheck,
    /// Whether the status is read after an abort, and the abort repeated while the session is still busy.
    pub look_after_abort: bool,
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
        }
    }
}

/// What a completion check that cannot be answered means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedCheck {
    /// Asked again at the next poll; after so many failures in a row the task completes with a note.
    Retry {
        /// How many.
        failures: u32,
    },
    /// What could not be read counts as passed.
    CountsAsPassed,
}

/// Telling parents.
#[derive(Debug, Clone, PartialEq)]
pub struct Notifications {
    /// False tells nobody anything.
    pub enabled: bool,
    /// What settles within this time goes into one message.
    pub debounce: Duration,
    /// Whether a failure wakes the parent before its batch is done.
    pub wake_on_failure: bool,
    /// Whether messages wait while the parent is busy.
    pub wait_for_busy_parent: bool,
    /// How long a message that wakes waits for a busy parent.
    pub wake_ceiling: Duration,
    /// Whether toasts are shown.
    pub toasts: bool,
    /// Whether messages are silent after the user aborted the parent, until the user speaks again.
    pub silence_after_parent_abort: bool,
    /// What happens to the tasks of a parent that its user aborted.
    pub on_parent_abort: OnParentAbort,
    /// After this time a message that cannot be delivered is dropped.
    pub give_up: Duration,
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
        }
    }
}

/// What happens to the tasks of a parent that its user aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnParentAbort {
    /// They go on.
    Keep,
    /// All descendants are cancelled.
    Cancel,
}

/// Stops for tasks that do too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Safety {
    /// How deep tasks may launch tasks.
    pub max_depth: u32,
    /// Tool calls of one run.
    pub max_tool_calls: u32,
    /// The same tool with the same input, running.
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

/// How long each kind of call to the agent server may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallLimits {
    /// Making a session.
    pub create: Duration,
    /// The prompt of a task.
    pub prompt: Duration,
    /// The prompt of a parent.
    pub notify: Duration,
    /// Everything else.
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
    /// Every policy that is a choice, set the way the reference implementation has it: for recorded stories.
    pub fn reference() -> Self {
        let mut config = Self {
            directory: "/base".into(),
            ..Self::default()
        };
        config.lifecycle.not_taken_up = None;
        config.lifecycle.queue_ttl = Some(Duration::from_secs(30 * 60));
        config.lifecycle.failed_check = FailedCheck::CountsAsPassed;
        config.lifecycle.look_after_abort = false;
        config.notifications.debounce = Duration::ZERO;
        config.notifications.wake_on_failure = false;
        config.notifications.wait_for_busy_parent = false;
        config
    }
}
