//! Kills at any instant: the file opens and holds a prefix of the appends, with every append that was reported as durable.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use greenroom::ports::journal::Journal;
use greenroom_sqlite::{SqliteJournal, maintenance};

use crate::support::{TestJournal, accept, contents, evict, until};

const JOURNAL: &str = "GREENROOM_TEST_JOURNAL";
const KILLS: u64 = 30;

/// Runs one of the ignored tests of this program in another process, on the journal.
pub fn child(test: &str, fixture: &TestJournal) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", test])
        .env(JOURNAL, fixture.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Opens the journal that this process was started for.
pub fn open_named() -> SqliteJournal {
    let path = std::env::var_os(JOURNAL).expect("started by another test");
    SqliteJournal::open(path.as_ref(), crate::support::RETENTION).unwrap()
}

/// Appends as fast as it can, and prints the durable position.
#[test]
#[ignore = "started by another test, and killed"]
fn appends_until_it_is_killed() {
    let journal = open_named();
    let mut next = journal.load().unwrap().tasks.len() as u64;
    let mut out = std::io::stdout().lock();
    loop {
        accept(&journal, next);
        next += 1;
        // Limited, so that the writer makes progress.
        while next > journal.status().borrow().durable.0 + 500 {
            std::thread::yield_now();
        }
        let durable = journal.status().borrow().durable.0;
        writeln!(out, "durable {durable}").unwrap();
    }
}

#[test]
fn durable_appends_survive_a_kill_in_order() {
    let fixture = TestJournal::new();
    let mut durable = 0;
    let mut moments = 7_u64;
    for kill in 0..KILLS {
        let mut child = child("crash::appends_until_it_is_killed", &fixture)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || -> Option<u64> {
            for line in lines.by_ref() {
                // The test runner prints other lines too, the first of them on the same line.
                if let Some((_, number)) = line.ok()?.rsplit_once("durable ") {
                    return number.parse().ok();
                }
            }
            None
        };
        let first = next().expect("it appends");
        assert!(first >= durable, "kill {kill}: {first} of {durable}");
        durable = first;
        // A random instant within the next twenty milliseconds.
        moments = moments
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let until = Instant::now() + Duration::from_micros((moments >> 33) % 20_000);
        while Instant::now() < until {
            durable = next().expect("it appends").max(durable);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(number) = next() {
            durable = durable.max(number);
        }

        let journal = fixture.open();
        let recovered = journal.load().unwrap();
        let numbers: Vec<u64> = recovered.tasks.iter().map(|task| task.accepted).collect();
        let count = numbers.len() as u64;
        assert_eq!(
            numbers,
            (0..count).collect::<Vec<_>>(),
            "kill {kill}: a prefix"
        );
        assert!(count >= durable, "kill {kill}: {count} of {durable}");
        assert_eq!(recovered.newest_change, count);
        let members: usize = recovered
            .outboxes
            .iter()
            .map(|(_, outbox)| outbox.open())
            .sum();
        assert_eq!(members as u64, count, "kill {kill}: appends are atomic");
    }
    assert!(durable > KILLS, "{durable}");
}

#[test]
fn unwritten_appends_are_written_on_drop() {
    let fixture = TestJournal::new();
    let journal = fixture.open();
    for number in 0..5_000 {
        accept(&journal, number);
        evict(&journal, number);
    }
    let before = contents(&journal);
    drop(journal);
    let journal = fixture.open();
    let after = contents(&journal);
    assert_eq!(after.tasks, before.tasks);
    assert_eq!(after.outboxes, before.outboxes);
    // More tasks were evicted than memory holds; the file has all of them.
    assert_eq!(after.left.len(), 5_000);
    assert!(journal.find("bg_f0000000").is_some());
}

#[test]
fn journal_with_half_of_its_write_ahead_log_is_reported() {
    let fixture = TestJournal::new();
    let journal = fixture.open();
    for number in 0..30 {
        let lsn = accept(&journal, number);
        until(&journal, |status| status.durable >= lsn);
    }
    // The files as a crash leaves them, with a shorter log.
    let crashed = TestJournal::new();
    for end in ["", "-wal", ".lock"] {
        let name = format!("journal.db{end}");
        std::fs::copy(
            fixture.path().with_file_name(&name),
            crashed.path().with_file_name(&name),
        )
        .unwrap();
    }
    let log = crashed.path().with_file_name("journal.db-wal");
    let log = std::fs::OpenOptions::new().write(true).open(log).unwrap();
    log.set_len(log.metadata().unwrap().len() * 9 / 10).unwrap();
    let missing = || maintenance::stats(&crashed.path()).unwrap().missing;
    let before = missing().unwrap();
    assert!(before.found_at.is_none());
    let journal = crashed.open();
    let found = journal.load().unwrap().tasks.len() as u64;
    assert!((1..30).contains(&found), "{found} tasks are left");
    assert_eq!(before.count, 30 - found);
    // It goes on from there, and the report is kept.
    let lsn = accept(&journal, 100);
    until(&journal, |status| status.durable >= lsn);
    drop(journal);
    let after = missing().unwrap();
    assert_eq!(after.count, before.count);
    assert!(after.found_at.is_some());
    let journal = crashed.open();
    assert_eq!(journal.load().unwrap().tasks.len() as u64, found + 1);
    assert!(
        maintenance::stats(&fixture.path())
            .unwrap()
            .missing
            .is_none()
    );
}
