//! `greenroom why`: the timeline of tasks in all states.

use greenroom::TaskTimeline;
use greenroom::domain::time::Timestamp;
use greenroom_server::cli::client::TaskView;
use greenroom_server::cli::why::timeline;
use serde_json::{Value, json};

const PARENT: &str = "ses_parent";

/// Renders a timeline with these events, of a task with these fields.
fn render(events: &[(&str, &str, &str)], fields: Value, waits_for: Option<Value>) -> String {
    let mut task = json!({
        "id": "bg_00000001", "spawnDepth": 1, "description": "find the bug", "prompt": "Find the bug.",
        "agent": "explore", "status": "running", "queuedAt": "2026-01-01T23:59:50.000Z",
        "progress": {"toolCalls": 0, "lastUpdate": "2026-01-01T23:59:55.000Z"},
        "concurrencyGroup": "acme/large", "run": 1,
    });
    for (name, value) in fields.as_object().unwrap() {
        task[name] = value.clone();
    }
    let line =
        |(at, what, detail): &(&str, &str, &str)| json!({"at": at, "what": what, "detail": detail});
    let mut why = json!({
        "task": "bg_00000001", "events": events.iter().map(line).collect::<Vec<Value>>(),
    });
    if let Some(waits_for) = waits_for {
        why["waitsFor"] = waits_for.clone();
        task["waitsFor"] = waits_for;
    }
    let why: TaskTimeline = serde_json::from_value(why).unwrap();
    let shown: TaskView = serde_json::from_value(task).unwrap();
    let now: Timestamp = serde_json::from_value(json!("2026-01-02T00:01:05.000Z")).unwrap();
    timeline(&why, &shown, now)
}

const ACCEPTED: (&str, &str, &str) = (
    "2026-01-01T23:59:50.000Z",
    "accepted",
    "queues under acme/large",
);
const GRANTED: (&str, &str, &str) = ("2026-01-01T23:59:55.250Z", "slot granted", "run 1");
const RUNNING: (&str, &str, &str) = ("2026-01-01T23:59:55.300Z", "running", "in session ses_1");
const PROMPTED: (&str, &str, &str) = ("2026-01-01T23:59:55.310Z", "prompt accepted", "run 1");

#[test]
fn waiting_task() {
    let waits_for = json!({
        "key": "acme/large", "position": 2, "inUse": 3, "limit": 3,
        "text": "2nd in line for acme/large, where 3 of 3 slots are in use",
    });
    insta::assert_snapshot!(render(
        &[ACCEPTED],
        json!({"status": "pending"}),
        Some(waits_for)
    ));
}

#[test]
fn running_task() {
    let fields = json!({
        "sessionID": "ses_1", "startedAt": "2026-01-01T23:59:55.300Z",
        "progress": {"toolCalls": 4, "lastTool": "bash", "lastUpdate": "2026-01-02T00:01:00.000Z"},
    });
    insta::assert_snapshot!(render(
        &[ACCEPTED, GRANTED, RUNNING, PROMPTED],
        fields,
        None
    ));
}

#[test]
fn completed_task_with_delivered_message() {
    let final_message = format!("ntc_1 final message to {PARENT}");
    let events = [
        ACCEPTED,
        GRANTED,
        RUNNING,
        PROMPTED,
        ("2026-01-02T00:00:40.000Z", "completed", "2 todos left open"),
        (
            "2026-01-02T00:00:40.100Z",
            "notifying the parent",
            &final_message,
        ),
        (
            "2026-01-02T00:00:41.000Z",
            "message not accepted",
            "it is sent again",
        ),
        ("2026-01-02T00:00:42.000Z", "parent notified", "ntc_1"),
        ("2026-01-02T00:10:42.000Z", "left memory", ""),
    ];
    let fields = json!({
        "status": "completed", "sessionID": "ses_1", "note": "2 todos left open",
        "startedAt": "2026-01-01T23:59:55.300Z", "completedAt": "2026-01-02T00:00:40.000Z",
    });
    insta::assert_snapshot!(render(&events, fields, None));
}

#[test]
fn failed_task_with_foreign_text() {
    let error = "the provider answered\n\u{1b}[2Jno: try again later";
    let events = [
        ACCEPTED,
        GRANTED,
        RUNNING,
        ("2026-01-02T00:00:01.000Z", "error", error),
    ];
    let fields = json!({
        "status": "error", "sessionID": "ses_1", "error": error, "description": "find\u{1b}]0;x\u{7} the\nbug",
        "startedAt": "2026-01-01T23:59:55.300Z", "completedAt": "2026-01-02T00:00:01.000Z",
    });
    insta::assert_snapshot!(render(&events, fields, None));
}

#[test]
fn task_without_events() {
    let fields = json!({
        "status": "cancelled", "error": "Session deleted", "completedAt": "2026-01-02T00:00:01.000Z",
    });
    insta::assert_snapshot!(render(&[], fields, None));
}
