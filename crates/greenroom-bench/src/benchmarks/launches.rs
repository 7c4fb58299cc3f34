//! How fast tasks come in, and what they take up while they wait or run.

use std::sync::Arc;

use super::Round;
use crate::bare;
use crate::clock::{processor_time, resident};
use crate::instant_server::InstantServer;
use crate::stage::{DESCRIPTION, PROMPT, launch_all, on_this_thread, start, unlimited};

const PARENTS: usize = 10;
const KEYS: usize = 20;

/// From the call to the prompt, for so many tasks without limits.
pub fn to_prompted(count: usize) -> Round {
    on_this_thread(async move {
        let server = Arc::new(InstantServer::default());
        let greenroom = start(unlimited(), &server);
        let warm = 200;
        launch_all(&greenroom, 0..warm, PARENTS, KEYS).await;
        server.until_prompted(warm).await;
        let begin = processor_time();
        launch_all(&greenroom, warm..warm + count, PARENTS, KEYS).await;
        server.until_prompted(warm + count).await;
        let rate = count as f64 / (processor_time() - begin).as_secs_f64();
        Round::beside(rate, bare::tasks_per_second(count).await)
    })
}

/// How fast the last tenth is accepted of so many tasks that only five of may run; beside the first tenth.
pub fn behind_a_limit(count: usize) -> Round {
    on_this_thread(async move {
        let server = Arc::new(InstantServer::default());
        let mut config = unlimited();
        config.limits.default = 5;
        let greenroom = start(config, &server);
        launch_all(&greenroom, 0..100, PARENTS, 1).await;
        let tenth = count / 10;
        let before = resident();
        let mut rates = Vec::new();
        for part in 0..10 {
            let begin = processor_time();
            let from = 100 + part * tenth;
            launch_all(&greenroom, from..from + tenth, PARENTS, 1).await;
            rates.push(tenth as f64 / (processor_time() - begin).as_secs_f64());
        }
        let bytes = beyond_texts(before, count);
        Round {
            notes: format!("{bytes:.0} bytes a task beyond its texts"),
            ..Round::beside(rates[9], rates[0])
        }
    })
}

/// What a running task takes up beyond its own texts.
pub fn memory_running(count: usize) -> Round {
    on_this_thread(async move {
        let server = Arc::new(InstantServer::default());
        let greenroom = start(unlimited(), &server);
        launch_all(&greenroom, 0..100, PARENTS, KEYS).await;
        server.until_prompted(100).await;
        let before = resident();
        launch_all(&greenroom, 100..100 + count, PARENTS, KEYS).await;
        server.until_prompted(100 + count).await;
        Round::alone(beyond_texts(before, count))
    })
}

/// Bytes a task beyond what its caller's texts take up anyway.
pub fn beyond_texts(before: u64, count: usize) -> f64 {
    let texts = (PROMPT.len() + DESCRIPTION.len()) as f64;
    resident().saturating_sub(before) as f64 / count as f64 - texts
}
