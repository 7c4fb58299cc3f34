//! Every text that agents read of a task, as they read it.

use greenroom::domain::history::HistoryEntry;
use greenroom::domain::output::{Output, OutputMessage};
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use greenroom::{TaskDetail, WaitsFor};
use greenroom_server::tools::words::{
    Listed, Place, Standing, Told, cancelled, ended, launched, list, sent, unfinished,
};
use serde_json::{Value, json};

/// A task with these fields over the usual ones.
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
fn a_launch() {
    let at_once = task(json!({"status": "error", "error": "no such agent"}));
    let resumed = task(json!({"sessionID": "ses_1", "run": 2}));
    insta::assert_snapshot!(joined(&[
        launched(&waiting(), Told::Yes),
        launched(&TaskDetail::new(running()), Told::No),
        launched(&TaskDetail::new(resumed), Told::Yes),
        launched(&TaskDetail::new(at_once), Told::Yes),
    ]));
}

#[test]
fn a_task_that_has_ended() {
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
            Place::default()
        ),
        ended(
            &output(
                done,
                json!({"result": "x", "messages": messages, "hasMore": true})
            ),
            now(),
            Place::default()
        ),
        ended(
            &output(failed(), json!({"result": ""})),
            now(),
            Place::default()
        ),
        ended(&output(never, json!({})), now(), Place::default()),
    ]));
}

#[test]
fn a_task_that_goes_on() {
    let asking = task(json!({
        "sessionID": "ses_1", "startedAt": "2026-01-01T00:00:05.000Z",
        "asking": [{"id": "per_1", "kind": "permission", "what": "bash: rm -r target", "since": "2026-01-01T00:00:09.000Z"}],
    }));
    let text = |detail: TaskDetail, below: usize, fields: Value, told: Told| {
        let standing = Standing {
            output: &output(detail.task.clone(), fields),
            detail: &detail,
            below,
            from_end: false,
            told,
        };
        unfinished(&standing, now())
    };
    let messages =
        json!({"messages": [{"role": "user", "text": "Find the bug."}], "hasMore": false});
    insta::assert_snapshot!(joined(&[
        text(waiting(), 0, json!({}), Told::Yes),
        text(
            TaskDetail::new(running()),
            2,
            json!({"timedOut": true}),
            Told::No
        ),
        text(TaskDetail::new(asking), 1, messages, Told::Yes),
    ]));
}

#[test]
fn a_cancel_and_a_prompt_passed_on() {
    let stopped = task(json!({"status": "cancelled", "sessionID": "ses_1"}));
    insta::assert_snapshot!(joined(&[
        cancelled(&[], &[]),
        cancelled(std::slice::from_ref(&stopped), &["bg_00000007".into()]),
        cancelled(
            std::slice::from_ref(&stopped),
            &["bg_00000007".into(), "bg_00000008".into()]
        ),
        cancelled(&[stopped, failed()], &[]),
        sent(&running(), Told::Yes),
    ]));
}

#[test]
fn a_list() {
    let entry: HistoryEntry = serde_json::from_value(json!({
        "task": "bg_00000000", "agent": "oracle", "status": "completed", "description": "long ago", "sessionID": "ses_0",
    }))
    .unwrap();
    let tasks = [
        Listed::Past(entry),
        Listed::Known(Box::new(TaskDetail::new(failed()))),
        Listed::Known(Box::new(TaskDetail::new(running()))),
        Listed::Known(Box::new(waiting())),
    ];
    insta::assert_snapshot!(joined(&[
        list(&[], 0, Told::Yes, now()),
        list(&tasks[..2], 2, Told::Yes, now()),
        list(&tasks, 104, Told::No, now()),
    ]));
}
