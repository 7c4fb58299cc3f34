//! Killed at any instant: the file opens, holds the first so many appends and nothing else, and every one of which it was
//! said that it was durable.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use greenroom::ports::journal::Journal;
use greenroom_sqlite::SqliteJournal;

use crate::kept::{Stage, accept, kept, leave};

const JOURNAL: &str = "GREENROOM_TEST_JOURNAL";
const KILLS: u64 = 30;

/// This test program as another process that runs one of its ignored tests on the journal.
pub fn child(test: &str, stage: &Stage) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", test])
        .env(JOURNAL, stage.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// The journal that this process was started for.
pub fn named() -> SqliteJournal {
    let path = std::env::var_os(JOURNAL).expect("started by another test");
    SqliteJournal::open(path.as_ref(), crate::kept::RETENTION).unwrap()
}

/// Appends as fast as it can, and says how far the disk has come.
#[test]
#[ignore = "started by another test, and killed"]
fn appends_until_it_is_killed() {
    let journal = named();
    let mut next = journal.load().unwrap().tasks.len() as u64;
    let begun = next;
    let mut out = std::io::stdout().lock();
    loop {
        accept(&journal, next);
        next += 1;
        // Not so fast that nothing is written for all that is appended.
        while next - begun > journal.standing().borrow().durable.0 + 500 {
            std::thread::yield_now();
        }
        let durable = begun + journal.standing().borrow().durable.0;
        writeln!(out, "durable {durable}").unwrap();
    }
}

#[test]
fn what_was_durable_is_there_after_any_kill_and_nothing_is_out_of_order() {
    let stage = Stage::new();
    let mut durable = 0;
    let mut moments = 7_u64;
    for kill in 0..KILLS {
        let mut child = child("crash::appends_until_it_is_killed", &stage)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || -> Option<u64> {
            for line in lines.by_ref() {
                // The test runner says other things too, the first of them on the same line.
                if let Some((_, number)) = line.ok()?.rsplit_once("durable ") {
                    return number.parse().ok();
                }
            }
            None
        };
        let first = next().expect("it appends");
        assert!(first >= durable, "kill {kill}: {first} of {durable}");
        durable = first;
        // Some instant within the next twenty milliseconds.
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

        let journal = stage.open();
        let kept = journal.load().unwrap();
        let numbers: Vec<u64> = kept.tasks.iter().map(|task| task.accepted).collect();
        let count = numbers.len() as u64;
        assert_eq!(
            numbers,
            (0..count).collect::<Vec<_>>(),
            "kill {kill}: a prefix"
        );
        assert!(count >= durable, "kill {kill}: {count} of {durable}");
        assert_eq!(kept.newest_change, count);
        let members: usize = kept
            .accounts
            .iter()
            .map(|(_, account)| account.open())
            .sum();
        assert_eq!(
            members as u64, count,
            "kill {kill}: all of an append, or none"
        );
    }
    assert!(durable > KILLS, "{durable}");
}

#[test]
fn what_waits_is_written_when_the_journal_is_dropped() {
    let stage = Stage::new();
    let journal = stage.open();
    for number in 0..5_000 {
        accept(&journal, number);
        leave(&journal, number);
    }
    let before = kept(&journal);
    drop(journal);
    let journal = stage.open();
    let after = kept(&journal);
    assert_eq!(after.0, before.0);
    assert_eq!(after.2, before.2);
    // More have left than are remembered in memory, and the disk knows them all.
    assert_eq!(after.1.len(), 5_000);
    assert!(journal.find("bg_f0000000").is_some());
}
