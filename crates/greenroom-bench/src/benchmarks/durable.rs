//! Measures launches that are durable before they are answered, in wall-clock time, since the clients wait for the disk.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use greenroom::ports::journal::{Journal, MemoryJournal};
use greenroom_sqlite::SqliteJournal;
use rusqlite::Connection;

use super::Round;
use crate::instant_server::InstantServer;
use crate::setup::{launch, run_on_this_thread, start_with, unlimited};

const RETENTION: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long each of the three variants is measured.
const SLICE: Duration = Duration::from_secs(2);

/// Measures that many clients, each of which launches again as soon as it has its answer: on disk, in memory, and bare
/// commits of the same size.
pub fn launches(clients: usize) -> Round {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path, RETENTION).expect("a new file can be written");
    let disk = launched(Arc::new(journal), clients);
    let memory = launched(Arc::new(MemoryJournal::with_retention(RETENTION)), clients);
    let bare = commits(&folder.path().join("bare.db"), clients);
    let (rate, in_memory) = (per_second(&disk), per_second(&memory));
    Round {
        notes: format!(
            "p50 {:.1} ms, p99 {:.1} ms; in memory {in_memory:.0}/s",
            percentile(&disk, 50),
            percentile(&disk, 99)
        ),
        ..Round::compared(rate, per_second(&bare))
    }
}

fn launched(journal: Arc<dyn Journal>, clients: usize) -> Vec<Duration> {
    run_on_this_thread(async move {
        let server = Arc::new(InstantServer::default());
        let mut config = unlimited();
        // Waiting tasks create no session: only the launch is measured.
        config.limits.default = 5;
        let greenroom = start_with(config, &server, journal);
        let next = Rc::new(Cell::new(0));
        repeat(clients, move || {
            let (greenroom, number) = (greenroom.clone(), next.replace(next.get() + 1));
            async move {
                let launched = greenroom.launch(launch(number, 10, 20)).await;
                launched.expect("these launches are valid");
            }
        })
        .await
    })
}

/// Measures commits of one row with the size of a launch, by clients that take turns on one connection.
fn commits(path: &Path, clients: usize) -> Vec<Duration> {
    let db = Connection::open(path).expect("a new file can be written");
    db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))
        .expect("SQLite knows WAL");
    db.pragma_update(None, "synchronous", "full")
        .expect("SQLite can sync to the disk");
    db.execute_batch("CREATE TABLE rows (number INTEGER PRIMARY KEY, body TEXT)")
        .expect("a new table");
    let db = Rc::new(db);
    let body: Rc<str> = "x".repeat(1200).into();
    run_on_this_thread(repeat(clients, move || {
        let (db, body) = (Rc::clone(&db), Rc::clone(&body));
        async move {
            tokio::task::yield_now().await;
            let mut insert = db
                .prepare_cached("INSERT INTO rows (body) VALUES (?1)")
                .expect("the table is there");
            insert.execute([&*body]).expect("the disk has room");
        }
    }))
}

/// Runs `once` repeatedly in each client, and returns the sorted times.
async fn repeat<F: Future<Output = ()> + 'static>(
    clients: usize,
    once: impl Fn() -> F + Clone + 'static,
) -> Vec<Duration> {
    let end = Instant::now() + SLICE;
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let once = once.clone();
            actix_rt::spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < end {
                    let begin = Instant::now();
                    once().await;
                    took.push(begin.elapsed());
                    tokio::task::yield_now().await;
                }
                took
            })
        })
        .collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.expect("no client panics"));
    }
    all.sort_unstable();
    all
}

fn per_second(took: &[Duration]) -> f64 {
    took.len() as f64 / SLICE.as_secs_f64()
}

/// Returns a percentile of sorted times, in milliseconds.
pub fn percentile(took: &[Duration], percent: usize) -> f64 {
    let index = (took.len() * percent / 100).min(took.len() - 1);
    took[index].as_secs_f64() * 1000.0
}
