//! A journal that an earlier release wrote: `v2.sql` holds it as SQL text, with a row of every kind. Every fact in it must
//! still be read, so each name in its JSON stays readable.
//!
//! All times are in the year 2100, so that nothing in it is ever older than the retention.

use std::path::Path;

use greenroom::domain::batch::CompletionReport;
use greenroom::domain::idempotency::LaunchKey;
use greenroom::domain::notice::NoticeKind;
use greenroom::domain::outbox::{DeliveryStatus, Outbox};
use greenroom::domain::task::{Launch, Task};
use greenroom::domain::time::Timestamp;
use greenroom::ports::journal::{ChangesFrom, Journal, RecoveredTask};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{TestJournal, accept};

/// The start of the year 2100, in milliseconds.
const BASE: i64 = 4_102_444_800_000;

fn earlier_release() -> TestJournal {
    let fixture = TestJournal::new();
    write_fixture(&fixture.path());
    fixture
}

fn write_fixture(path: &Path) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(include_str!("v2.sql")).unwrap();
}

/// Seconds since the start of the journal.
fn seconds(at: Timestamp) -> i64 {
    (at.as_millis() - BASE) / 1000
}

fn time(seconds: i64) -> Value {
    json!(Timestamp::from_millis(BASE + seconds * 1000))
}

/// The JSON form of a task that was accepted at that time, with more fields.
fn record(id: &str, accepted_at: i64, more: Value) -> Value {
    let mut record = json!({
        "id": id, "parentSessionID": "ses_parent", "spawnDepth": 1, "description": format!("task {id}"),
        "prompt": format!("Do {id}."), "agent": "general", "status": "pending", "queuedAt": time(accepted_at),
        "progress": {"toolCalls": 0, "lastUpdate": time(accepted_at)}, "concurrencyGroup": "general", "run": 1,
        "attempts": [], "tracked": false,
    });
    for (name, value) in more.as_object().unwrap() {
        record[name] = value.clone();
    }
    record
}

/// The launch of the pending task, with everything a launch can have.
fn full_launch() -> Value {
    json!({
        "description": "find the slow tests", "prompt": "Find the five slowest tests.", "agent": "explore",
        "parentSessionID": "ses_parent", "parentMessageID": "msg_parent", "parentAgent": "build",
        "parentModel": {"providerID": "anthropic", "modelID": "claude-opus"},
        "model": {"providerID": "openai", "modelID": "gpt-5", "variant": "high"},
        "category": "quick", "skills": ["testing"], "skillContent": "Run the tests twice.", "directory": "/srv/app",
        "permission": [{"permission": "edit", "pattern": "*", "action": "deny"}],
    })
}

fn pending() -> Value {
    let mut record = record("bg_00000001", 1, full_launch());
    record["concurrencyGroup"] = json!("openai/gpt-5");
    record
}

fn running() -> Value {
    let failed = json!({
        "run": 1, "attempt": 1, "sessionID": "ses_two", "startedAt": time(3), "error": "aborted from outside",
        "model": {"providerID": "openai", "modelID": "gpt-5"},
    });
    let more = json!({
        "status": "running", "sessionID": "ses_two", "run": 2, "prompt": "Go on.", "queuedAt": time(6),
        "startedAt": time(7), "parentMessageID": "msg_parent", "rootSessionID": "ses_root", "spawnDepth": 2,
        "parentAgent": "build", "formerParents": ["ses_before"], "tracked": true, "directory": "/srv/app",
        "concurrencyKey": "general", "attempts": [failed, {"run": 2, "attempt": 1}],
        "progress": {
            "toolCalls": 3, "lastTool": "bash", "lastUpdate": time(8), "lastMessage": "The build is slow.",
            "lastMessageAt": time(8),
        },
        "retrying": {"attempt": 2, "message": "overloaded", "until": time(20)},
        "asking": [
            {"id": "per_1", "kind": "permission", "what": "bash rm -r target", "since": time(8)},
            {"id": "que_1", "kind": "question", "what": "Which branch?", "since": time(9)},
        ],
    });
    record("bg_00000002", 2, more)
}

fn interrupted() -> Value {
    let more = json!({
        "status": "interrupt", "sessionID": "ses_two", "startedAt": time(3), "completedAt": time(5),
        "error": "aborted from outside", "note": "after one tool call",
    });
    record("bg_00000002", 2, more)
}

fn completed(id: &str, accepted_at: i64) -> Value {
    let more = json!({
        "status": "completed", "sessionID": format!("ses_{id}"), "startedAt": time(accepted_at + 1),
        "completedAt": time(accepted_at + 6),
    });
    record(id, accepted_at, more)
}

fn failed() -> Value {
    let mut record = completed("bg_00000004", 11);
    record["status"] = json!("error");
    record["error"] = json!("the provider failed");
    record
}

fn cancelled() -> Value {
    let more =
        json!({"status": "cancelled", "completedAt": time(18), "error": "not needed any more"});
    record("bg_00000005", 12, more)
}

fn to_json(task: &Task) -> Value {
    serde_json::to_value(task).unwrap()
}

/// Returns the facts of a settled task in one line.
fn settled(report: &CompletionReport) -> String {
    let fact = &report.fact;
    let mut line = format!(
        "{} {} {:?} {} #{}",
        fact.task,
        fact.status.as_str(),
        fact.description,
        fact.duration,
        report.accepted
    );
    if let Some(error) = &fact.error {
        line += &format!(", {error}");
    }
    if let (Some(agent), Some(model)) = (&report.parent_agent, &report.parent_model) {
        let variant = model.variant.as_deref().unwrap_or_default();
        line += &format!(", parent {agent} {} {variant}", model.key());
    }
    line
}

/// What the outbox holds, one fact per line.
fn facts(outbox: &Outbox) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(directory) = &outbox.directory {
        lines.push(format!("directory {directory}"));
    }
    if outbox.silenced {
        lines.push("silenced".to_owned());
    }
    for member in outbox.members() {
        let state = match &member.settled {
            None => "open".to_owned(),
            Some(report) => settled(report),
        };
        let noted = if member.reported { ", noted" } else { "" };
        lines.push(format!(
            "{} run {}: {state}{noted}",
            member.task, member.run
        ));
    }
    for message in &outbox.messages {
        let kind = match message.facts.kind {
            NoticeKind::Individual => "individual",
            NoticeKind::Final => "final",
            NoticeKind::Continue => "continue",
        };
        let status = match &message.status {
            DeliveryStatus::Pending => "owed",
            DeliveryStatus::Sending => "sending",
            DeliveryStatus::Delivered => "delivered",
            DeliveryStatus::Dropped(reason) => &format!("dropped ({reason})"),
        };
        let tasks: Vec<&str> = message
            .facts
            .tasks
            .iter()
            .map(|fact| fact.task.as_str())
            .collect();
        lines.push(format!(
            "{} {kind} of {} with {} open since {}: {status} at {}",
            message.id,
            tasks.join(" "),
            message.facts.remaining,
            seconds(message.since),
            seconds(message.at)
        ));
        lines.extend(
            message
                .reports
                .iter()
                .map(|report| format!("- {}", settled(report))),
        );
    }
    lines
}

#[test]
fn tasks_are_read() {
    let journal = earlier_release().open();
    let recovered = journal.load().unwrap();
    let runs = |task: &RecoveredTask| {
        [task.granted, task.prompted, task.aborted].map(|run| run.map(|run| run.0))
    };
    let tasks: Vec<_> = recovered
        .tasks
        .iter()
        .map(|task| {
            (
                task.accepted,
                task.queue_seq,
                runs(task),
                to_json(&task.task),
            )
        })
        .collect();
    let none = [None; 3];
    let expected = [
        (1, 1, none, pending()),
        (2, 6, [Some(2), Some(2), Some(1)], running()),
        (3, 10, none, completed("bg_00000003", 10)),
        (4, 11, none, failed()),
        (5, 12, none, cancelled()),
    ];
    assert_eq!(tasks, expected);
    let left: Vec<&str> = recovered.left.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(left, ["bg_00000006"]);
    for name in ["bg_00000006", "ses_bg_00000006"] {
        let task = journal.find(name).unwrap();
        assert_eq!(to_json(&task), completed("bg_00000006", 80));
    }
    assert_eq!(recovered.newest_change, 21);
}

#[test]
fn launch_keys_are_read() {
    let keys = earlier_release().open().load().unwrap().keys;
    let launch: Launch = serde_json::from_value(full_launch()).unwrap();
    let at = Timestamp::from_millis(BASE + 1000);
    // Equal only if the fingerprint of the launch is the same: its JSON form must not change.
    let expected = [
        LaunchKey::new("launch-1".to_owned(), &launch, "bg_00000001".into(), at),
        LaunchKey::new(
            "launch-3".to_owned(),
            &Launch::default(),
            "bg_00000002".into(),
            at,
        ),
    ];
    assert_eq!(keys, expected);
}

#[test]
fn outboxes_of_parents_are_read() {
    let journal = earlier_release().open();
    let recovered = journal.load().unwrap();
    let open: Vec<&str> = recovered
        .outboxes
        .iter()
        .map(|(parent, _)| parent.as_str())
        .collect();
    assert_eq!(
        open,
        [
            "ses_owed",
            "ses_parent",
            "ses_sending",
            "ses_silenced",
            "ses_whole"
        ]
    );
    for (parent, outbox) in &recovered.outboxes {
        assert_eq!(journal.outbox(parent).as_ref(), Some(outbox), "{parent}");
    }
    let facts = |parent: &str| facts(&journal.outbox(&parent.into()).unwrap());
    let parent_of = ", parent build anthropic/claude-opus max";
    assert_eq!(
        facts("ses_parent"),
        [
            "directory /srv/app",
            "bg_00000001 run 1: open",
            "bg_00000002 run 2: open",
            &format!(
                "bg_00000003 run 1: bg_00000003 completed \"task bg_00000003\" 5s #3{parent_of}, noted"
            ),
            "bg_00000004 run 1: bg_00000004 error \"task bg_00000004\" 5s #4, the provider failed",
            "ntc_00000001 individual of bg_00000003 with 2 open since 19: delivered at 21",
        ]
    );
    assert_eq!(
        facts("ses_owed"),
        [
            "directory /srv/lib",
            "ntc_00000011 final of bg_00000011 with 0 open since 31: owed at 34",
            &format!("- bg_00000011 completed \"task bg_00000011\" 5s #30{parent_of}"),
        ]
    );
    assert_eq!(
        facts("ses_sending"),
        [
            "directory /srv/lib",
            "ntc_00000012 final of bg_00000012 with 0 open since 41: sending at 43",
            &format!("- bg_00000012 completed \"task bg_00000012\" 5s #40{parent_of}"),
        ]
    );
    assert_eq!(
        facts("ses_dropped"),
        [
            "directory /srv/lib",
            "ntc_00000013 final of bg_00000013 with 0 open since 51: dropped (its parent never took it) at 53",
        ]
    );
    assert_eq!(facts("ses_gone"), [""; 0]);
    assert_eq!(facts("ses_silenced"), ["silenced"]);
    assert_eq!(
        facts("ses_told"),
        [
            "directory /work",
            "ntc_00000031 final of bg_00000006 with 0 open since 86: delivered at 90",
        ]
    );
}

/// Its first hundred entries were written as one row.
#[test]
fn large_outbox_is_read() {
    let journal = earlier_release().open();
    let parent_of = ", parent build anthropic/claude-opus max";
    assert_eq!(
        facts(&journal.outbox(&"ses_whole".into()).unwrap()),
        [
            "directory /srv/whole",
            "silenced",
            "bg_00000021 run 1: open",
            &format!(
                "bg_00000022 run 3: bg_00000022 interrupt \"task bg_00000022\" 5s #22, aborted from \
                 outside{parent_of}, noted"
            ),
            "bg_00000023 run 1: bg_00000023 completed \"task bg_00000023\" 5s #23",
            "bg_00000024 run 1: open",
            "ntc_00000021 individual of bg_00000022 with 1 open since 71: delivered at 73",
            "ntc_00000022 final of bg_00000020 with 0 open since 73: owed at 74",
            &format!("- bg_00000020 completed \"task bg_00000020\" 5s #20{parent_of}"),
            "ntc_00000023 final of bg_00000019 with 0 open since 73: dropped (its parent never took it) at 75",
        ]
    );
}

#[test]
fn timelines_are_read() {
    let journal = earlier_release().open();
    let timeline = |task: &str| -> Vec<String> {
        journal
            .timeline(&task.into())
            .into_iter()
            .map(|(at, line)| format!("{} {}: {}", seconds(at), line.what, line.detail))
            .collect()
    };
    assert_eq!(
        timeline("bg_00000002"),
        [
            "2 accepted: queues under general",
            "3 slot granted: run 1",
            "3 running: in session ses_two",
            "4 prompt accepted: run 1",
            "5 interrupt: aborted from outside; after one tool call",
            "6 resumed: run 2, queues under general",
            "7 slot granted: run 2",
            "7 running: in session ses_two",
            "8 prompt accepted: run 2",
            "8 asks: permission: bash rm -r target",
        ]
    );
    // The lines of a message belong to the timelines of its tasks.
    assert_eq!(
        timeline("bg_00000003")[2..],
        [
            "20 telling the parent: ntc_00000001 note to ses_parent",
            "21 parent told: ntc_00000001",
        ]
    );
    assert_eq!(
        timeline("bg_00000004")[2..],
        [
            "22 telling the parent: ntc_00000002 note to ses_parent",
            "23 message refused: the next one says it too",
        ]
    );
    assert_eq!(
        timeline("bg_00000005")[2..],
        ["18 left its batch: ses_parent is not told"]
    );
    assert_eq!(
        timeline("bg_00000006")[2..],
        [
            "88 telling the parent: ntc_00000031 final message to ses_told",
            "89 message not accepted: it is sent again",
            "90 parent told: ntc_00000031",
            "91 left memory: ",
        ]
    );
}

#[test]
fn changes_are_read() {
    let journal = earlier_release().open();
    let changes = journal.changes(ChangesFrom::After(0), 100).unwrap();
    let read: Vec<String> = changes
        .iter()
        .map(|change| {
            let from = change.changed.from.map_or("new", |from| from.as_str());
            let (task, at) = (&change.task, seconds(change.at));
            format!(
                "{at} #{} {} run {}: {from} to {}",
                change.changed.number,
                task.id,
                task.run,
                task.status().as_str()
            )
        })
        .collect();
    assert_eq!(
        read,
        [
            "1 #1 bg_00000001 run 1: new to pending",
            "2 #2 bg_00000002 run 1: new to pending",
            "3 #3 bg_00000002 run 1: pending to running",
            "5 #4 bg_00000002 run 1: running to interrupt",
            "6 #5 bg_00000002 run 2: interrupt to pending",
            "7 #6 bg_00000002 run 2: pending to running",
            "10 #10 bg_00000003 run 1: new to pending",
            "11 #11 bg_00000004 run 1: new to pending",
            "12 #12 bg_00000005 run 1: new to pending",
            "16 #13 bg_00000003 run 1: running to completed",
            "17 #14 bg_00000004 run 1: running to error",
            "18 #15 bg_00000005 run 1: pending to cancelled",
            "80 #20 bg_00000006 run 1: new to pending",
            "86 #21 bg_00000006 run 1: running to completed",
        ]
    );
    assert_eq!(to_json(&changes[3].task), interrupted());
    assert_eq!(to_json(&changes[5].task), running());
    let since = Timestamp::from_millis(BASE + 80_000);
    let last = journal.changes(ChangesFrom::Since(since), 100).unwrap();
    assert_eq!(last, changes[13..]);
}

#[test]
fn journal_can_be_continued() {
    let fixture = earlier_release();
    let before = fixture.open().load().unwrap();
    accept(&fixture.open(), 100);
    let after = fixture.open().load().unwrap();
    assert_eq!(after.tasks.len(), before.tasks.len() + 1);
    assert_eq!(after.outboxes.len(), before.outboxes.len() + 1);
    assert_eq!(after.keys, before.keys);
}
