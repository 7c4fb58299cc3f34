//! Measures the journal and prints a table: `cargo xtask bench`. Durable launches per second and their latency, with 1, 10
//! and 100 at a time, in memory, on disk, and as bare SQLite commits in the same folder; the duration of a restart with
//! 10,000 tasks, and their size. The numbers in docs/journal.md are from this bench.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::notice::NoticeKind;
use greenroom::domain::outbox::DeliveryStatus;
use greenroom::domain::task::{Launch, Task, TaskStatus};
use greenroom::ports::journal::conformance::{
    RETENTION, at, change, in_state, message, report, task,
};
use greenroom::ports::journal::{Journal, JournalEntry, Lsn, MemoryJournal};
use greenroom_sqlite::{SqliteJournal, maintenance};
use rusqlite::Connection;

/// The duration of one slice of a measurement.
const SLICE: Duration = Duration::from_secs(1);
/// The slices of each measurement. They alternate, so that other load on the disk affects all alike.
const SLICES: u64 = 6;
const TASKS: u64 = 10_000;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    println!("| launches made durable | at a time | per second | p50 | p99 |");
    println!("|---|---|---|---|---|");
    for at_a_time in [1, 10, 100] {
        let (mut memory, mut disk, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for slice in 0..SLICES {
            let in_memory: Arc<dyn Journal> = Arc::new(MemoryJournal::with_retention(RETENTION));
            memory.extend(appends(in_memory, at_a_time));
            let path = folder.path().join(format!("{at_a_time} {slice}.db"));
            let on_disk: Arc<dyn Journal> =
                Arc::new(SqliteJournal::open(&path, RETENTION).unwrap());
            disk.extend(appends(on_disk, at_a_time));
            bare.extend(commits(&path.with_extension("bare"), at_a_time));
        }
        row("journal in memory", at_a_time, memory);
        row("journal on disk", at_a_time, disk);
        row("bare SQLite commits", at_a_time, bare);
    }
    println!();
    restart(folder.path());
}

fn row(what: &str, at_a_time: u64, mut waits: Vec<Duration>) {
    waits.sort_unstable();
    let of = |part: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index of a list"
        )]
        let index = (waits.len() as f64 * part) as usize;
        let wait = waits[index.min(waits.len() - 1)];
        format!("{:.2} ms", wait.as_secs_f64() * 1000.0)
    };
    let per_second = waits.len() as u64 / (SLICES * SLICE.as_secs());
    println!(
        "| {what} | {at_a_time} | {per_second} | {} | {} |",
        of(0.5),
        of(0.99)
    );
}

/// A launch as the registry appends it, with a prompt of realistic length.
fn launched(number: u64) -> (Task, Vec<JournalEntry>) {
    let id = format!("bg_{number:08x}");
    let parent = format!("ses_{}", number / 8);
    let launch = Launch {
        description: format!("look into part {number}"),
        prompt: "Find out why the build is slow, and say what to do about it. ".repeat(10),
        agent: "explore".to_owned(),
        parent_session: Some(SessionId::new(&parent)),
        ..Launch::default()
    };
    let mut new = task(&id, Some(&parent));
    new.description = launch.description.into();
    new.prompt = launch.prompt.into();
    new.skill_content = None;
    let joined = JournalEntry::Joined {
        parent: parent.as_str().into(),
        task: id.as_str().into(),
        run: Run::FIRST,
        directory: Some("/home/user/project".into()),
    };
    let entries = vec![change(number, &new, number * 3 + 1, None), joined];
    (new, entries)
}

/// Appends and waits until the append is durable, in `at_a_time` concurrent loops.
fn appends(journal: Arc<dyn Journal>, at_a_time: u64) -> Vec<Duration> {
    let next = Rc::new(std::cell::Cell::new(0));
    each(at_a_time, move || {
        let (journal, next) = (Arc::clone(&journal), Rc::clone(&next));
        async move {
            let number = next.get();
            next.set(number + 1);
            let (_, entries) = launched(number);
            let begin = Instant::now();
            let lsn = journal.append(at(1), entries);
            durable(&*journal, lsn).await;
            begin.elapsed()
        }
    })
}

async fn durable(journal: &dyn Journal, lsn: Lsn) {
    let mut status = journal.status();
    status.wait_for(|now| now.durable >= lsn).await.unwrap();
}

/// Commits one row of the same size at a time, with the same durability settings.
fn commits(path: &Path, at_a_time: u64) -> Vec<Duration> {
    let db = Connection::open(path).unwrap();
    db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))
        .unwrap();
    db.pragma_update(None, "synchronous", "full").unwrap();
    db.execute_batch("CREATE TABLE rows (number INTEGER PRIMARY KEY, body TEXT)")
        .unwrap();
    let db = Rc::new(db);
    let body = Rc::new(serde_json::to_string(&launched(1).1).unwrap());
    each(at_a_time, move || {
        let (db, body) = (Rc::clone(&db), Rc::clone(&body));
        async move {
            let begin = Instant::now();
            // Others wait their turn, as for a connection that many share.
            tokio::task::yield_now().await;
            let mut insert = db
                .prepare_cached("INSERT INTO rows (body) VALUES (?1)")
                .unwrap();
            insert.execute([&*body]).unwrap();
            begin.elapsed()
        }
    })
}

fn each<F: Future<Output = Duration> + 'static>(
    at_a_time: u64,
    once: impl Fn() -> F + Clone + 'static,
) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    let end = Instant::now() + SLICE;
    let tasks: Vec<_> = (0..at_a_time)
        .map(|_| {
            let once = once.clone();
            local.spawn_local(async move {
                let mut waits = Vec::new();
                while Instant::now() < end {
                    waits.push(once().await);
                    tokio::task::yield_now().await;
                }
                waits
            })
        })
        .collect();
    runtime.block_on(local.run_until(async {
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all
    }))
}

/// Appends the entries of a whole task: launch, run, report to the parent. Half of the tasks are evicted.
fn lived(journal: &dyn Journal, number: u64) {
    let (new, launch) = launched(number);
    let (id, parent) = (new.id.clone(), new.parent_session.clone().unwrap());
    let running = in_state(&new, TaskStatus::Running);
    let ended = in_state(&new, TaskStatus::Completed);
    journal.append(at(1), launch);
    journal.append(at(2), vec![JournalEntry::Granted(id.clone(), Run::FIRST)]);
    let from = Some(TaskStatus::Pending);
    journal.append(at(3), vec![change(number, &running, number * 3 + 2, from)]);
    journal.append(at(4), vec![JournalEntry::Prompted(id.clone(), Run::FIRST)]);
    let settled = JournalEntry::Settled {
        parent: parent.clone(),
        report: Box::new(report(id.as_str())),
    };
    let from = Some(TaskStatus::Running);
    journal.append(
        at(5),
        vec![change(number, &ended, number * 3 + 3, from), settled],
    );
    if number % 8 < 7 {
        return;
    }
    // The batch of eight is closed and reported.
    let batch: Vec<TaskId> = (number - 7..=number)
        .map(|number| TaskId::new(format!("bg_{number:08x}")))
        .collect();
    let names: Vec<&str> = batch.iter().map(TaskId::as_str).collect();
    let notice = format!("ntc_{number}");
    let message = |fate| Box::new(message(&notice, NoticeKind::Final, &names, fate));
    let closed = JournalEntry::Closed {
        parent: parent.clone(),
        message: message(DeliveryStatus::Pending),
        tasks: batch.clone(),
    };
    journal.append(at(6), vec![closed]);
    let sending = JournalEntry::Sending {
        parent: parent.clone(),
        message: message(DeliveryStatus::Sending),
    };
    journal.append(at(7), vec![sending]);
    let delivered = JournalEntry::Delivery {
        watched: false,
        parent,
        id: notice.as_str().into(),
        status: DeliveryStatus::Delivered,
        at: at(8),
    };
    journal.append(at(8), vec![delivered]);
    if number < TASKS / 2 {
        for task in batch {
            journal.append(at(9), vec![JournalEntry::Forgotten(task, at(9))]);
        }
    }
}

fn restart(folder: &Path) {
    let path = folder.join("restart.db");
    let journal = SqliteJournal::open(&path, RETENTION).unwrap();
    for number in 0..TASKS {
        lived(&journal, number);
    }
    drop(journal);
    let prompt = launched(0).0.prompt.len();
    let bytes = maintenance::stats(&path).unwrap().bytes;
    let mut times = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        let journal = SqliteJournal::open(&path, RETENTION).unwrap();
        let recovered = journal.load().unwrap();
        times.push(begin.elapsed());
        assert_eq!((recovered.tasks.len() + recovered.left.len()) as u64, TASKS);
    }
    times.sort_unstable();
    println!("| with {TASKS} tasks, half of them in memory | |");
    println!("|---|---|");
    println!(
        "| opened, checked and loaded | {:.0} ms |",
        times[2].as_secs_f64() * 1000.0
    );
    println!(
        "| bytes a task, its prompt of {prompt} bytes among them | {} |",
        bytes / TASKS
    );
}
