//! What it costs to ask the server about everything that runs.

use std::sync::Arc;
use std::time::Duration;

use super::Round;
use crate::bare;
use crate::clock::processor_time;
use crate::instant_server::InstantServer;
use crate::stage::{launch_all, on_this_thread, start, unlimited};

const POLLS: usize = 20;

/// One tick over so many running tasks: the question, its answer, and a look at each; without the server's own time.
pub fn one_poll(count: usize) -> Round {
    on_this_thread(async move {
        let server = Arc::new(InstantServer::default());
        let mut config = unlimited();
        config.lifecycle.poll_interval = Duration::from_millis(40);
        let greenroom = start(config, &server);
        server.list_busy();
        launch_all(&greenroom, 0..count, 10, 20).await;
        server.until_prompted(count).await;
        let (warm, _) = server.asked();
        server.until_asked(warm + 2).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let (first, own_first) = server.asked();
        let begin = processor_time();
        server.until_asked(first + POLLS).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let (last, own_last) = server.asked();
        let took = processor_time() - begin - (own_last - own_first);
        let micros = took.as_secs_f64() * 1e6 / (last - first) as f64;
        Round::beside(micros, bare::message_to_each(count, POLLS).await)
    })
}
