//! Tests of the comparison of traces.

use super::*;

fn golden() -> Value {
    json!({"golden": {
        "calls": [{"at": 0, "call": "session.create", "task": "a"}, {"at": 5, "call": "notify", "parent": "p", "kind": "all_complete", "completed": ["a", "b"]}],
        "results": [{"do": "launch", "at": 0, "settledAt": 0, "value": {"task": "a", "status": "pending"}}, {"do": "resume", "at": 1, "error": "@unknown"}],
        "observations": [{"at": 9, "label": "end", "tasks": {"a": {"status": "error", "error": "@gone", "startedAt": 2}}, "slotsInUse": 1,
            "history": {"p": [{"task": "a", "agent": "x", "status": "error"}]}}],
    }})
}

fn trace() -> Value {
    json!({
        "calls": [{"at": 5, "call": "notify", "parent": "p", "kind": "all_complete", "completed": ["b", "a"], "noReply": false}, {"at": 0, "call": "session.create", "task": "a"}],
        "results": [{"do": "launch", "at": 0, "settledAt": 7, "value": {"task": "a", "status": "pending"}}, {"do": "resume", "at": 1, "error": "no task has it"}],
        "queries": [],
        "observations": [{"at": 9, "tasks": {"a": {"status": "error", "error": "it vanished", "startedAt": 2.0}}, "slots": {"x": {"inUse": 1}},
            "history": {"p": [{"task": "a", "agent": "x", "status": "error", "category": null}], "q": []}}],
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut trace = trace();
    *trace.pointer_mut(pointer).unwrap() = value;
    trace
}

#[test]
fn tolerated_differences_are_ignored() {
    assert_eq!(differences(&golden(), &trace()), Vec::<String>::new());
}

#[test]
fn every_difference_is_reported() {
    let lines = |pointer, value| differences(&golden(), &with(pointer, value));
    assert_eq!(
        lines("/calls/1/at", json!(1)),
        ["session.create of a #1: at: expected 0, got 1"]
    );
    assert_eq!(lines("/calls/0/completed", json!(["a"])).len(), 1);
    assert_eq!(
        lines("/calls/0/parent", json!("q")).len(),
        2,
        "one call missing, one too many"
    );
    assert_eq!(lines("/results/0/value/status", json!("running")).len(), 1);
    assert_eq!(
        lines("/results/1", json!({"do": "resume", "value": true})).len(),
        1
    );
    assert_eq!(lines("/observations/0/tasks/a/error", Value::Null).len(), 1);
    assert_eq!(
        lines("/observations/0/tasks", json!({"b": {}})).len(),
        2,
        "one missing, one that should be gone"
    );
    assert_eq!(lines("/observations/0/slots", json!({})).len(), 1);
    assert_eq!(
        lines("/observations/0/history/p/0/status", json!("running")).len(),
        1
    );
    assert_eq!(
        lines("/observations", json!([])),
        ["observations: expected 1, got 0"]
    );
}

#[test]
fn unexpected_error_is_a_difference() {
    let mut golden = golden();
    golden["golden"]["observations"][0]["tasks"]["a"] = json!({"status": "error"});
    assert_eq!(differences(&golden, &trace()).len(), 1);
}

fn holds(rule: Value) -> bool {
    let trace = json!({
        "calls": [{"at": 3, "call": "session.abort", "session": "$a"}],
        "results": [{"step": 2, "do": "resume", "settledAt": null}, {"step": 4, "do": "cancel", "settledAt": 4, "value": true}],
        "observations": [{"label": "mid", "slots": {"k": {"inUse": 0}}, "tasks": {"a": {"status": "completed"}}, "history": {"p": [{"task": "a"}]}}],
    });
    differences(&json!({"expected": [rule]}), &trace).is_empty()
}

#[test]
fn path_assertions() {
    assert!(holds(
        json!({"at": "mid", "path": "tasks.a.status", "is": "completed"})
    ));
    assert!(!holds(
        json!({"at": "end", "path": "tasks.a.status", "is": "completed"})
    ));
    assert!(
        holds(json!({"at": "mid", "path": "slots", "is": {}})),
        "a key of which nothing is in use does not count"
    );
    assert!(holds(
        json!({"at": "mid", "path": "history.p.0.task", "oneOf": ["a", "b"]})
    ));
    assert!(holds(
        json!({"at": "mid", "path": "tasks.b", "absent": true})
    ));
    assert!(
        !holds(json!({"at": "mid", "path": "tasks.b.status", "not": "running"})),
        "`not` asks that the path exists"
    );
    assert!(holds(
        json!({"at": "mid", "path": "tasks.a.status", "not": "running"})
    ));
    assert!(holds(
        json!({"at": "mid", "path": "history.p", "contains": {"task": "a"}})
    ));
}

#[test]
fn call_and_result_assertions() {
    let abort = json!({"call": "session.abort"});
    assert!(holds(json!({"calls": abort, "count": 1})));
    assert!(!holds(json!({"calls": abort, "after": 4, "min": 1})));
    assert!(!holds(json!({"calls": abort, "max": 0})));
    assert!(holds(json!({"result": 2, "settled": false})));
    assert!(holds(
        json!({"result": 4, "settled": true, "errored": false, "value": true})
    ));
    assert!(
        !holds(json!({"result": 3, "settled": false})),
        "there is no such row"
    );
    assert!(holds(json!({"noErrorResults": true})));
    assert!(holds(json!({"noUnhandledErrors": true})));
}
