//! What every story stands on: processes that end with their story, the agent server, the service, a model to script.

mod caller;
mod events;
mod follower;
mod frames;
mod opencode;
mod plain;
mod plugged;
mod process;
mod proxy;
mod service;
mod stage;

pub use caller::Caller;
pub use events::EventTap;
pub use follower::Follower;
pub use opencode::Opencode;
pub use plain::House;
pub use plugged::{launching, outputs, tool_parts};
pub use process::{Process, free_port};
pub use proxy::Proxy;
pub use service::{Ran, Service, greenroom, greenroom_bin, ready, run};
pub use stage::{
    Parent, Scene, Stage, alone, id_of, is_finished_answer, needs, notice_of, opencode_bin,
    session_of, text_of, together, unused_model,
};

use std::time::{Duration, Instant};

/// How long a story waits for anything that must come. Long: a busy machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until the question has an answer; fails with its name if it never has.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "waited {} s in vain: {what}",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
