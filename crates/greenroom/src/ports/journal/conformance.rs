//! The conformance suite of journals: functions that a journal's tests call with a factory. Behind the feature
//! `conformance`; the product does not use it. Times are current, since a journal removes old entries.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::{Changed, ChangesFrom, Journal, JournalEntry, Lsn, RecoveredState, RecoveredTask};
use crate::domain::batch::CompletionReport;
use crate::domain::idempotency::LaunchKey;
use crate::domain::ids::{NoticeId, Run, SessionId, TaskId};
use crate::domain::notice::{NoticeFacts, NoticeKind, SettledFact};
use crate::domain::outbox::{DeliveryStatus, Outbox, OutboxMessage, OutboxRecord};
use crate::domain::session_owner::SessionOwner;
use crate::domain::task::{Launch, Task, TaskStatus};
use crate::domain::time::Timestamp;

/// The retention of journals under test.
pub const RETENTION: Duration = Duration::from_secs(14 * 24 * 3600);

/// Creates or opens a journal.
pub type Make<'a> = &'a dyn Fn() -> Arc<dyn Journal>;

static BASE: LazyLock<i64> = LazyLock::new(|| {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = elapsed.map_or(0, |elapsed| elapsed.as_millis());
    i64::try_from(millis).unwrap_or(0)
});

/// Returns the time `millis` milliseconds after the start of the tests.
pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(*BASE + millis)
}

/// Returns a task as a launch creates it.
pub fn task(id: &str, parent: Option<&str>) -> Task {
    let launch = Launch {
        description: format!("the work of {id}"),
        prompt: format!("do what {id} is for"),
        agent: "general".to_owned(),
        parent_session: parent.map(SessionId::new),
        skill_content: Some("how it is done".to_owned()),
        ..Launch::default()
    };
    Task::accept(TaskId::new(id), launch, 1, at(0))
}

/// Returns the task in another state, with a session unless it is pending.
///
/// # Panics
/// Never: a task stays valid with another state.
pub fn in_state(task: &Task, status: TaskStatus) -> Task {
    let mut record = serde_json::to_value(task).expect("a task has a JSON form");
    record["status"] = json!(status);
    if status != TaskStatus::Pending {
        record["sessionID"] = json!(format!("ses_{}", task.id));
        record["startedAt"] = json!(at(1));
    }
    if status.is_terminal() {
        record["completedAt"] = json!(at(2));
    }
    serde_json::from_value(record).expect("a task with another state")
}

/// Returns an entry with the task's record, without a change of its state.
pub fn record(accepted: u64, task: &Task) -> JournalEntry {
    JournalEntry::Task {
        accepted,
        queue_seq: accepted,
        task: Arc::new(task.clone()),
        changed: None,
    }
}

/// Returns an entry with the task's record and a change of its state.
pub fn change(accepted: u64, task: &Task, number: u64, from: Option<TaskStatus>) -> JournalEntry {
    JournalEntry::Task {
        accepted,
        queue_seq: accepted,
        task: Arc::new(task.clone()),
        changed: Some(Changed { number, from }),
    }
}

/// Returns a report on a task.
pub fn report(task: &str) -> CompletionReport {
    let fact = SettledFact {
        task: TaskId::new(task),
        status: TaskStatus::Completed,
        description: format!("the work of {task}").into(),
        duration: "5s".into(),
        error: None,
    };
    CompletionReport {
        fact,
        accepted: 1,
        parent_agent: None,
        parent_model: None,
    }
}

/// Returns a message to a parent.
pub fn message(id: &str, kind: NoticeKind, of: &[&str], status: DeliveryStatus) -> OutboxMessage {
    let reports: Vec<CompletionReport> = of.iter().map(|task| self::report(task)).collect();
    OutboxMessage {
        id: NoticeId::new(id),
        facts: NoticeFacts {
            kind,
            tasks: reports.iter().map(|report| report.fact.clone()).collect(),
            remaining: 0,
        }
        .into(),
        reports: reports.into(),
        retry_of: None,
        since: at(2),
        status,
        at: at(2),
        turn_error: None,
        turn_is_watched: false,
    }
}

fn joined(parent: &str, task: &str) -> JournalEntry {
    JournalEntry::Joined {
        parent: parent.into(),
        task: task.into(),
        run: Run::FIRST,
        directory: Some("/work".into()),
    }
}

fn settled(parent: &str, task: &str) -> JournalEntry {
    JournalEntry::Settled {
        parent: parent.into(),
        report: Box::new(report(task)),
    }
}

fn delivery(parent: &str, id: &str, status: DeliveryStatus) -> JournalEntry {
    JournalEntry::Delivery {
        watched: false,
        parent: parent.into(),
        id: id.into(),
        status,
        at: at(3),
    }
}

/// Waits until the append `lsn` is durable.
///
/// # Panics
/// If the journal is closed.
pub fn until_durable(journal: &dyn Journal, lsn: Lsn) {
    let mut status = journal.status();
    let durable = status.wait_for(|status| status.durable >= lsn);
    futures::executor::block_on(durable).expect("the journal is open");
}

/// The state of a journal in a form that can be compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparable {
    /// The tasks in memory, in the order of acceptance.
    pub tasks: Vec<RecoveredTask>,
    /// The ids of the tasks that have left memory, sorted.
    pub left: Vec<TaskId>,
    /// The outboxes with something open or pending, as written to disk.
    pub outboxes: Vec<(SessionId, OutboxRecord)>,
    /// The launch keys, oldest first.
    pub keys: Vec<LaunchKey>,
    /// The aborts without a judgement, by session.
    pub aborts: Vec<(SessionId, Timestamp)>,
    /// The number of the newest change of a task's state.
    pub newest_change: u64,
}

/// Returns the comparable form of a recovered state.
pub fn comparable(recovered: RecoveredState) -> Comparable {
    let mut left: Vec<TaskId> = recovered.left.iter().map(|task| task.id.clone()).collect();
    left.sort();
    let record = |(parent, outbox): (SessionId, Outbox)| (parent, OutboxRecord::from(outbox));
    Comparable {
        tasks: recovered.tasks,
        left,
        outboxes: recovered.outboxes.into_iter().map(record).collect(),
        keys: recovered.keys,
        aborts: recovered.aborts,
        newest_change: recovered.newest_change,
    }
}

fn recovered(journal: &dyn Journal) -> Comparable {
    comparable(journal.load().expect("the journal can be read"))
}

/// Runs every check of one journal in one process.
pub fn all(make: Make<'_>) {
    append_is_visible_at_once(make);
    lsns_rise_and_become_durable(make);
    task_is_found_in_and_after_memory(make);
    run_markers_end_with_memory(make);
    outbox_is_fold_of_its_entries(make);
    keys_stay_unless_launch_was_refused(make);
    aborts_stay_until_judged(make);
    turn_error_stays_with_its_message(make);
    timeline_is_ordered_and_bounded(make);
    task_is_removed_after_retention(make);
}

/// Runs every check of a journal that is reopened. `open` opens the same journal each time, after the last one was
/// dropped.
pub fn all_durable(open: Make<'_>) {
    state_survives_reopen(open);
    changes_are_read_after_reopen(open);
    owners_are_read_after_reopen(open);
}

/// Checks that appended entries are visible before they are durable.
pub fn append_is_visible_at_once(make: Make<'_>) {
    let journal = make();
    let new = task("bg_0000000a", Some("ses_p"));
    let lsn = journal.append(
        at(0),
        vec![change(1, &new, 7, None), joined("ses_p", "bg_0000000a")],
    );
    assert_eq!(journal.last_lsn(), lsn);
    assert_eq!(journal.find("bg_0000000a"), Some(new));
    let outbox = journal.outbox(&"ses_p".into()).expect("an outbox");
    assert!(outbox.has(&"bg_0000000a".into()));
    let recovered = journal.load().expect("the journal can be read");
    assert_eq!(recovered.tasks.len(), 1);
    assert_eq!(recovered.outboxes.len(), 1);
    assert_eq!(recovered.newest_change, 7);
}

/// Checks that log sequence numbers rise by one and become durable.
pub fn lsns_rise_and_become_durable(make: Make<'_>) {
    let journal = make();
    let before = journal.last_lsn();
    let mut last = before;
    for number in 1..=50 {
        let task = task(&format!("bg_{number:08x}"), None);
        let lsn = journal.append(at(number), vec![record(number.cast_unsigned(), &task)]);
        assert_eq!(lsn.0, last.0 + 1);
        last = lsn;
    }
    until_durable(&*journal, last);
    let status = journal.status().borrow().clone();
    assert_eq!(status.durable, last);
    assert_eq!(status.failing, None);
    let tasks = journal.load().expect("the journal can be read").tasks;
    let accepted: Vec<u64> = tasks.iter().map(|task| task.accepted).collect();
    assert!(accepted.is_sorted());
    assert_eq!(accepted.len(), 50);
}

/// Checks that a task is found by its id always, and by its session or an id prefix after it has left memory.
pub fn task_is_found_in_and_after_memory(make: Make<'_>) {
    let journal = make();
    let ended = |id: &str| in_state(&task(id, None), TaskStatus::Completed);
    let (first, second) = (ended("bg_aa000001"), ended("bg_aa000002"));
    journal.append(at(1), vec![record(1, &first)]);
    journal.append(at(2), vec![record(2, &second)]);
    assert_eq!(journal.find("bg_aa000001").as_ref(), Some(&first));
    assert_eq!(journal.find("bg_00000000"), None);
    assert!(journal.contains(&"bg_aa000001".into()));
    assert!(!journal.contains(&"bg_00000000".into()));
    assert!(!journal.contains(&"bg_aa".into()), "a prefix is not an id");
    let forget = |id: &str, millis| vec![JournalEntry::Forgotten(id.into(), at(millis))];
    let lsn = journal.append(at(3), forget("bg_aa000001", 3));
    for wait in [false, true] {
        if wait {
            until_durable(&*journal, lsn);
        }
        assert_eq!(journal.find("bg_aa000001").as_ref(), Some(&first));
        assert!(journal.contains(&"bg_aa000001".into()));
        assert_eq!(journal.find("ses_bg_aa000001").as_ref(), Some(&first));
        assert_eq!(journal.find("bg_aa").as_ref(), Some(&first));
        assert_eq!(journal.find("bg"), None, "the prefix is too short");
        assert_eq!(journal.find(""), None);
    }
    journal.append(at(4), forget("bg_aa000002", 4));
    assert_eq!(journal.find("bg_aa"), None, "two tasks match");
    assert_eq!(journal.find("bg_aa000002").as_ref(), Some(&second));
    let recovered = journal.load().expect("the journal can be read");
    assert_eq!(recovered.tasks, []);
    let left: Vec<&str> = recovered.left.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(left, ["bg_aa000001", "bg_aa000002"]);

    let resumed = in_state(&first, TaskStatus::Pending);
    journal.append(at(5), vec![record(3, &resumed)]);
    assert_eq!(journal.find("bg_aa000001"), Some(resumed));
    assert_eq!(
        journal.load().expect("the journal can be read").tasks.len(),
        1
    );
}

/// Checks that the granted, prompted and aborted run are kept for tasks in memory only.
pub fn run_markers_end_with_memory(make: Make<'_>) {
    let journal = make();
    let id = || TaskId::new("bg_0000000b");
    let new = task("bg_0000000b", None);
    journal.append(at(1), vec![record(1, &new)]);
    journal.append(at(2), vec![JournalEntry::Granted(id(), Run(1))]);
    journal.append(
        at(3),
        vec![record(1, &new), JournalEntry::Prompted(id(), Run(1))],
    );
    journal.append(at(4), vec![JournalEntry::Aborted(id(), Run(1))]);
    let run_markers = || {
        let task = journal
            .load()
            .expect("the journal can be read")
            .tasks
            .remove(0);
        (task.granted, task.prompted, task.aborted)
    };
    assert_eq!(run_markers(), (Some(Run(1)), Some(Run(1)), Some(Run(1))));
    journal.append(at(5), vec![JournalEntry::Forgotten(id(), at(5))]);
    journal.append(at(6), vec![JournalEntry::Granted(id(), Run(2))]);
    journal.append(at(7), vec![record(2, &new)]);
    assert_eq!(run_markers(), (None, None, None));
}

/// Checks that an outbox equals the fold of its entries, and is settled in the end.
pub fn outbox_is_fold_of_its_entries(make: Make<'_>) {
    let journal = make();
    let mut expected = Outbox::default();
    let parent = SessionId::new("ses_p");
    let final_message = Box::new(message(
        "ntc_2",
        NoticeKind::Final,
        &["bg_1", "bg_2"],
        DeliveryStatus::Pending,
    ));
    let individual = Box::new(message(
        "ntc_1",
        NoticeKind::Individual,
        &["bg_1"],
        DeliveryStatus::Sending,
    ));
    let changes = vec![
        joined("ses_p", "bg_1"),
        joined("ses_p", "bg_2"),
        settled("ses_p", "bg_1"),
        JournalEntry::Sending {
            parent: parent.clone(),
            message: individual,
        },
        delivery("ses_p", "ntc_1", DeliveryStatus::Delivered),
        settled("ses_p", "bg_2"),
        JournalEntry::Closed {
            parent: parent.clone(),
            message: final_message,
            tasks: vec!["bg_1".into(), "bg_2".into()],
        },
        delivery("ses_p", "ntc_2", DeliveryStatus::Sending),
    ];
    for change in changes {
        expected.apply(change.clone());
        journal.append(at(1), vec![change]);
        assert_eq!(journal.outbox(&parent).as_ref(), Some(&expected));
        assert_eq!(
            recovered(&*journal).outboxes.len(),
            1,
            "something is open or pending"
        );
    }
    journal.append(
        at(4),
        vec![delivery("ses_p", "ntc_2", DeliveryStatus::Delivered)],
    );
    assert_eq!(recovered(&*journal).outboxes, []);
    let outbox = journal.outbox(&parent).expect("the outbox is remembered");
    assert_eq!(outbox.messages.len(), 2);
    assert_eq!(journal.outbox(&"ses_other".into()), None);
    journal.append(at(5), vec![JournalEntry::Silenced(parent, true)]);
    assert_eq!(recovered(&*journal).outboxes.len(), 1, "it is silenced");
}

/// Checks that an abort is recovered until its judgement is recorded, and the newest time of each session counts.
pub fn aborts_stay_until_judged(make: Make<'_>) {
    let journal = make();
    let received =
        |session: &str, millis| JournalEntry::AbortReceived(SessionId::new(session), at(millis));
    journal.append(at(1), vec![received("ses_b", 1), received("ses_a", 2)]);
    journal.append(at(3), vec![received("ses_b", 3)]);
    let aborts = || recovered(&*journal).aborts;
    assert_eq!(aborts(), [("ses_a".into(), at(2)), ("ses_b".into(), at(3))]);
    journal.append(at(4), vec![JournalEntry::AbortJudged("ses_b".into())]);
    assert_eq!(aborts(), [("ses_a".into(), at(2))]);
}

/// Checks that the error of a turn stays with its delivered message.
pub fn turn_error_stays_with_its_message(make: Make<'_>) {
    let journal = make();
    let parent = SessionId::new("ses_p");
    let sent = message("ntc_1", NoticeKind::Continue, &[], DeliveryStatus::Pending);
    journal.append(
        at(1),
        vec![JournalEntry::Closed {
            parent: parent.clone(),
            message: Box::new(sent),
            tasks: Vec::new(),
        }],
    );
    journal.append(
        at(2),
        vec![delivery("ses_p", "ntc_1", DeliveryStatus::Delivered)],
    );
    journal.append(
        at(3),
        vec![JournalEntry::TurnFailed {
            parent: parent.clone(),
            id: NoticeId::new("ntc_1"),
            error: "overloaded".to_owned(),
            at: at(3),
        }],
    );
    let outbox = journal.outbox(&parent).expect("the outbox is remembered");
    let message = &outbox.messages[0];
    assert_eq!(message.turn_error.as_deref(), Some("overloaded"));
    assert_eq!(message.status, DeliveryStatus::Delivered);
}

/// Checks that keys are recovered in order, and that the key of a refused launch is free.
pub fn keys_stay_unless_launch_was_refused(make: Make<'_>) {
    let journal = make();
    let key = |key: &str, task: &str, millis| {
        LaunchKey::new(key.to_owned(), &Launch::default(), task.into(), at(millis))
    };
    let keys = [
        key("a", "bg_1", 1),
        key("b", "bg_2", 2),
        key("a", "bg_3", 3),
    ];
    for key in &keys {
        journal.append(key.at, vec![JournalEntry::Key(key.clone())]);
    }
    assert_eq!(recovered(&*journal).keys, keys);
    journal.append(at(4), vec![JournalEntry::Unaccepted("bg_2".into())]);
    assert_eq!(
        recovered(&*journal).keys,
        [keys[0].clone(), keys[2].clone()]
    );
}

/// Checks that the timeline of a task includes its messages, in order and within a bound, durable or not.
pub fn timeline_is_ordered_and_bounded(make: Make<'_>) {
    let journal = make();
    let id = TaskId::new("bg_0000000c");
    let new = task("bg_0000000c", Some("ses_p"));
    journal.append(at(1), vec![change(1, &new, 1, None)]);
    let lsn = journal.append(at(2), vec![JournalEntry::Granted(id.clone(), Run(1))]);
    let individual = message(
        "ntc_9",
        NoticeKind::Final,
        &["bg_0000000c"],
        DeliveryStatus::Sending,
    );
    journal.append(
        at(3),
        vec![JournalEntry::Sending {
            parent: "ses_p".into(),
            message: Box::new(individual),
        }],
    );
    let timeline = |journal: &dyn Journal| -> Vec<(i64, String)> {
        let timeline = journal.timeline(&id).into_iter();
        timeline
            .map(|(when, entry)| {
                (
                    when.as_millis() - at(0).as_millis(),
                    entry.what.into_owned(),
                )
            })
            .collect()
    };
    let entry = |millis, what: &str| (millis, what.to_owned());
    let mut expected = vec![
        entry(1, "accepted"),
        entry(2, "slot granted"),
        entry(3, "notifying the parent"),
    ];
    assert_eq!(timeline(&*journal), expected);
    until_durable(&*journal, lsn);
    let lsn = journal.append(
        at(4),
        vec![delivery("ses_p", "ntc_9", DeliveryStatus::Delivered)],
    );
    expected.push(entry(4, "parent notified"));
    assert_eq!(timeline(&*journal), expected);
    until_durable(&*journal, lsn);
    assert_eq!(timeline(&*journal), expected);
    let mut last = lsn;
    for millis in 10..500 {
        last = journal.append(at(millis), vec![JournalEntry::Granted(id.clone(), Run(2))]);
    }
    let entries = timeline(&*journal);
    until_durable(&*journal, last);
    assert_eq!(timeline(&*journal), entries);
    assert!(entries.len() < 200, "{} entries", entries.len());
    assert_eq!(entries.last(), Some(&entry(499, "slot granted")));
}

/// Checks that a task is removed once it has been out of memory for longer than the retention.
pub fn task_is_removed_after_retention(make: Make<'_>) {
    let journal = make();
    let forget = |id: &str, when: Timestamp| {
        let ended = in_state(&task(id, None), TaskStatus::Completed);
        journal.append(
            when,
            vec![record(1, &ended), JournalEntry::Forgotten(id.into(), when)],
        )
    };
    forget("bg_00000001", at(0));
    let lsn = forget("bg_00000002", at(0) + RETENTION);
    until_durable(&*journal, lsn);
    assert!(journal.find("bg_00000001").is_some());
    let lsn = forget("bg_00000003", at(1) + RETENTION);
    until_durable(&*journal, lsn);
    assert_eq!(journal.find("bg_00000001"), None);
    assert!(!journal.contains(&"bg_00000001".into()));
    assert!(journal.contains(&"bg_00000002".into()));
    assert!(journal.find("bg_00000002").is_some());
}

/// Checks that a reopened journal has the same state.
pub fn state_survives_reopen(open: Make<'_>) {
    let journal = open();
    let base = journal
        .load()
        .expect("the journal can be read")
        .newest_change;
    let new = task("bg_dd000001", Some("ses_d"));
    let running = in_state(&new, TaskStatus::Running);
    let removed = in_state(&task("bg_dd000002", None), TaskStatus::Error);
    let key = LaunchKey::new(
        "k".to_owned(),
        &Launch::default(),
        "bg_dd000001".into(),
        at(1),
    );
    let id = || TaskId::new("bg_dd000001");
    journal.append(
        at(1),
        vec![
            change(11, &new, base + 1, None),
            JournalEntry::Key(key),
            joined("ses_d", "bg_dd000001"),
        ],
    );
    journal.append(at(2), vec![JournalEntry::Granted(id(), Run(1))]);
    let from = Some(TaskStatus::Pending);
    journal.append(at(3), vec![change(11, &running, base + 2, from)]);
    journal.append(at(4), vec![JournalEntry::Prompted(id(), Run(1))]);
    journal.append(
        at(5),
        vec![
            record(12, &removed),
            JournalEntry::Forgotten("bg_dd000002".into(), at(5)),
        ],
    );
    for number in 0..300 {
        let individual = format!("ntc_d{number}");
        let message = message(
            &individual,
            NoticeKind::Individual,
            &["bg_x"],
            DeliveryStatus::Sending,
        );
        let sending = JournalEntry::Sending {
            parent: "ses_d".into(),
            message: Box::new(message),
        };
        journal.append(at(6), vec![sending]);
        journal.append(
            at(7),
            vec![delivery("ses_d", &individual, DeliveryStatus::Delivered)],
        );
    }
    let (before, timeline) = (recovered(&*journal), journal.timeline(&id()));
    // Dropping the journal writes the queued entries.
    drop(journal);
    for _ in 0..2 {
        let journal = open();
        assert_eq!(recovered(&*journal), before);
        assert_eq!(journal.timeline(&id()), timeline);
        assert_eq!(journal.find("bg_dd000001").as_ref(), Some(&running));
        assert_eq!(journal.find("bg_dd000002").as_ref(), Some(&removed));
        assert_eq!(journal.find("ses_bg_dd000002").as_ref(), Some(&removed));
        assert_eq!(journal.find("bg_dd000002").as_ref(), Some(&removed));
        assert_eq!(journal.last_lsn(), journal.status().borrow().durable);
    }
    // The parent becomes settled and joins again: its earlier messages stay.
    let journal = open();
    journal.append(at(8), vec![JournalEntry::ParentGone("ses_d".into(), at(8))]);
    drop(journal);
    let journal = open();
    assert_eq!(recovered(&*journal).outboxes, []);
    journal.append(at(9), vec![joined("ses_d", "bg_dd000009")]);
    let outbox = journal.outbox(&"ses_d".into()).expect("an outbox");
    assert_eq!(outbox.messages.len(), 100);
    assert_eq!(outbox.open(), 1);
    let before = recovered(&*journal);
    drop(journal);
    assert_eq!(recovered(&*open()), before);
}

/// Checks that changes can be read from any number or time, complete and in order.
pub fn changes_are_read_after_reopen(open: Make<'_>) {
    let journal = open();
    let base = journal
        .load()
        .expect("the journal can be read")
        .newest_change;
    let new = task("bg_ee000001", None);
    let running = in_state(&new, TaskStatus::Running);
    let ended = in_state(&running, TaskStatus::Completed);
    let append = |millis, task: &Task, number, from| {
        journal.append(at(millis), vec![change(21, task, base + number, from)])
    };
    append(101, &new, 1, None);
    append(102, &running, 2, Some(TaskStatus::Pending));
    append(103, &ended, 5, Some(TaskStatus::Running));
    drop(journal);
    let journal = open();
    let read = |from, limit| {
        let changes = journal.changes(from, limit).expect("the changes are kept");
        let changes = changes.into_iter();
        changes
            .map(|recovered| {
                (
                    recovered.changed.number - base,
                    recovered.at,
                    Task::clone(&recovered.task),
                )
            })
            .collect::<Vec<_>>()
    };
    let whole = [
        (1, at(101), new),
        (2, at(102), running),
        (5, at(103), ended),
    ];
    assert_eq!(read(ChangesFrom::After(base), 10), whole);
    assert_eq!(read(ChangesFrom::After(base), 2), whole[..2]);
    assert_eq!(read(ChangesFrom::After(base + 2), 10), whole[2..]);
    assert_eq!(read(ChangesFrom::After(base + 3), 10), whole[2..]);
    assert_eq!(read(ChangesFrom::After(base + 5), 10), []);
    assert_eq!(read(ChangesFrom::After(u64::MAX), 10), []);
    assert_eq!(read(ChangesFrom::Since(at(101)), 10), whole[1..]);
    assert_eq!(read(ChangesFrom::Since(at(103)), 10), []);
    let from = journal.changes(ChangesFrom::After(base + 2), 1);
    let from = from.and_then(|changes| Some(changes.first()?.changed.from));
    assert_eq!(from, Some(Some(TaskStatus::Running)));
}

/// Checks that the owners of sessions survive a reopen, the longest unchanged first.
pub fn owners_are_read_after_reopen(open: Make<'_>) {
    let owner = |pid| {
        let directory = "/p".into();
        Some(SessionOwner { pid, directory })
    };
    let journal = open();
    for (session, pid) in [
        ("ses_a", Some(1)),
        ("ses_b", Some(1)),
        ("ses_a", Some(2)),
        ("ses_c", Some(3)),
        ("ses_c", None),
    ] {
        let entry = JournalEntry::Owner(session.into(), pid.and_then(owner));
        let lsn = journal.append(at(1), vec![entry]);
        until_durable(&*journal, lsn);
    }
    drop(journal);
    let read = open().owners().expect("the journal can be read");
    let owned = |session: &str, pid| (SessionId::from(session), owner(pid).expect("a process"));
    assert_eq!(read, [owned("ses_b", 1), owned("ses_a", 2)]);
}
