//! What comes in between while a journal is in use: it is told, nothing is lost, and it is cleared by itself.

use std::sync::mpsc;

use greenroom::ports::journal::Journal;
use rusqlite::Connection;

use crate::kept::{PATIENCE, Stage, accept, until};

#[test]
fn a_file_that_another_program_has_locked_is_written_once_it_is_free() {
    let stage = Stage::new();
    let journal = stage.open();
    let (sender, ready) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let path = stage.path();
    let other = std::thread::spawn(move || {
        let other = Connection::open(path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        sender.send(()).unwrap();
        released.recv_timeout(PATIENCE).unwrap();
        other.execute_batch("ROLLBACK").unwrap();
    });
    ready.recv_timeout(PATIENCE).unwrap();
    let place = accept(&journal, 0);
    let standing = until(&journal, |now| now.failing.is_some());
    let why = standing.failing.unwrap();
    assert!(
        why.contains("locked") && why.contains("end the other program"),
        "{why}"
    );
    assert!(standing.durable < place);
    assert!(
        journal.find("bg_00000000").is_some(),
        "decided all the same"
    );
    let later = accept(&journal, 1);
    release.send(()).unwrap();
    other.join().unwrap();
    assert_eq!(until(&journal, |now| now.durable >= later).failing, None);
    drop(journal);
    assert_eq!(stage.open().load().unwrap().tasks.len(), 2);
}

#[test]
fn a_file_that_was_taken_away_is_missed_at_once() {
    let stage = Stage::new();
    let journal = stage.open();
    let first = accept(&journal, 0);
    until(&journal, |now| now.durable >= first);
    let aside = stage.path().with_extension("aside");
    std::fs::rename(stage.path(), &aside).unwrap();
    let second = accept(&journal, 1);
    let standing = until(&journal, |now| now.failing.is_some());
    let why = standing.failing.unwrap();
    assert!(why.contains("removed or replaced"), "{why}");
    assert!(standing.durable < second);
    std::fs::rename(&aside, stage.path()).unwrap();
    assert_eq!(until(&journal, |now| now.durable >= second).failing, None);
}

#[test]
fn a_journal_that_ends_without_the_disk_says_how_much_was_not_written() {
    let stage = Stage::new();
    let journal = stage.open();
    let first = accept(&journal, 0);
    until(&journal, |now| now.durable >= first);
    std::fs::remove_file(stage.path()).unwrap();
    accept(&journal, 1);
    accept(&journal, 2);
    let begun = std::time::Instant::now();
    assert_eq!(journal.close(), 2);
    assert!(begun.elapsed() < PATIENCE);
}
