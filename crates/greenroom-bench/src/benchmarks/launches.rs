//! Measures the rate of launches, and the memory of waiting and running tasks.

use std::sync::Arc;

use super::Round;
use crate::bare;
use crate::clock::{processor_time, resident};
use crate::instant_server::InstantServer;
use crate::setup::{DESCRIPTION, PROMPT, launch_all, run_on_this_thread, start, unlimited};

const PARENTS: usize = 10;
const KEYS: usize = 20;

/// Measures that many launches without limits, from the call to the prompt.
pub fn to_prompted(count: usize) -> Round {
    run_on_this_thread(async move {
        let server = Arc::new(InstantServer::default());
        let greenroom = start(unlimited(), &server);
        let warm = 200;
        launch_all(&greenroom, 0..warm, PARENTS, KEYS).await;
        server.until_prompted(warm).await;
        let begin = processor_time();
        launch_all(&greenroom, warm..warm + count, PARENTS, KEYS).await;
        server.until_prompted(warm + count).await;
        let rate = count as f64 / (processor_time() - begin).as_secs_f64();
        Round::compared(rate, bare::tasks_per_second(count).await)
    })
}

/// Measures the rate of the last tenth of that many launches with five slots, compared with the first tenth.
pub fn behind_a_limit(count: usize) -> Round {
    run_on_this_thread(async move {
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
            ..Round::compared(rates[9], rates[0])
        }
    })
}

/// Measures the memory of a running task without its texts.
pub fn memory_running(count: usize) -> Round {
    run_on_this_thread(async move {
        let server = Arc::new(InstantServer::default());
        let greenroom = start(unlimited(), &server);
        launch_all(&greenroom, 0..100, PARENTS, KEYS).await;
        server.until_prompted(100).await;
        let before = resident();
        launch_all(&greenroom, 100..100 + count, PARENTS, KEYS).await;
        server.until_prompted(100 + count).await;
        Round::single(beyond_texts(before, count))
    })
}

/// Returns the bytes per task without its texts.
pub fn beyond_texts(before: u64, count: usize) -> f64 {
    let texts = (PROMPT.len() + DESCRIPTION.len()) as f64;
    resident().saturating_sub(before) as f64 / count as f64 - texts
}
