//! What every work needs: an actix system on this thread, the actors on it, and tasks to launch.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use greenroom::domain::ids::{ModelRef, SessionId};
use greenroom::domain::task::{Launch, Task};
use greenroom::ports::agent_server::AgentServer;
use greenroom::ports::journal::{Journal, MemoryJournal};
use greenroom::{Config, Greenroom};

/// Calls of one host at a time: enough that the actors never wait for it.
const AT_ONCE: usize = 64;
/// Longer than any work takes.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// What the prompt of every task says.
pub const PROMPT: &str = "Look into it and say what you found.";
/// What every task is about.
pub const DESCRIPTION: &str = "look into it";

/// Runs it on an actix system of this thread.
pub fn on_this_thread<T>(work: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(work)
}

/// A configuration in which nothing waits: no limits, no polls, idle believed at once.
pub fn unlimited() -> Config {
    let mut config = Config::default();
    config.limits.default = 0;
    config.limits.max_waiting = usize::MAX;
    config.lifecycle.poll_interval = NEVER;
    config.lifecycle.min_idle = Duration::ZERO;
    config.lifecycle.keep_ended = NEVER;
    config.notifications.debounce = Duration::ZERO;
    config.notifications.toasts = false;
    config.directory = "/project".into();
    config.seed = Some(1);
    config
}

/// The actors, on that server, with a journal in memory.
pub fn start(config: Config, server: &Arc<impl AgentServer>) -> Greenroom {
    start_with(config, server, Arc::new(MemoryJournal::default()))
}

/// The actors, on that server and that journal.
pub fn start_with(
    config: Config,
    server: &Arc<impl AgentServer>,
    journal: Arc<dyn Journal>,
) -> Greenroom {
    let server: Arc<dyn AgentServer> = server.clone();
    Greenroom::start(config, server, journal)
}

/// The launch of that number, by one of so many parents, under one of so many keys.
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

/// The session of a parent.
pub fn parent(number: usize) -> SessionId {
    SessionId::from(format!("ses_parent{number}"))
}

/// Launches those numbers, as one host with many calls at a time does.
pub async fn launch_all(
    greenroom: &Greenroom,
    numbers: std::ops::Range<usize>,
    parents: usize,
    keys: usize,
) -> Vec<Task> {
    futures::stream::iter(numbers)
        .map(|number| greenroom.launch(launch(number, parents, keys)))
        .buffered(AT_ONCE)
        .map(|launched| launched.expect("nothing refuses these"))
        .collect()
        .await
}
