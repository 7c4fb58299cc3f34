//! Measures launches over HTTP in wall-clock time. The whole service runs in this process, with its journal on disk.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use greenroom::ShutdownMode;
use greenroom_server::config::{Listen, Settings};
use greenroom_server::host::Service;

use super::Round;
use super::durable::percentile;
use crate::instant_server::InstantServer;
use crate::setup::{run_on_this_thread, unlimited};

/// How long the connections launch.
const SLICE: Duration = Duration::from_secs(3);
/// Launches per second of all connections together in the paced benchmark.
const PACE: u32 = 2_000;

/// Measures that many connections, each of which launches again as soon as it has its answer.
pub fn launches(connections: usize) -> Round {
    with(connections, None)
}

/// Measures that many connections at a fixed rate. A launch is timed from the moment it was due, so that the time it
/// waited for the previous launch counts too.
pub fn paced(connections: usize) -> Round {
    let between = Duration::from_secs(1) * u32::try_from(connections).unwrap_or(u32::MAX) / PACE;
    with(connections, Some(between))
}

fn with(connections: usize, between: Option<Duration>) -> Round {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let mut settings = Settings {
        listen: Listen(SocketAddr::from(([127, 0, 0, 1], 0))),
        journal: Some(folder.path().join("journal.db")),
        core: unlimited(),
        ..Settings::default()
    };
    settings.core.limits.default = 5;
    run_on_this_thread(async move {
        let server = Arc::new(InstantServer::default());
        let service = Service::start(&settings, server).expect("a free port and a new file");
        let address = service.address();
        let (done, clients) = tokio::sync::oneshot::channel();
        // The clients run on another thread.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a thread for the clients");
            // The receiver exists as long as this runs.
            let _ = done.send(runtime.block_on(clients_of(address, connections, between)));
        });
        let took = clients.await.expect("the clients end");
        service.stop(ShutdownMode::Detach).await;
        let rate = took.len() as f64 / SLICE.as_secs_f64();
        Round {
            notes: format!("p50 {:.1} ms; {rate:.0}/s", percentile(&took, 50)),
            ..Round::single(percentile(&took, 99))
        }
    })
}

async fn clients_of(
    address: SocketAddr,
    connections: usize,
    between: Option<Duration>,
) -> Vec<Duration> {
    let start = Instant::now();
    let end = start + SLICE;
    let url = format!("http://{address}/v1/tasks");
    let clients = (0..connections).map(|number| {
        let url = url.clone();
        async move {
            // One client each, so that each has its own connection.
            let client = reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client can be built");
            let launch = serde_json::json!({
                "description": "look into it",
                "prompt": "Look into it and report the result.",
                "agent": format!("agent{}", number % 20),
            });
            let mut took = Vec::new();
            // The connections are spread over the interval.
            let share = number as f64 / connections as f64;
            let mut due = start + between.unwrap_or_default().mul_f64(share);
            while Instant::now() < end {
                let begin = match between {
                    Some(between) => {
                        let next = due + between;
                        tokio::time::sleep_until(due.into()).await;
                        std::mem::replace(&mut due, next)
                    }
                    None => Instant::now(),
                };
                let answer = client.post(&url).json(&launch).send().await;
                let answer = answer.expect("the service answers");
                assert_eq!(answer.status(), 201);
                // Read to its end, so that the connection is used again.
                answer.bytes().await.expect("the service answers whole");
                took.push(begin.elapsed());
            }
            took
        }
    });
    let mut took = futures::future::join_all(clients).await.concat();
    took.sort_unstable();
    took
}
