//! Retention: rows of tasks that were evicted longer ago than the retention are deleted; rows that are still needed stay.

use std::time::{Duration, Instant};

use greenroom::domain::idempotency::LaunchKey;
use greenroom::domain::notice::NoticeKind;
use greenroom::domain::outbox::DeliveryStatus;
use greenroom::domain::task::{Launch, TaskStatus};
use greenroom::domain::time::Timestamp;
use greenroom::ports::journal::conformance::{at, change, in_state, message, task};
use greenroom::ports::journal::{ChangesFrom, Journal, JournalEntry};
use greenroom_sqlite::maintenance::{self, Purge, Stats};
use rusqlite::Connection;

use crate::support::{TIMEOUT, TestJournal};

const DAY: i64 = 24 * 3600 * 1000;

fn days_ago(days: i64) -> Timestamp {
    at(-days * DAY)
}

/// Appends a task that was launched, reported to its parent and evicted that many days ago.
fn append_expired(journal: &dyn Journal, number: u64, days: i64) {
    let id = format!("bg_{number:08x}");
    let parent = format!("ses_p{number}");
    let when = days_ago(days);
    let new = task(&id, Some(&parent));
    let ended = in_state(&new, TaskStatus::Completed);
    let note = format!("ntc_{number}");
    let key = LaunchKey::new(
        format!("key {number}"),
        &Launch::default(),
        id.as_str().into(),
        when,
    );
    let from = Some(TaskStatus::Running);
    journal.append(
        when,
        vec![
            change(number, &new, number * 2 + 1, None),
            JournalEntry::Key(key),
        ],
    );
    journal.append(when, vec![change(number, &ended, number * 2 + 2, from)]);
    journal.append(
        when,
        vec![
            JournalEntry::Sending {
                parent: parent.as_str().into(),
                message: Box::new(message(
                    &note,
                    NoticeKind::Final,
                    &[&id],
                    DeliveryStatus::Sending,
                )),
            },
            JournalEntry::Delivery {
                watched: false,
                parent: parent.as_str().into(),
                id: note.into(),
                status: DeliveryStatus::Delivered,
                at: when,
            },
        ],
    );
    journal.append(when, vec![JournalEntry::Forgotten(id.into(), when)]);
}

fn rows(fixture: &TestJournal, table: &str) -> i64 {
    let db = Connection::open(fixture.path()).unwrap();
    db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
        row.get(0)
    })
    .unwrap()
}

fn stats_until(fixture: &TestJournal, so: impl Fn(&Stats) -> bool) -> Stats {
    let begin = Instant::now();
    loop {
        let stats = maintenance::stats(&fixture.path()).unwrap();
        if so(&stats) {
            return stats;
        }
        assert!(begin.elapsed() < TIMEOUT, "{stats:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn expired_rows_are_deleted_at_the_start() {
    let fixture = TestJournal::new();
    let journal = fixture.open();
    for number in 0..700 {
        append_expired(&journal, number, if number < 650 { 20 } else { 3 });
    }
    drop(journal);
    let journal = fixture.open();
    // Keys of three days ago have expired too.
    let stats = stats_until(&fixture, |stats| {
        stats.left == 50 && stats.changes == 100 && stats.keys == 0
    });
    assert_eq!(stats.open, 0);
    assert!(journal.find("bg_00000000").is_none());
    assert!(journal.find("bg_0000028a").is_some());
    assert_eq!(journal.timeline(&"bg_00000000".into()), []);
    assert_eq!(journal.timeline(&"bg_0000028a".into()).len(), 5);
    let of_messages = "stories WHERE subject >= 'ntc_'";
    stats_until(&fixture, |_| {
        rows(&fixture, of_messages) == 50 && rows(&fixture, "ledger") == 100
    });
    assert_eq!(rows(&fixture, "texts"), 50);
    assert!(journal.outbox(&"ses_p0".into()).is_none());
    assert!(journal.outbox(&"ses_p650".into()).is_some());

    assert_eq!(
        journal.changes(ChangesFrom::After(0), 9),
        None,
        "not all are kept"
    );
    assert_eq!(journal.changes(ChangesFrom::After(1299), 9), None);
    assert_eq!(
        journal.changes(ChangesFrom::After(1300), 9).unwrap().len(),
        9
    );
    let first = journal
        .changes(ChangesFrom::Since(days_ago(30)), 1)
        .unwrap();
    assert_eq!(first[0].changed.number, 1301);
    assert_eq!(journal.load().unwrap().newest_change, 1400);
}

#[test]
fn change_numbers_continue_after_deleted_changes() {
    let fixture = TestJournal::new();
    append_expired(&fixture.open(), 7, 20);
    let journal = fixture.open();
    stats_until(&fixture, |stats| stats.changes == 0);
    drop(journal);
    assert_eq!(fixture.open().load().unwrap().newest_change, 16);
}

#[test]
fn purge_deletes_ended_tasks_without_waiters() {
    let fixture = TestJournal::new();
    let journal = fixture.open();
    append_expired(&journal, 1, 5);
    append_expired(&journal, 2, 1);
    let parent = |number: u64| format!("ses_q{number}");
    let ended = |number: u64, id: &str| {
        let task = in_state(&task(id, Some(&parent(number))), TaskStatus::Completed);
        journal.append(at(0), vec![change(number, &task, 90 + number, None)]);
    };
    // In memory: a task of a settled parent, a task of a parent that waits for another task, and the parent of an open task.
    ended(3, "bg_in_memory");
    ended(4, "bg_of_a_batch");
    ended(5, "bg_above");
    for of in [parent(4), "ses_bg_above".to_owned()] {
        let running = in_state(
            &task(&format!("bg_for_{of}"), Some(&of)),
            TaskStatus::Running,
        );
        let joined = JournalEntry::Joined {
            parent: of.as_str().into(),
            task: running.id.clone(),
            run: running.run,
            directory: None,
        };
        journal.append(at(0), vec![change(6, &running, 99, None), joined]);
    }
    drop(journal);
    let path = fixture.path();
    let three_days = Purge::OlderThan(Duration::from_secs(3 * 24 * 3600));
    assert_eq!(maintenance::purge(&path, three_days).unwrap(), 1);
    assert_eq!(maintenance::purge(&path, Purge::AllEnded).unwrap(), 2);
    assert_eq!(maintenance::purge(&path, Purge::AllEnded).unwrap(), 0);
    let journal = fixture.open();
    for (id, stays) in [
        ("bg_00000001", false),
        ("bg_00000002", false),
        ("bg_in_memory", false),
        ("bg_of_a_batch", true),
        ("bg_above", true),
        ("bg_for_ses_q4", true),
        ("bg_for_ses_bg_above", true),
    ] {
        assert_eq!(journal.find(id).is_some(), stays, "{id}");
    }
    assert_eq!(journal.load().unwrap().outboxes.len(), 2);
    let mut lines = Vec::new();
    assert_eq!(maintenance::export(&path, &mut lines).unwrap(), 4);
    drop(journal);
    let (before, after) = maintenance::vacuum(&path).unwrap();
    assert!(after <= before);
}
