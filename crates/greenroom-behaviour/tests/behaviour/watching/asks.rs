//! A child with an open question waits for the answer or the time limit.

use serde_json::{Value, json};

use crate::harness::{Harness, job, story};
use crate::server::{CallKind, CallOutcome, CallPayload, status};

fn permission(session: &str, id: &str) -> Value {
    json!({"type": "permission.asked", "properties": {"id": id, "sessionID": session,
        "permission": "bash", "patterns": ["rm -rf *"]}})
}

fn question(session: &str, id: &str) -> Value {
    json!({"type": "question.asked", "properties": {"id": id, "sessionID": session,
        "questions": [{"question": "which one?"}]}})
}

fn rejected(s: &Harness) -> Vec<String> {
    let calls = s.server.calls(CallKind::RejectAsk).into_iter();
    calls
        .filter_map(|call| match call.payload {
            CallPayload::Ask(ask) => Some(format!("{} {ask}", call.at)),
            _ => None,
        })
        .collect()
}

#[test]
fn record_shows_open_asks() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        s.advance_to(6000).await;
        s.event(permission(&session, "per_1")).await;
        s.event(permission(&session, "per_1")).await;
        s.event(question(&session, "que_1")).await;
        let asking = s.task(&a).await.asking;
        let what: Vec<&str> = asking.iter().map(|ask| ask.what.as_str()).collect();
        assert_eq!(what, ["bash rm -rf *", "which one?"]);
        assert_eq!(asking[0].since.as_millis(), 6000);
        let replied = json!({"type": "permission.replied", "properties": {"sessionID": session,
            "requestID": "per_1", "reply": "once"}});
        s.event(replied).await;
        let rejected = json!({"type": "question.rejected", "properties": {"sessionID": session,
            "requestID": "que_1"}});
        s.event(rejected).await;
        assert!(s.task(&a).await.asking.is_empty());
        s.advance_to(700_000).await;
        assert!(s.calls(CallKind::RejectAsk).is_empty());
    });
}

#[test]
fn ask_is_rejected_after_ten_minutes() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        s.advance_to(6000).await;
        s.event(permission(&session, "per_1")).await;
        s.advance_to(100_000).await;
        s.event(question(&session, "que_1")).await;
        s.advance_to(605_999).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(606_000).await;
        assert_eq!(rejected(&s), ["606000 per_1"]);
        let note = "request rejected after 10m 0s without an answer: bash rm -rf *";
        assert_eq!(s.state(&a).await, format!("running ({note})"));
        assert_eq!(s.task(&a).await.asking.len(), 1);
        s.advance_to(700_000).await;
        assert_eq!(rejected(&s), ["606000 per_1", "700000 que_1"]);
        s.advance_to(710_000).await;
        s.finish_turn(&a).await;
        let state = s.state(&a).await;
        assert!(state.starts_with("completed (request rejected"), "{state}");
    });
}

#[test]
fn failed_rejection_is_retried_three_times() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        s.advance_to(6000).await;
        s.event(permission(&session, "per_1")).await;
        s.server
            .set_outcome(CallKind::RejectAsk, CallOutcome::Fails(status(500)));
        s.advance_to(700_000).await;
        assert_eq!(rejected(&s).len(), 3);
        assert!(s.state(&a).await.starts_with("running"));
    });
}

#[test]
fn task_with_open_ask_is_not_stale() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.event(permission(session.as_str(), "per_1")).await;
        // Not even listed as busy, and silent for far more than three minutes.
        s.idle_without_event(&a);
        let info = json!({"role": "assistant", "finish": "tool-calls", "time": {"completed": 1}});
        s.server
            .add_message(&session, info, json!([{"type": "text", "text": " "}]));
        s.advance_to(500_000).await;
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn task_is_not_stale_while_child_has_open_ask() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        let child = s
            .launch(crate::harness::job_of(session.as_str(), "child"))
            .await;
        let below = s.server.session_of(&child).expect("it runs");
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.event(permission(below.as_str(), "per_1")).await;
        s.advance_to(500_000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.state(&child).await, "running");
    });
}

#[test]
fn cancel_closes_asks() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        s.advance_to(6000).await;
        s.event(permission(&session, "per_1")).await;
        s.advance_to(7000).await;
        assert!(s.cancel(&a).await);
        assert!(s.task(&a).await.asking.is_empty());
        s.advance_to(700_000).await;
        assert!(s.calls(CallKind::RejectAsk).is_empty());
    });
}
