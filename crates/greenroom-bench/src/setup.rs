//! The common setup of the benchmarks: an actix system on this thread, the actors on it, and tasks to launch.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use greenroom::domain::ids::{ModelRef, SessionId};
use greenroom::domain::task::{Launch, Task};
use greenroom::ports::agent_server::AgentServer;
use greenroom::ports::journal::{Journal, MemoryJournal};
use greenroom::{Config, Greenroom};

/// Concurrent calls of one host: enough that the actors never wait for a call.
const AT_ONCE: usize = 64;
/// A time longer than any benchmark takes.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// The prompt of every task.
pub const PROMPT: &str = "Look into it and report the result.";
/// The description of every task.
pub const DESCRIPTION: &str = "look into it";

/// Runs a future on a new actix system on this thread.
pub fn run_on_this_thread<T>(work: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(work)
}

/// Returns a configuration without limits and polls, in which an idle session counts as idle at once.
pub fn unlimited() -> Config {
    let mut config = Config::default();
    config.limits.default = 0;
    config.limits.max_waiting = usize::MAX;
    config.lifecycle.poll_interval = NEVER;
    config.lifecycle.min_idle = Duration::ZERO;
    config.lifecycle.keep_ended = NEVER;
    config.notifications.debounce = Duration::ZERO;
    config.notifications.toasts = false;
    // The instant server keeps no history.
    config.notifications.confirm_stored = None;
    config.notifications.revert_check = None;
    config.directory = "/project".into();
    config.seed = Some(1);
    config
}

/// Starts the actors on that server with a journal in memory.
pub fn start(config: Config, server: &Arc<impl AgentServer>) -> Greenroom {
    start_with(config, server, Arc::new(MemoryJournal::default()))
}

/// Starts the actors on that server and that journal.
pub fn start_with(
    config: Config,
    server: &Arc<impl AgentServer>,
    journal: Arc<dyn Journal>,
) -> Greenroom {
    let server: Arc<dyn AgentServer> = server.clone();
    Greenroom::builder(config)
        .server(server)
        .journal(journal)
        .start()
}

/// Returns the launch of that number; the parents and the keys take turns.
pub fn launch(number: usize, parents: usize, keys: usize) -> Launch {
    Launch {
        description: DESCRIPTION.to_owned(),
        prompt: PROMPT.to_owned(),
        agent: "explore".to_owned(),
        parent_session: Some(parent(number % parents)),
        model: Some(ModelRef {
            provider_id: format!("provider{}", number % keys),
            model_id: "model".to_owned(),
            variant: None,
        }),
        ..Launch::default()
    }
}

/// Returns the session id of a parent.
pub fn parent(number: usize) -> SessionId {
    SessionId::from(format!("ses_parent{number}"))
}

/// Launches the tasks of those numbers, as one host with many concurrent calls.
pub async fn launch_all(
    greenroom: &Greenroom,
    numbers: std::ops::Range<usize>,
    parents: usize,
    keys: usize,
) -> Vec<Task> {
    futures::stream::iter(numbers)
        .map(|number| greenroom.launch(launch(number, parents, keys)))
        .buffered(AT_ONCE)
        .map(|launched| launched.expect("these launches are valid"))
        .collect()
        .await
}
