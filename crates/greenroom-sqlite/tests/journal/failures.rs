//! Failures while a journal is in use: each is reported, loses nothing and ends without a restart.

use std::sync::mpsc;

use greenroom::ports::journal::Journal;
use rusqlite::Connection;

use crate::support::{TIMEOUT, TestJournal, accept, until};

#[test]
fn locked_file_is_written_once_it_is_free() {
    let fixture = TestJournal::new();
    let journal = fixture.open();
    let (sender, ready) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let path = fixture.path();
    let other = std::thread::spawn(move || {
        let other = Connection::open(path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        sender.send(()).unwrap();
        released.recv_timeout(TIMEOUT).unwrap();
        other.execute_batch("ROLLBACK").unwrap();
    });
    ready.recv_timeout(TIMEOUT).unwrap();
    let lsn = accept(&journal, 0);
    let status = until(&journal, |now| now.failing.is_some());
    let why = status.failing.unwrap();
    assert!(
        why.contains("locked") && why.contains("end the other program"),
        "{why}"
    );
    assert!(status.durable < lsn);
    assert!(
        journal.find("bg_00000000").is_some(),
        "decided before it is durable"
    );
    let later = accept(&journal, 1);
    release.send(()).unwrap();
    other.join().unwrap();
    assert_eq!(until(&journal, |now| now.durable >= later).failing, None);
    drop(journal);
    assert_eq!(fixture.open().load().unwrap().tasks.len(), 2);
}

#[test]
fn removed_file_is_detected_at_once() {
    let fixture = TestJournal::new();
    let journal = fixture.open();
    let first = accept(&journal, 0);
    until(&journal, |now| now.durable >= first);
    let aside = fixture.path().with_extension("aside");
    std::fs::rename(fixture.path(), &aside).unwrap();
    let second = accept(&journal, 1);
    let status = until(&journal, |now| now.failing.is_some());
    let why = status.failing.unwrap();
    assert!(why.contains("removed or replaced"), "{why}");
    assert!(status.durable < second);
    std::fs::rename(&aside, fixture.path()).unwrap();
    assert_eq!(until(&journal, |now| now.durable >= second).failing, None);
}

#[test]
fn close_returns_the_number_of_unwritten_appends() {
    let fixture = TestJournal::new();
    let journal = fixture.open();
    let first = accept(&journal, 0);
    until(&journal, |now| now.durable >= first);
    std::fs::remove_file(fixture.path()).unwrap();
    accept(&journal, 1);
    accept(&journal, 2);
    let begun = std::time::Instant::now();
    assert_eq!(journal.close(), 2);
    assert!(begun.elapsed() < TIMEOUT);
}
