//! Every key there is: its name, what it means, what it takes and where it goes. The loader reads nothing that is not
//! in this table, and help and errors are made from it.

use std::time::Duration;

use super::readers;
use super::settings::Settings;
use super::value::Raw;

/// What stands for "never" where the system knows no such thing: ten years.
pub const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MANY: u32 = 1_000_000;

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// Its name, dots between its parts.
    pub name: &'static str,
    /// What it means, in a line.
    pub about: &'static str,
    /// What it takes.
    pub kind: Kind,
}

/// What a key takes and where it goes.
#[derive(Debug)]
pub enum Kind {
    /// A value that is read and stored by one function.
    One(fn(&mut Settings, &Raw) -> Result<(), String>),
    /// Values by name, below the key: `limits.models."acme/big"`.
    Named(fn(&mut Settings, &str, &Raw) -> Result<(), String>),
}

macro_rules! count {
    ($min:expr, $max:expr, $($field:tt)+) => {
        Kind::One(|settings, raw| { settings.$($field)+ = raw.count($min, $max)?; Ok(()) })
    };
}
macro_rules! flag {
    ($($field:tt)+) => { Kind::One(|settings, raw| { settings.$($field)+ = raw.flag()?; Ok(()) }) };
}
/// A time in which zero means zero.
macro_rules! wait {
    ($max:expr, $($field:tt)+) => {
        Kind::One(|settings, raw| { settings.$($field)+ = raw.time_or_zero(MS, $max)?.unwrap_or_default(); Ok(()) })
    };
}
/// A time limit in which zero means never.
macro_rules! limit {
    ($min:expr, $max:expr, $($field:tt)+) => {
        Kind::One(|settings, raw| { settings.$($field)+ = raw.time_or_zero($min, $max)?.unwrap_or(NEVER); Ok(()) })
    };
}
/// A time limit that must be there.
macro_rules! always {
    ($min:expr, $max:expr, $($field:tt)+) => {
        Kind::One(|settings, raw| {
            settings.$($field)+ = raw.time($min, $max)?;
            Ok(())
        })
    };
}

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, about, kind }
}

/// Every key.
pub static KEYS: &[Key] = &[
    key(
        "listen",
        Kind::One(readers::listen),
        "address and port of the service; another than loopback needs a token",
    ),
    key(
        "token",
        Kind::One(readers::token),
        "the secret callers must bring",
    ),
    key(
        "token_file",
        Kind::One(readers::token_file),
        "a file that holds the secret",
    ),
    key(
        "journal",
        Kind::One(readers::journal),
        "where tasks are kept over a restart; empty keeps nothing",
    ),
    key(
        "opencode.url",
        Kind::One(readers::url),
        "where the agent server listens",
    ),
    key(
        "opencode.username",
        Kind::One(readers::username),
        "the user the agent server knows",
    ),
    key(
        "opencode.password_env",
        Kind::One(readers::password_env),
        "the variable that holds the agent server's password",
    ),
    key(
        "opencode.directory",
        Kind::One(readers::directory),
        "where sessions work if neither the launch nor the parent says",
    ),
    key(
        "opencode.events",
        Kind::One(readers::events),
        "where events come from: stream, bridge or both",
    ),
    key(
        "limits.default",
        count!(0, MANY, core.limits.default),
        "tasks at once of a key without a closer rule; 0 is unlimited",
    ),
    key(
        "limits.max",
        count!(0, MANY, core.limits.max),
        "tasks at once of all keys together; 0 is unlimited",
    ),
    key(
        "limits.providers",
        Kind::Named(readers::provider),
        "tasks at once of a provider, shared by its models",
    ),
    key(
        "limits.models",
        Kind::Named(readers::model),
        "tasks at once of one provider/model",
    ),
    key(
        "limits.max_waiting",
        Kind::One(readers::max_waiting),
        "tasks that may wait; one more is refused",
    ),
    key(
        "lifecycle.min_idle",
        wait!(HOUR, core.lifecycle.min_idle),
        "idle in the first moments of a run is believed only at their end",
    ),
    key(
        "lifecycle.poll_interval",
        always!(10 * MS, HOUR, core.lifecycle.poll_interval),
        "how often the server is asked while anything runs",
    ),
    key(
        "lifecycle.stale_timeout",
        limit!(MS, 30 * DAY, core.lifecycle.stale_timeout),
        "silence after which a run is given up; 0 never",
    ),
    key(
        "lifecycle.stale_min_runtime",
        wait!(DAY, core.lifecycle.stale_min_runtime),
        "no run is stale before it is this old",
    ),
    key(
        "lifecycle.task_ttl",
        limit!(MS, 30 * DAY, core.lifecycle.task_ttl),
        "silence after which a run that calls itself busy is given up; 0 never",
    ),
    key(
        "lifecycle.not_taken_up",
        Kind::One(readers::not_taken_up),
        "idle without an answer for so long: the prompt was not taken up; 0 never",
    ),
    key(
        "lifecycle.retry_timeout",
        limit!(MS, 30 * DAY, core.lifecycle.retry_timeout),
        "how long the server may back off for a provider; 0 for ever",
    ),
    key(
        "lifecycle.ask_timeout",
        limit!(MS, 30 * DAY, core.lifecycle.ask_timeout),
        "how long a child may wait for an answer; 0 for ever",
    ),
    key(
        "lifecycle.queue_ttl",
        Kind::One(readers::queue_ttl),
        "how long a task may wait for its slot; 0 for ever",
    ),
    key(
        "lifecycle.server_down",
        limit!(MS, 30 * DAY, core.lifecycle.server_down),
        "how long a start tries to reach the server; 0 for ever",
    ),
    key(
        "lifecycle.restart_attempts",
        count!(0, 100, core.lifecycle.restart_attempts),
        "how often a run is told to go on after the server lost it",
    ),
    key(
        "lifecycle.keep_ended",
        wait!(30 * DAY, core.lifecycle.keep_ended),
        "how long an ended task stays in memory after its batch has closed",
    ),
    key(
        "lifecycle.retention",
        always!(SECOND, 3650 * DAY, core.lifecycle.retention),
        "how long the journal keeps a task",
    ),
    key(
        "lifecycle.failed_check",
        Kind::One(readers::failed_check),
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
        "false tells no parent anything",
    ),
    key(
        "notifications.debounce",
        wait!(HOUR, core.notifications.debounce),
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
        wait!(DAY, core.notifications.wake_ceiling),
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
        Kind::One(readers::on_parent_abort),
        "what happens to the tasks of an aborted parent: keep or cancel",
    ),
    key(
        "notifications.give_up",
        limit!(SECOND, 3650 * DAY, core.notifications.give_up),
        "after this time a message that cannot be delivered is dropped; 0 never",
    ),
    key(
        "safety.max_depth",
        count!(1, 100, core.safety.max_depth),
        "how deep tasks may launch tasks",
    ),
    key(
        "safety.max_tool_calls",
        count!(1, MANY, core.safety.max_tool_calls),
        "tool calls of one run",
    ),
    key(
        "safety.repeated_tool_calls",
        count!(2, MANY, core.safety.repeated_tool_calls),
        "the same call with the same input, running",
    ),
    key(
        "calls.create",
        always!(100 * MS, HOUR, core.calls.create),
        "how long making a session may take",
    ),
    key(
        "calls.prompt",
        always!(100 * MS, HOUR, core.calls.prompt),
        "how long the prompt of a task may take",
    ),
    key(
        "calls.notify",
        always!(100 * MS, HOUR, core.calls.notify),
        "how long the prompt of a parent may take",
    ),
    key(
        "calls.other",
        always!(100 * MS, HOUR, core.calls.other),
        "how long every other call may take",
    ),
    key(
        "agents",
        Kind::Named(readers::agent),
        "what an agent may not do: `agents.NAME.deny`, and what it is given back: `.allow`",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_for_two_keys() {
        let mut names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        names.sort_unstable();
        for pair in names.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
        assert!(KEYS.iter().all(|key| !key.about.is_empty()));
    }
}
