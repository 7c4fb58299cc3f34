//! The common parts of all stories: processes that end with their story, the agent server, the service, a scripted model.

mod caller;
mod events;
mod follower;
mod frames;
mod opencode;
pub mod ordinary;
mod plain;
mod plugged;
mod process;
mod proxy;
mod service;
mod stage;
mod state;
mod terminal;

pub use caller::Caller;
pub use events::EventTap;
pub use follower::Follower;
pub use opencode::Opencode;
pub use plain::Workstation;
pub use plugged::{launching, outputs, tool_parts};
pub use process::{Process, free_port};
pub use proxy::Proxy;
pub use service::{Ran, Service, greenroom, greenroom_bin, ready, run};
pub use stage::{
    Parent, Scene, Stage, alone, id_of, is_finished_answer, needs, notice_of, opencode_bin,
    session_of, text_of, together, unused_model,
};
pub use state::messages_state;
pub use terminal::Terminal;

use std::time::{Duration, Instant};

/// The longest time that a story waits for a condition: long, since a busy machine is not a failure.
pub const TIMEOUT: Duration = Duration::from_secs(180);

/// Waits until `poll` returns a value; fails with the name of the condition after [`TIMEOUT`].
pub async fn until<T>(condition: &str, poll: impl AsyncFnMut() -> Option<T>) -> T {
    until_or_print(condition, poll, async || String::new()).await
}

/// Waits as [`until`] does; a failure prints the text that `state` returns too.
pub async fn until_or_print<T>(
    condition: &str,
    mut poll: impl AsyncFnMut() -> Option<T>,
    state: impl AsyncFnOnce() -> String,
) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = poll().await {
            return value;
        }
        if begin.elapsed() > TIMEOUT {
            let state = state().await;
            panic!(
                "not true after {} s: {condition}\n{state}",
                TIMEOUT.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
