//! Measures the cost of one poll of all running tasks.

use std::sync::Arc;
use std::time::Duration;

use super::Round;
use crate::bare;
use crate::clock::processor_time;
use crate::instant_server::InstantServer;
use crate::setup::{launch_all, run_on_this_thread, start, unlimited};

const POLLS: usize = 20;

/// Measures one poll of that many running tasks, without the server's own time.
pub fn one_poll(count: usize) -> Round {
    run_on_this_thread(async move {
        let server = Arc::new(InstantServer::default());
        let mut config = unlimited();
        config.lifecycle.poll_interval = Duration::from_millis(40);
        let greenroom = start(config, &server);
        server.list_busy();
        launch_all(&greenroom, 0..count, 10, 20).await;
        server.until_prompted(count).await;
        let (warm, _) = server.status_calls();
        server.until_status_calls(warm + 2).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let (first, own_first) = server.status_calls();
        let begin = processor_time();
        server.until_status_calls(first + POLLS).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let (last, own_last) = server.status_calls();
        let took = processor_time() - begin - (own_last - own_first);
        let micros = took.as_secs_f64() * 1e6 / (last - first) as f64;
        Round::compared(micros, bare::message_to_each(count, POLLS).await)
    })
}
