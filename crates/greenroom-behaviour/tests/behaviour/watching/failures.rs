//! session.error and session.status retry.

use greenroom::domain::ids::SessionId;
use greenroom::ports::agent_server::SessionStatus;
use serde_json::{Value, json};

use crate::harness::{Harness, error_event, job, status_event, story};
use crate::server::CallKind;

/// Returns the end of a task after this error.
fn ends_with(error: Value) -> String {
    let (notifications, state) = std::sync::mpsc::channel();
    story(move |s: Harness| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.event(error_event(&session, error)).await;
        // An abort is judged after its grace.
        s.advance_to(8000).await;
        notifications
            .send(s.state(&a).await)
            .expect("the test waits");
    });
    state.recv().expect("the story sends its result")
}

#[test]
fn error_text_is_found_in_every_shape() {
    let ends = |error, text: &str| assert_eq!(ends_with(error), format!("error: {text}"));
    let all = json!({"name": "N", "message": "m", "data": {"message": "d"}});
    ends(all, "d");
    ends(json!({"name": "N", "message": "m", "data": {}}), "m");
    ends(json!({"name": "N"}), "N");
    ends(json!("plain"), "plain");
    ends(json!({}), "unknown error");
    ends(Value::Null, "unknown error");
}

#[test]
fn external_abort_interrupts() {
    assert_eq!(
        ends_with(json!({"name": "MessageAbortedError", "data": {"message": "Aborted"}})),
        "interrupt: the session was aborted from outside"
    );
}

#[test]
fn doubled_error_is_reported_once() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.fail(&a, "first").await;
        s.fail(&a, "second").await;
        s.idle(&a).await;
        s.advance_to(20_000).await;
        assert_eq!(s.state(&a).await, "error: first");
        assert_eq!(s.notifications_to("P"), ["6000 final wakes: a error"]);
    });
}

#[test]
fn abort_echo_is_ignored_before_resumed_run_is_busy() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        assert!(s.cancel(&a).await);
        s.resume(&a).await;
        s.advance_to(6100).await;
        s.event(crate::harness::abort_event(
            &s.server.session_of(&a).expect("it runs"),
        ))
        .await;
        assert_eq!(s.state(&a).await, "running");
        // After the run was seen busy, an abort is real.
        s.advance_to(7000).await;
        s.busy(&a).await;
        s.advance_to(8000).await;
        s.abort_externally(&a).await;
        s.advance_to(10_000).await;
        assert_eq!(
            s.state(&a).await,
            "interrupt: the session was aborted from outside"
        );
    });
}

#[test]
fn other_error_of_resumed_run_is_not_an_echo() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        assert!(s.cancel(&a).await);
        s.resume(&a).await;
        s.advance_to(6100).await;
        s.fail(&a, "overloaded").await;
        assert_eq!(s.state(&a).await, "error: overloaded");
    });
}

#[test]
fn busy_of_previous_run_does_not_confirm_echo() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(5900).await;
        s.server
            .set_next_outcome(CallKind::Statuses, crate::server::CallOutcome::Late(2000));
        s.advance_to(6500).await;
        assert_eq!(s.times(CallKind::Statuses).last(), Some(&6000));
        assert!(s.cancel(&a).await);
        s.advance_to(7000).await;
        s.resume(&a).await;
        s.idle_without_event(&a);
        // The poll of 6 s reports at 8 s that the session was busy, which belongs to the previous run.
        s.advance_to(8500).await;
        s.event(crate::harness::abort_event(&session)).await;
        assert_eq!(s.state(&a).await, "running");
    });
}

fn retry(session: &SessionId, attempt: u32, next: i64) -> Value {
    status_event(
        session,
        json!({"type": "retry", "attempt": attempt, "message": "overloaded", "next": next}),
    )
}

#[test]
fn retry_is_shown_in_record() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.event(retry(&session, 2, 8000)).await;
        let retrying = s.task(&a).await.retrying.expect("it backs off");
        assert_eq!(retrying.message, "overloaded");
        assert_eq!(retrying.attempt, Some(2));
        assert_eq!(retrying.until.map(|at| at.as_millis()), Some(8000));
        s.advance_to(9000).await;
        s.stream_text(&a).await;
        assert_eq!(s.task(&a).await.retrying, None);
    });
}

#[test]
fn ten_minutes_of_retries_end_run() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(10_000).await;
        let backing_off = SessionStatus::Retry {
            attempt: Some(1),
            message: "overloaded".to_owned(),
            until: None,
        };
        s.server.set_status(&session, Some(backing_off));
        for (second, attempt) in [(10, 1), (40, 2), (300, 3), (580, 4)] {
            s.advance_to(second * 1000).await;
            s.event(retry(&session, attempt, 0)).await;
            // Between two attempts the server reports busy, which does not end the backing off.
            s.event(status_event(&session, json!({"type": "busy"})))
                .await;
        }
        s.advance_to(609_999).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(610_000).await;
        assert_eq!(
            s.state(&a).await,
            "error: overloaded (the provider was retried for 10m 0s in vain)"
        );
        assert_eq!(s.calls(CallKind::Abort), [format!("610000 {session}")]);
        assert_eq!(s.notifications_to("P"), ["610000 final wakes: a error"]);
    });
}

#[test]
fn retry_seen_by_poll_has_deadline() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        let backing_off = SessionStatus::Retry {
            attempt: Some(1),
            message: "rate limited".to_owned(),
            until: None,
        };
        s.server.set_status(&session, Some(backing_off));
        s.advance_to(3000).await;
        assert!(s.task(&a).await.retrying.is_some(), "a poll saw it");
        s.advance_to(602_999).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(603_000).await;
        assert!(s.state(&a).await.starts_with("error: rate limited"));
    });
}

#[test]
fn activity_restarts_retry_deadline() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(10_000).await;
        s.event(retry(&session, 1, 0)).await;
        s.advance_to(500_000).await;
        s.stream_text(&a).await;
        s.advance_to(510_000).await;
        s.event(retry(&session, 1, 0)).await;
        s.advance_to(1_100_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(1_110_000).await;
        assert!(s.state(&a).await.starts_with("error: overloaded"));
    });
}

#[test]
fn abort_during_retry_is_detected_by_empty_message() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.event(retry(&session, 1, 0)).await;
        s.advance_to(8000).await;
        let info = json!({"role": "assistant", "time": {"completed": 8000}});
        let info = s.server.add_message(&session, info, json!([]));
        s.event(crate::harness::message_event(&session, &info))
            .await;
        s.idle(&a).await;
        s.advance_to(10_000).await;
        assert_eq!(
            s.state(&a).await,
            "interrupt: the session was aborted from outside"
        );
    });
}
