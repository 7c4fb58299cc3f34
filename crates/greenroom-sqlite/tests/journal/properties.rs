//! Random entries with restarts in between: the journal on disk has the same content as the journal in memory.

use std::sync::Arc;

use greenroom::domain::idempotency::LaunchKey;
use greenroom::domain::ids::Run;
use greenroom::domain::notice::NoticeKind;
use greenroom::domain::outbox::{DeliveryStatus, Outbox, OutboxRecord};
use greenroom::domain::task::{Launch, TaskStatus};
use greenroom::domain::timeline::TimelineEntry;
use greenroom::ports::journal::conformance::{
    RETENTION, at, change, in_state, message, record, report, task,
};
use greenroom::ports::journal::{Journal, JournalEntry, MemoryJournal};
use proptest::prelude::*;

use crate::support::{TestJournal, contents};

/// Few ids, so that entries concern the same tasks.
fn ids() -> impl Strategy<Value = String> {
    (0..6u32).prop_map(|n| format!("bg_0000000{n}"))
}

fn parents() -> impl Strategy<Value = String> {
    (0..3u32).prop_map(|n| format!("ses_p{n}"))
}

fn notices() -> impl Strategy<Value = String> {
    (0..4u32).prop_map(|n| format!("ntc_{n}"))
}

fn statuses() -> impl Strategy<Value = DeliveryStatus> {
    prop_oneof![
        Just(DeliveryStatus::Pending),
        Just(DeliveryStatus::Sending),
        Just(DeliveryStatus::Delivered),
        Just(DeliveryStatus::Dropped("gone".to_owned())),
    ]
}

fn states() -> impl Strategy<Value = TaskStatus> {
    proptest::sample::select(TaskStatus::ALL.to_vec())
}

fn kinds() -> impl Strategy<Value = NoticeKind> {
    prop_oneof![
        Just(NoticeKind::Individual),
        Just(NoticeKind::Final),
        Just(NoticeKind::Continue),
    ]
}

/// An entry; changes get their numbers when they are appended.
fn entries() -> impl Strategy<Value = JournalEntry> {
    prop_oneof![
        4 => (0..6u64, states(), 0..50u64, any::<bool>()).prop_map(|(n, state, accepted, changed)| {
            // No two tasks have the same position.
            let (id, accepted) = (format!("bg_0000000{n}"), n * 100 + accepted);
            let task = in_state(&task(&id, None), state);
            if changed {
                change(accepted, &task, 0, None)
            } else {
                record(accepted, &task)
            }
        }),
        1 => (ids(), 1..4u32).prop_map(|(id, run)| JournalEntry::Granted(id.into(), Run(run))),
        1 => (ids(), 1..4u32).prop_map(|(id, run)| JournalEntry::Prompted(id.into(), Run(run))),
        1 => (ids(), 1..4u32).prop_map(|(id, run)| JournalEntry::Aborted(id.into(), Run(run))),
        2 => (parents(), ids(), 1..4u32).prop_map(|(parent, task, run)| JournalEntry::Joined {
            parent: parent.into(),
            task: task.into(),
            run: Run(run),
            directory: None,
        }),
        2 => (parents(), ids()).prop_map(|(parent, task)| JournalEntry::Settled {
            parent: parent.into(),
            report: Box::new(report(&task)),
        }),
        1 => (parents(), ids()).prop_map(|(parent, task)| JournalEntry::Left(parent.into(), task.into())),
        1 => (parents(), notices(), statuses(), ids()).prop_map(|(parent, id, status, task)| JournalEntry::Closed {
            parent: parent.into(),
            message: Box::new(message(&id, NoticeKind::Final, &[&task], status)),
            tasks: vec![task.into()],
        }),
        2 => (parents(), notices(), kinds(), ids()).prop_map(|(parent, id, kind, task)| JournalEntry::Sending {
            parent: parent.into(),
            message: Box::new(message(&id, kind, &[&task], DeliveryStatus::Sending)),
        }),
        1 => (parents(), notices()).prop_map(|(parent, id)| JournalEntry::Returned(parent.into(), id.into())),
        2 => (parents(), notices(), statuses(), any::<bool>()).prop_map(|(parent, id, status, watched)| JournalEntry::Delivery {
            watched,
            parent: parent.into(),
            id: id.into(),
            status,
            at: at(3),
        }),
        1 => (parents(), notices()).prop_map(|(parent, id)| JournalEntry::TurnFailed {
            parent: parent.into(),
            id: id.into(),
            error: "overloaded".to_owned(),
            at: at(3),
        }),
        1 => (parents(), notices()).prop_map(|(parent, id)| JournalEntry::TurnUnwatched(parent.into(), id.into())),
        2 => (parents(), 0..9i64).prop_map(|(parent, when)| JournalEntry::AbortReceived(parent.into(), at(when))),
        1 => parents().prop_map(|parent| JournalEntry::AbortJudged(parent.into())),
        1 => parents().prop_map(|parent| JournalEntry::ParentGone(parent.into(), at(4))),
        1 => (parents(), any::<bool>()).prop_map(|(parent, on)| JournalEntry::Silenced(parent.into(), on)),
        1 => (ids(), 0..9u32).prop_map(|(task, key)| {
            JournalEntry::Key(LaunchKey::new(key.to_string(), &Launch::default(), task.into(), at(1)))
        }),
        2 => ids().prop_map(|task| JournalEntry::Forgotten(task.into(), at(5))),
        1 => ids().prop_map(|task| JournalEntry::Unaccepted(task.into())),
        1 => ids().prop_map(|task| JournalEntry::Noted(task.into(), TimelineEntry::new("seen", "something"))),
    ]
}

/// One step of the property: an append, or a restart.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<JournalEntry>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => proptest::collection::vec(entries(), 1..6).prop_map(Step::Append),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

fn outboxes(journal: &dyn Journal) -> Vec<Option<OutboxRecord>> {
    let outbox = |n| journal.outbox(&format!("ses_p{n}").as_str().into());
    (0..3)
        .map(|n| outbox(n).map(|outbox: Outbox| outbox.into()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_journal_equals_memory_journal(steps in steps()) {
        let fixture = TestJournal::new();
        let memory = MemoryJournal::with_retention(RETENTION);
        let mut disk = Arc::new(fixture.open());
        let mut number = 0;
        for step in steps {
            let Step::Append(mut entries) = step else {
                let before = contents(&*disk);
                drop(disk);
                disk = Arc::new(fixture.open());
                prop_assert_eq!(contents(&*disk), before);
                continue;
            };
            for entry in &mut entries {
                if let JournalEntry::Task { changed: Some(changed), .. } = entry {
                    number += 1;
                    changed.number = number;
                }
            }
            memory.append(at(1), entries.clone());
            disk.append(at(1), entries);
        }
        for again in [false, true] {
            if again {
                drop(disk);
                disk = Arc::new(fixture.open());
            }
            prop_assert_eq!(contents(&*disk), contents(&memory));
            prop_assert_eq!(outboxes(&*disk), outboxes(&memory));
            for n in 0..6 {
                let id = format!("bg_0000000{n}");
                prop_assert_eq!(disk.find(&id), memory.find(&id));
                prop_assert_eq!(disk.timeline(&id.as_str().into()), memory.timeline(&id.as_str().into()));
            }
        }
    }
}
