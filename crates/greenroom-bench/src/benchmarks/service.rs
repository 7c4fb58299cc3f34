//! Measures an idle service and its cold start: `greenroom serve` in a separate process, its journal on disk. Figures are
//! wall-clock times and the kernel's counters of the process.

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use greenroom::ShutdownMode;
use greenroom_sqlite::SqliteJournal;

use super::Round;
use super::ends::{forward_events, limited, until_done};
use crate::instant_server::InstantServer;
use crate::process::agent::Agent;
use crate::process::sample::{resident, threads};
use crate::process::service::Service;
use crate::setup::{launch_all, run_on_this_thread, start_with};

const RETENTION: Duration = Duration::from_secs(14 * 24 * 3600);
/// The time after which a started service is idle.
const AT_REST: Duration = Duration::from_secs(5);

/// Measures the time from the start to the line `listening on`, in milliseconds, with that many ended tasks in the journal.
pub fn cold_start(count: usize) -> Round {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let journal = folder.path().join("journal.db");
    fill(&journal, count);
    let (_agent, service) = begin(&journal);
    let ready = service.ready_after.as_secs_f64() * 1e3;
    let memory = resident(service.pid()).expect("the service runs") as f64;
    stop(service);
    let (_agent, empty) = begin(&folder.path().join("empty.db"));
    let bare = empty.ready_after.as_secs_f64() * 1e3;
    stop(empty);
    Round {
        notes: format!("{:.1} MiB then", memory / (1 << 20) as f64),
        ..Round::compared(ready, bare)
    }
}

/// Measures the resident memory in MiB, with that many ended tasks in the journal.
pub fn idle_memory(count: usize) -> Round {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let journal = folder.path().join("journal.db");
    if count > 0 {
        fill(&journal, count);
    }
    let (_agent, service) = begin(&journal);
    sleep(AT_REST);
    let memory = resident(service.pid()).expect("the service runs") as f64;
    let threads = threads(service.pid()).expect("the service runs").len();
    stop(service);
    Round {
        notes: format!("{threads} threads"),
        ..Round::single(memory / (1 << 20) as f64)
    }
}

/// Measures how often any of its threads wakes in that many seconds with only the agent server's heartbeat.
pub fn idle_wake_ups(seconds: usize) -> Round {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let (_agent, service) = begin(&folder.path().join("journal.db"));
    sleep(AT_REST);
    let before = threads(service.pid()).expect("the service runs");
    sleep(Duration::from_secs(seconds as u64));
    let after = threads(service.pid()).expect("the service runs");
    stop(service);
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
        ..Round::single(all as f64)
    }
}

fn begin(journal: &Path) -> (Agent, Service) {
    let agent = Agent::start().expect("a free port");
    let service = Service::start(&agent.url(), journal, &[]).expect("the service starts");
    (agent, service)
}

fn stop(service: Service) {
    let status = service.stop().expect("it ends");
    assert!(status.success(), "the service ended with {status}");
}

/// Writes that many ended tasks to a journal at that path.
fn fill(path: &Path, count: usize) {
    let journal = SqliteJournal::open(path, RETENTION).expect("a new file can be written");
    run_on_this_thread(async move {
        let (server, events) = InstantServer::answering();
        let server = Arc::new(server);
        let greenroom = start_with(limited(5), &server, Arc::new(journal));
        forward_events(events, greenroom.clone());
        launch_all(&greenroom, 0..count, 10, 20).await;
        server.until_prompted(count).await;
        until_done(&greenroom).await;
        greenroom.shutdown(ShutdownMode::Detach).await;
    });
}
