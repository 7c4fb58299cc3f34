//! The table of configuration keys: name, description, type and setting. The loader reads only these keys; help,
//! errors, schema and the effective configuration are generated from the table.

use std::time::Duration;

use super::readers;
use super::value_type::{
    Field, NEVER, Setter, ValueType, count, duration, duration_limit, duration_value, flag,
    nonzero_duration, optional_limit,
};

const MS: Duration = Duration::from_millis(1);
const CENTISECOND: Duration = Duration::from_millis(10);
const DECISECOND: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
const DECADE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// The largest number of any key.
pub const MAX_COUNT: u32 = 1_000_000;

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// The name; parts are joined by dots.
    pub name: &'static str,
    /// The description, in one line.
    pub description: &'static str,
    /// The type, and the setting that holds the value.
    pub field: Field,
}

impl Key {
    /// Returns true if the key has named entries.
    pub fn has_entries(&self) -> bool {
        matches!(self.field.set, Setter::PerEntry(_))
    }

    /// Returns true if the value must not be shown.
    pub fn is_secret(&self) -> bool {
        self.name == "token"
    }
}

const fn key(name: &'static str, field: Field, description: &'static str) -> Key {
    Key {
        name,
        description,
        field,
    }
}

/// All keys.
pub static KEYS: &[Key] = &[
    key(
        "listen",
        readers::LISTEN,
        "address and port of the service; another than loopback needs a token",
    ),
    key(
        "auth",
        readers::AUTH,
        "token: callers must bring the secret; none: every local caller is served, on loopback only",
    ),
    key("token", readers::TOKEN, "the secret callers must bring"),
    key(
        "token_file",
        readers::TOKEN_FILE,
        "a file that holds the secret; without either the first start makes one",
    ),
    key(
        "bridge.any_uid",
        flag!(any_uid),
        "whether plugins of other users are served, as from a container; they need the secret too",
    ),
    key(
        "journal",
        readers::JOURNAL,
        "where tasks are kept over a restart; empty keeps nothing",
    ),
    key(
        "opencode.url",
        readers::URL,
        "where the agent server listens; empty if it comes by its plugin's bridge",
    ),
    key(
        "opencode.username",
        readers::USERNAME,
        "the user the agent server knows",
    ),
    key(
        "opencode.password_env",
        readers::PASSWORD_ENV,
        "the variable that holds the agent server's password",
    ),
    key(
        "opencode.directory",
        readers::DIRECTORY,
        "where sessions work if neither the launch nor the parent names a folder",
    ),
    key(
        "opencode.events",
        readers::EVENTS,
        "where events come from: stream, bridge or both",
    ),
    key(
        "limits.default",
        count!(0, MAX_COUNT, core.limits.default),
        "tasks at once of a key without a closer rule; 0 is unlimited",
    ),
    key(
        "limits.max",
        count!(0, MAX_COUNT, core.limits.max),
        "tasks at once of all keys together; 0 is unlimited",
    ),
    key(
        "limits.providers",
        readers::PROVIDERS,
        "tasks at once of a provider, shared by its models",
    ),
    key(
        "limits.models",
        readers::MODELS,
        "tasks at once of one provider/model",
    ),
    key(
        "limits.max_waiting",
        readers::MAX_WAITING,
        "tasks that may wait; one more is refused",
    ),
    key(
        "limits.max_waiting_bytes",
        readers::MAX_WAITING_BYTES,
        "bytes of the prompts of waiting tasks; a launch beyond it is refused",
    ),
    key(
        "lifecycle.min_idle",
        duration!(HOUR, core.lifecycle.min_idle),
        "idle in the first moments of a run is believed only at their end",
    ),
    key(
        "lifecycle.poll_interval",
        nonzero_duration!(CENTISECOND, HOUR, core.lifecycle.poll_interval),
        "how often the server is polled while anything runs",
    ),
    key(
        "lifecycle.stale_timeout",
        duration_limit!(MS, MONTH, core.lifecycle.stale_timeout),
        "silence after which a run is given up; 0 never",
    ),
    key(
        "lifecycle.stale_min_runtime",
        duration!(DAY, core.lifecycle.stale_min_runtime),
        "no run is stale before it is this old",
    ),
    key(
        "lifecycle.task_ttl",
        duration_limit!(MS, MONTH, core.lifecycle.task_ttl),
        "silence after which a run that calls itself busy is given up; 0 never",
    ),
    key(
        "lifecycle.not_taken_up",
        optional_limit!(MONTH, core.lifecycle.not_taken_up),
        "idle without an answer for so long: the prompt was not taken up; 0 never",
    ),
    key(
        "lifecycle.abort_grace",
        optional_limit!(MONTH, core.lifecycle.abort_grace),
        "how long after an abort the end of its opencode still means that the run was cut off and continues; 0 counts every abort as a person's",
    ),
    key(
        "lifecycle.retry_timeout",
        duration_limit!(MS, MONTH, core.lifecycle.retry_timeout),
        "how long the server may back off for a provider; 0 forever",
    ),
    key(
        "lifecycle.ask_timeout",
        duration_limit!(MS, MONTH, core.lifecycle.ask_timeout),
        "how long a child may wait for an answer; 0 forever",
    ),
    key(
        "lifecycle.queue_ttl",
        optional_limit!(MONTH, core.lifecycle.queue_ttl),
        "how long a task may wait for its slot; 0 forever",
    ),
    key(
        "lifecycle.server_down",
        duration_limit!(MS, MONTH, core.lifecycle.server_down),
        "how long a start tries to reach the server; 0 forever",
    ),
    key(
        "lifecycle.restart_attempts",
        count!(0, 100, core.lifecycle.restart_attempts),
        "how often a run is continued after the server lost it",
    ),
    key(
        "lifecycle.keep_ended",
        duration!(MONTH, core.lifecycle.keep_ended),
        "how long an ended task stays in memory after its batch has closed",
    ),
    key(
        "lifecycle.retention",
        nonzero_duration!(SECOND, DECADE, core.lifecycle.retention),
        "how long the journal keeps a task",
    ),
    key(
        "lifecycle.failed_check",
        readers::FAILED_CHECK,
        "what a completion check without an answer means: retry or passed",
    ),
    key(
        "lifecycle.look_after_abort",
        flag!(core.lifecycle.look_after_abort),
        "whether an abort is repeated while the session is still busy",
    ),
    key(
        "notifications.enabled",
        flag!(core.notifications.enabled),
        "false sends no messages to parents",
    ),
    key(
        "notifications.debounce",
        duration!(HOUR, core.notifications.debounce),
        "what settles within this time goes into one message",
    ),
    key(
        "notifications.wake_on_failure",
        flag!(core.notifications.wake_on_failure),
        "whether a failure wakes the parent before its batch is done",
    ),
    key(
        "notifications.wait_for_busy_parent",
        flag!(core.notifications.wait_for_busy_parent),
        "whether messages wait while the parent is busy",
    ),
    key(
        "notifications.wake_ceiling",
        duration!(DAY, core.notifications.wake_ceiling),
        "how long a message that wakes waits for a busy parent",
    ),
    key(
        "notifications.toasts",
        flag!(core.notifications.toasts),
        "whether toasts are shown",
    ),
    key(
        "notifications.silence_after_parent_abort",
        flag!(core.notifications.silence_after_parent_abort),
        "whether messages are silent after the user aborted the parent",
    ),
    key(
        "notifications.on_parent_abort",
        readers::ON_PARENT_ABORT,
        "what happens to the tasks of an aborted parent: keep or cancel",
    ),
    key(
        "notifications.give_up",
        duration_limit!(SECOND, DECADE, core.notifications.give_up),
        "after this time a message that cannot be delivered is dropped; 0 never",
    ),
    key(
        "safety.max_depth",
        count!(1, 100, core.safety.max_depth),
        "how deep tasks may launch tasks",
    ),
    key(
        "safety.max_tool_calls",
        count!(1, MAX_COUNT, core.safety.max_tool_calls),
        "tool calls of one run",
    ),
    key(
        "safety.repeated_tool_calls",
        count!(2, MAX_COUNT, core.safety.repeated_tool_calls),
        "the same call with the same input, running",
    ),
    key(
        "calls.create",
        nonzero_duration!(DECISECOND, HOUR, core.calls.create),
        "how long making a session may take",
    ),
    key(
        "calls.prompt",
        nonzero_duration!(DECISECOND, HOUR, core.calls.prompt),
        "how long the prompt of a task may take",
    ),
    key(
        "calls.notify",
        nonzero_duration!(DECISECOND, HOUR, core.calls.notify),
        "how long the prompt of a parent may take",
    ),
    key(
        "calls.other",
        nonzero_duration!(DECISECOND, HOUR, core.calls.other),
        "how long every other call may take",
    ),
    key(
        "agents",
        readers::AGENTS,
        "tools that an agent may not use: `agents.NAME.deny`, and tools that it gets back: `.allow`",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_names_are_unique() {
        let mut names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        names.sort_unstable();
        for pair in names.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
        assert!(KEYS.iter().all(|key| !key.description.is_empty()));
    }
}
