//! What a service costs that nobody uses, and how soon it can be used: `greenroom serve` in a process of its own, its
//! journal on disk. The clock of the wall counts, and what the kernel says of the process.

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use greenroom::ShutdownMode;
use greenroom_sqlite::SqliteJournal;

use super::Round;
use super::ends::{hand_on, limited, over};
use crate::instant_server::InstantServer;
use crate::process::agent::Agent;
use crate::process::sample::{resident, threads};
use crate::process::service::Service;
use crate::stage::{launch_all, on_this_thread, start_with};

const RETENTION: Duration = Duration::from_secs(14 * 24 * 3600);
/// Until whatever a start has set going is over.
const AT_REST: Duration = Duration::from_secs(5);

/// From its start to the line that says it is ready, in milliseconds, with so many ended tasks in its journal.
pub fn cold_start(count: usize) -> Round {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let journal = folder.path().join("journal.db");
    fill(&journal, count);
    let (_agent, service) = begin(&journal);
    let ready = service.ready_after.as_secs_f64() * 1e3;
    let memory = resident(service.pid()).expect("it runs") as f64;
    ended(service);
    let (_agent, empty) = begin(&folder.path().join("empty.db"));
    let bare = empty.ready_after.as_secs_f64() * 1e3;
    ended(empty);
    Round {
        notes: format!("{:.1} MiB then", memory / (1 << 20) as f64),
        ..Round::beside(ready, bare)
    }
}

/// Its resident memory in MiB, with so many ended tasks in its journal.
pub fn idle_memory(count: usize) -> Round {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let journal = folder.path().join("journal.db");
    if count > 0 {
        fill(&journal, count);
    }
    let (_agent, service) = begin(&journal);
    sleep(AT_REST);
    let memory = resident(service.pid()).expect("it runs") as f64;
    let threads = threads(service.pid()).expect("it runs").len();
    ended(service);
    Round {
        notes: format!("{threads} threads"),
        ..Round::alone(memory / (1 << 20) as f64)
    }
}

/// How often any of its threads wakes in so many seconds in which nothing happens but the agent server's heartbeat.
pub fn idle_wake_ups(seconds: usize) -> Round {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let (_agent, service) = begin(&folder.path().join("journal.db"));
    sleep(AT_REST);
    let before = threads(service.pid()).expect("it runs");
    sleep(Duration::from_secs(seconds as u64));
    let after = threads(service.pid()).expect("it runs");
    ended(service);
    let mut woken = Vec::new();
    let mut all = 0;
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        if after > before {
            woken.push(format!("{name} {}", after - before));
            all += after - before;
        }
    }
    Round {
        notes: woken.join(", "),
        ..Round::alone(all as f64)
    }
}

fn begin(journal: &Path) -> (Agent, Service) {
    let agent = Agent::start().expect("a free port");
    let service = Service::start(&agent.url(), journal, &[]).expect("the service starts");
    (agent, service)
}

fn ended(service: Service) {
    let status = service.stop().expect("it ends");
    assert!(status.success(), "the service ended with {status}");
}

/// So many tasks that have come to their end, in a journal of that path.
fn fill(path: &Path, count: usize) {
    let journal = SqliteJournal::open(path, RETENTION).expect("a new file can be written");
    on_this_thread(async move {
        let (server, events) = InstantServer::answering();
        let server = Arc::new(server);
        let greenroom = start_with(limited(5), &server, Arc::new(journal));
        hand_on(events, greenroom.clone());
        launch_all(&greenroom, 0..count, 10, 20).await;
        server.until_prompted(count).await;
        over(&greenroom).await;
        greenroom.shutdown(ShutdownMode::Detach).await;
    });
}
