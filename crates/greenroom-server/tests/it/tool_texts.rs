//! Snapshots of all texts of tools for agents.

use greenroom::domain::history::HistoryEntry;
use greenroom::domain::output::{Output, OutputMessage};
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use greenroom::{TaskDetail, WaitsFor};
use greenroom_server::tools::text::{
    ListEntry, OpenTask, ReadPosition, WakeMode, cancelled, ended, launched, list, open_task, sent,
};
use serde_json::{Value, json};

/// Returns a task with these fields.
fn task(fields: Value) -> Task {
    let mut task = json!({
        "id": "bg_00000001",
        "spawnDepth": 1,
        "description": "find the bug",
        "prompt": "Find the bug.",
        "agent": "explore",
        "status": "running",
        "queuedAt": "2026-01-01T00:00:00.000Z",
        "progress": { "toolCalls": 0, "lastUpdate": "2026-01-01T00:00:10.000Z" },
        "concurrencyGroup": "explore",
        "run": 1,
    });
    for (name, value) in fields.as_object().unwrap() {
        task[name] = value.clone();
    }
    serde_json::from_value(task).unwrap()
}

fn waiting() -> TaskDetail {
    let mut detail = TaskDetail::new(task(json!({"status": "pending"})));
    let waits: WaitsFor = serde_json::from_value(json!({
        "key": "explore", "position": 2, "inUse": 5, "limit": 5, "text": "number 2 in line; 5 of 5 slots in use",
    }))
    .unwrap();
    detail.waits_for = Some(waits);
    detail
}

fn running() -> Task {
    task(json!({
        "sessionID": "ses_1",
        "startedAt": "2026-01-01T00:00:05.000Z",
        "progress": {"toolCalls": 12, "lastTool": "bash", "lastUpdate": "2026-01-01T00:00:10.000Z",
                     "lastMessage": "Looking at\nthe second half."},
    }))
}

fn failed() -> Task {
    task(json!({
        "id": "bg_00000002", "sessionID": "ses_2", "status": "error", "error": "Model not found: acme/big\nsee the log",
        "note": "2 todos left open",
        "startedAt": "2026-01-01T00:00:05.000Z", "completedAt": "2026-01-01T00:01:05.000Z",
    }))
}

fn now() -> Timestamp {
    serde_json::from_value(json!("2026-01-01T00:01:10.000Z")).unwrap()
}

fn output(task: Task, fields: Value) -> Output {
    let mut output = json!({ "task": task });
    for (name, value) in fields.as_object().unwrap() {
        output[name] = value.clone();
    }
    serde_json::from_value(output).unwrap()
}

fn joined(texts: &[String]) -> String {
    texts.join("\n\n=====\n\n")
}

#[test]
fn launched_text() {
    let at_once = task(json!({"status": "error", "error": "no such agent"}));
    let resumed = task(json!({"sessionID": "ses_1", "run": 2}));
    insta::assert_snapshot!(joined(&[
        launched(&waiting(), WakeMode::Message),
        launched(&TaskDetail::new(running()), WakeMode::None),
        launched(&TaskDetail::new(resumed), WakeMode::Message),
        launched(&TaskDetail::new(at_once), WakeMode::Message),
    ]));
}

#[test]
fn ended_text() {
    let messages = json!([OutputMessage {
        id: Some("msg_1".to_owned()),
        role: "assistant".to_owned(),
        agent: Some("explore".to_owned()),
        text: "It is in line 7.".to_owned(),
        thinking: Some("Where?".to_owned()),
        tools: Vec::new(),
    }]);
    let done = task(json!({
        "status": "completed", "sessionID": "ses_1",
        "startedAt": "2026-01-01T00:00:05.000Z", "completedAt": "2026-01-01T00:00:07.000Z",
    }));
    let never = task(json!({"status": "cancelled", "error": "not needed"}));
    insta::assert_snapshot!(joined(&[
        ended(
            &output(done.clone(), json!({"result": "It is in line 7."})),
            now(),
            ReadPosition::default()
        ),
        ended(
            &output(
                done,
                json!({"result": "x", "messages": messages, "hasMore": true})
            ),
            now(),
            ReadPosition::default()
        ),
        ended(
            &output(failed(), json!({"result": ""})),
            now(),
            ReadPosition::default()
        ),
        ended(&output(never, json!({})), now(), ReadPosition::default()),
    ]));
}

#[test]
fn open_task_text() {
    let launch_with_ask = task(json!({
        "sessionID": "ses_1", "startedAt": "2026-01-01T00:00:05.000Z",
        "asking": [{"id": "per_1", "kind": "permission", "what": "bash: rm -r target", "since": "2026-01-01T00:00:09.000Z"}],
    }));
    let text = |detail: TaskDetail, below: usize, fields: Value, wake_mode: WakeMode| {
        let state = OpenTask {
            output: &output(detail.task.clone(), fields),
            detail: &detail,
            below,
            from_end: false,
            wake_mode,
        };
        open_task(&state, now())
    };
    let messages =
        json!({"messages": [{"role": "user", "text": "Find the bug."}], "hasMore": false});
    insta::assert_snapshot!(joined(&[
        text(waiting(), 0, json!({}), WakeMode::Message),
        text(
            TaskDetail::new(running()),
            2,
            json!({"timedOut": true}),
            WakeMode::None
        ),
        text(
            TaskDetail::new(launch_with_ask),
            1,
            messages,
            WakeMode::Message
        ),
    ]));
}

#[test]
fn cancelled_and_sent_text() {
    let stopped = task(json!({"status": "cancelled", "sessionID": "ses_1"}));
    insta::assert_snapshot!(joined(&[
        cancelled(&[], &[]),
        cancelled(std::slice::from_ref(&stopped), &["bg_00000007".into()]),
        cancelled(
            std::slice::from_ref(&stopped),
            &["bg_00000007".into(), "bg_00000008".into()]
        ),
        cancelled(&[stopped, failed()], &[]),
        sent(&running(), WakeMode::Message),
    ]));
}

#[test]
fn list_text() {
    let entry: HistoryEntry = serde_json::from_value(json!({
        "task": "bg_00000000", "agent": "oracle", "status": "completed", "description": "long ago", "sessionID": "ses_0",
    }))
    .unwrap();
    let tasks = [
        ListEntry::History(entry),
        ListEntry::InMemory(Box::new(TaskDetail::new(failed()))),
        ListEntry::InMemory(Box::new(TaskDetail::new(running()))),
        ListEntry::InMemory(Box::new(waiting())),
    ];
    insta::assert_snapshot!(joined(&[
        list(&[], 0, WakeMode::Message, now()),
        list(&tasks[..2], 2, WakeMode::Message, now()),
        list(&tasks, 104, WakeMode::None, now()),
    ]));
}
