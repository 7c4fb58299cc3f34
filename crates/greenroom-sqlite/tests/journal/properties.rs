//! Random entries with restarts in between: the journal on disk has the same content as the one in memory.

use std::sync::Arc;

use greenroom::domain::idempotency::Kept as KeptKey;
use greenroom::domain::ids::Run;
use greenroom::domain::ledger::{Account, AccountRecord, Fate};
use greenroom::domain::notice::NoticeKind;
use greenroom::domain::story::Line;
use greenroom::domain::task::{Launch, TaskStatus};
use greenroom::ports::journal::conformance::{
    RETENTION, at, change, in_state, posted, record, task, told,
};
use greenroom::ports::journal::{Entry, Journal, MemoryJournal};
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

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Owed),
        Just(Fate::Sending),
        Just(Fate::Delivered),
        Just(Fate::Dropped("gone".to_owned())),
    ]
}

fn states() -> impl Strategy<Value = TaskStatus> {
    proptest::sample::select(TaskStatus::ALL.to_vec())
}

fn kinds() -> impl Strategy<Value = NoticeKind> {
    prop_oneof![Just(NoticeKind::Individual), Just(NoticeKind::Final)]
}

/// An entry; changes get their numbers when they are appended.
fn entries() -> impl Strategy<Value = Entry> {
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
        1 => (ids(), 1..4u32).prop_map(|(id, run)| Entry::Granted(id.into(), Run(run))),
        1 => (ids(), 1..4u32).prop_map(|(id, run)| Entry::Prompted(id.into(), Run(run))),
        1 => (ids(), 1..4u32).prop_map(|(id, run)| Entry::Aborted(id.into(), Run(run))),
        2 => (parents(), ids(), 1..4u32).prop_map(|(parent, task, run)| Entry::Joined {
            parent: parent.into(),
            task: task.into(),
            run: Run(run),
            directory: None,
        }),
        2 => (parents(), ids()).prop_map(|(parent, task)| Entry::Settled {
            parent: parent.into(),
            told: Box::new(told(&task)),
        }),
        1 => (parents(), ids()).prop_map(|(parent, task)| Entry::Left(parent.into(), task.into())),
        1 => (parents(), notices(), fates(), ids()).prop_map(|(parent, id, fate, task)| Entry::Closed {
            parent: parent.into(),
            posted: Box::new(posted(&id, NoticeKind::Final, &[&task], fate)),
            tasks: vec![task.into()],
        }),
        2 => (parents(), notices(), kinds(), ids()).prop_map(|(parent, id, kind, task)| Entry::Sending {
            parent: parent.into(),
            posted: Box::new(posted(&id, kind, &[&task], Fate::Sending)),
        }),
        1 => (parents(), notices()).prop_map(|(parent, id)| Entry::Returned(parent.into(), id.into())),
        2 => (parents(), notices(), fates()).prop_map(|(parent, id, fate)| Entry::Fate {
            parent: parent.into(),
            id: id.into(),
            fate,
            at: at(3),
        }),
        1 => parents().prop_map(|parent| Entry::ParentGone(parent.into(), at(4))),
        1 => (parents(), any::<bool>()).prop_map(|(parent, on)| Entry::Silenced(parent.into(), on)),
        1 => (ids(), 0..9u32).prop_map(|(task, key)| {
            Entry::Key(KeptKey::new(key.to_string(), &Launch::default(), task.into(), at(1)))
        }),
        2 => ids().prop_map(|task| Entry::Forgotten(task.into(), at(5))),
        1 => ids().prop_map(|task| Entry::Unaccepted(task.into())),
        1 => ids().prop_map(|task| Entry::Noted(task.into(), Line::new("seen", "something"))),
    ]
}

/// One step of the property: an append, or a restart.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Entry>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => proptest::collection::vec(entries(), 1..6).prop_map(Step::Append),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

fn accounts(journal: &dyn Journal) -> Vec<Option<AccountRecord>> {
    let account = |n| journal.account(&format!("ses_p{n}").as_str().into());
    (0..3)
        .map(|n| account(n).map(|account: Account| account.into()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_journal_equals_memory_journal(steps in steps()) {
        let fixture = TestJournal::new();
        let memory = MemoryJournal::keeping(RETENTION);
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
                if let Entry::Task { changed: Some(changed), .. } = entry {
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
            prop_assert_eq!(accounts(&*disk), accounts(&memory));
            for n in 0..6 {
                let id = format!("bg_0000000{n}");
                prop_assert_eq!(disk.find(&id), memory.find(&id));
                prop_assert_eq!(disk.story(&id.as_str().into()), memory.story(&id.as_str().into()));
            }
        }
    }
}
