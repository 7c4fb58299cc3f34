//! How fast tasks come to their end, by themselves and by a cancel, and what is left of them.

use std::sync::Arc;

use greenroom::{CancelOptions, CancelScope, Config, Greenroom};

use super::Round;
use super::launches::beyond_texts;
use crate::clock::{processor_time, resident};
use crate::instant_server::{Events, InstantServer};
use crate::stage::{launch_all, on_this_thread, parent, start, unlimited};

const PARENTS: usize = 10;
const KEYS: usize = 20;

/// The actors on a server that answers every prompt at once.
pub fn lively(config: Config) -> (Arc<InstantServer>, Greenroom) {
    let (server, events) = InstantServer::answering();
    let server = Arc::new(server);
    let greenroom = start(config, &server);
    hand_on(events, greenroom.clone());
    (server, greenroom)
}

/// What its sessions say, to the actors.
pub fn hand_on(mut events: Events, greenroom: Greenroom) {
    actix_rt::spawn(async move {
        while let Some(event) = events.recv().await {
            greenroom.happened(event).await;
        }
    });
}

/// Nothing else waits than for so many slots of a key.
pub fn limited(limit: u32) -> Config {
    let mut config = unlimited();
    config.limits.default = limit;
    config
}

/// Launched, run, idle, checked, completed, told: so many of ten parents, under twenty keys of five slots each.
pub fn whole_lives(count: usize) -> Round {
    on_this_thread(async move {
        let (server, greenroom) = lively(limited(5));
        let begin = processor_time();
        launch_all(&greenroom, 0..count, PARENTS, KEYS).await;
        server.until_prompted(count).await;
        over(&greenroom).await;
        Round::alone(count as f64 / (processor_time() - begin).as_secs_f64())
    })
}

/// Waits until nothing is open and nobody owed anything.
pub async fn over(greenroom: &Greenroom) {
    loop {
        let tally = greenroom.tally().await;
        let open = tally.tasks.keys().any(|(status, _)| !status.is_terminal());
        if !open && tally.parents_owed == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// One at a time: from the last question about a task to the prompt of the next.
pub fn hand_over(count: usize) -> Round {
    on_this_thread(async move {
        let (server, greenroom) = lively(limited(1));
        launch_all(&greenroom, 0..count, PARENTS, 1).await;
        server.until_prompted(count).await;
        over(&greenroom).await;
        let mut took = server.hand_overs();
        took.sort_unstable();
        let micros = |place: usize| took[place].as_secs_f64() * 1e6;
        Round {
            notes: format!("p50 {:.0} µs", micros(took.len() / 2)),
            ..Round::alone(micros(took.len() * 99 / 100))
        }
    })
}

/// All of one parent's tasks at once, five of them running.
pub fn cancel_all(count: usize) -> Round {
    on_this_thread(async move {
        let server = Arc::new(InstantServer::default());
        let greenroom = start(limited(5), &server);
        launch_all(&greenroom, 0..count, 1, 1).await;
        server.until_prompted(5).await;
        let begin = processor_time();
        let scope = CancelScope::Descendants(parent(0));
        let cancelled = greenroom.cancel_all(scope, CancelOptions::default()).await;
        let took = processor_time() - begin;
        assert_eq!(cancelled.len(), count, "every task is cancelled");
        Round::alone(took.as_secs_f64() * 1e3)
    })
}

/// What a task takes up that has ended and is still in memory, beyond its own texts.
pub fn memory_ended(count: usize) -> Round {
    on_this_thread(async move {
        let (server, greenroom) = lively(limited(5));
        launch_all(&greenroom, 0..1000, PARENTS, KEYS).await;
        server.until_prompted(1000).await;
        over(&greenroom).await;
        let before = resident();
        let mut begun = 1000;
        // In portions, so that what waits does not count.
        while begun < 1000 + count {
            launch_all(&greenroom, begun..begun + 500, PARENTS, KEYS).await;
            begun += 500;
            server.until_prompted(begun).await;
            over(&greenroom).await;
        }
        Round::alone(beyond_texts(before, count))
    })
}
