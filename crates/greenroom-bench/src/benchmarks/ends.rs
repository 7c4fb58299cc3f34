//! Measures how fast tasks end, by completion and by a cancel, and the memory of ended tasks.

use std::sync::Arc;

use greenroom::{CancelOptions, CancelScope, Config, Greenroom};

use super::Round;
use super::launches::beyond_texts;
use crate::clock::{processor_time, resident};
use crate::instant_server::{Events, InstantServer};
use crate::setup::{launch_all, parent, run_on_this_thread, start, unlimited};

const PARENTS: usize = 10;
const KEYS: usize = 20;

/// Starts the actors on a server that answers every prompt at once.
pub fn start_answering(config: Config) -> (Arc<InstantServer>, Greenroom) {
    let (server, events) = InstantServer::answering();
    let server = Arc::new(server);
    let greenroom = start(config, &server);
    forward_events(events, greenroom.clone());
    (server, greenroom)
}

/// Forwards the events of the server to the actors.
pub fn forward_events(mut events: Events, greenroom: Greenroom) {
    actix_rt::spawn(async move {
        while let Some(event) = events.recv().await {
            greenroom.ingest_event(event).await;
        }
    });
}

/// Returns a configuration whose only limit is that many slots per key.
pub fn limited(limit: u32) -> Config {
    let mut config = unlimited();
    config.limits.default = limit;
    config
}

/// Measures whole task lifetimes, from the launch to the parent's message: ten parents, twenty keys with five slots each.
pub fn task_lifetimes(count: usize) -> Round {
    run_on_this_thread(async move {
        let (server, greenroom) = start_answering(limited(5));
        let begin = processor_time();
        launch_all(&greenroom, 0..count, PARENTS, KEYS).await;
        server.until_prompted(count).await;
        until_done(&greenroom).await;
        Round::single(count as f64 / (processor_time() - begin).as_secs_f64())
    })
}

/// Waits until all tasks have ended and all messages are delivered.
pub async fn until_done(greenroom: &Greenroom) {
    loop {
        let counts = greenroom.task_counts().await;
        let open = counts.tasks.keys().any(|(status, _)| !status.is_terminal());
        if !open && counts.parents_pending == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Measures the time from the last call about a task to the prompt of the next, with one slot.
pub fn handover(count: usize) -> Round {
    run_on_this_thread(async move {
        let (server, greenroom) = start_answering(limited(1));
        launch_all(&greenroom, 0..count, PARENTS, 1).await;
        server.until_prompted(count).await;
        until_done(&greenroom).await;
        let mut took = server.handovers();
        took.sort_unstable();
        let micros = |index: usize| took[index].as_secs_f64() * 1e6;
        Round {
            notes: format!("p50 {:.0} µs", micros(took.len() / 2)),
            ..Round::single(micros(took.len() * 99 / 100))
        }
    })
}

/// Measures the cancel of all tasks of one parent, five of them running.
pub fn cancel_all(count: usize) -> Round {
    run_on_this_thread(async move {
        let server = Arc::new(InstantServer::default());
        let greenroom = start(limited(5), &server);
        launch_all(&greenroom, 0..count, 1, 1).await;
        server.until_prompted(5).await;
        let begin = processor_time();
        let scope = CancelScope::Descendants(parent(0));
        let cancelled = greenroom.cancel_all(scope, CancelOptions::default()).await;
        let took = processor_time() - begin;
        assert_eq!(cancelled.len(), count, "every task is cancelled");
        Round::single(took.as_secs_f64() * 1e3)
    })
}

/// Measures the memory of an ended task that is still kept, without its texts.
pub fn memory_ended(count: usize) -> Round {
    run_on_this_thread(async move {
        let (server, greenroom) = start_answering(limited(5));
        launch_all(&greenroom, 0..1000, PARENTS, KEYS).await;
        server.until_prompted(1000).await;
        until_done(&greenroom).await;
        let before = resident();
        let mut begun = 1000;
        // In portions, so that waiting tasks do not count.
        while begun < 1000 + count {
            launch_all(&greenroom, begun..begun + 500, PARENTS, KEYS).await;
            begun += 500;
            server.until_prompted(begun).await;
            until_done(&greenroom).await;
        }
        Round::single(beyond_texts(before, count))
    })
}
