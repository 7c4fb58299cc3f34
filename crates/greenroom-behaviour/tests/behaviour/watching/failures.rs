//! session.error and session.status retry.

use greenroom::domain::ids::SessionId;
use greenroom::ports::agent_server::SessionStatus;
use serde_json::{Value, json};

use crate::harness::{Harness, error_event, job, status_event, story};
use crate::server::CallKind;

/// What a task ends with after this error.
fn ends_with(error: Value) -> String {
    let (told, state) = std::sync::mpsc::channel();
    story(move |s: Harness| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.event(error_event(&session, error)).await;
        told.send(s.state(&a).await).expect("the test waits");
    });
    state.recv().expect("the story tells")
}

#[test]
fn the_text_of_an_error_is_found_in_every_shape() {
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
fn an_abort_we_did_not_ask_for_interrupts() {
    assert_eq!(
        ends_with(json!({"name": "MessageAbortedError", "data": {"message": "Aborted"}})),
        "interrupt: the session was aborted from outside"
    );
}

#[test]
fn an_error_of_a_session_is_told_once_though_the_server_says_it_twice() {
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
fn the_echo_of_an_abort_does_nothing_to_a_resumed_run_not_seen_busy() {
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
        // Once it was seen busy an abort is real.
        s.advance_to(7000).await;
        s.busy(&a).await;
        s.advance_to(8000).await;
        s.abort_externally(&a).await;
        assert_eq!(
            s.state(&a).await,
            "interrupt: the session was aborted from outside"
        );
    });
}

#[test]
fn another_error_of_a_resumed_run_is_no_echo() {
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
fn a_busy_of_the_run_before_does_not_make_the_echo_real() {
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
        // The poll of 6 s says at 8 s that the session was busy: that was the run before.
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
fn a_provider_that_backs_off_shows_in_the_record() {
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
fn after_ten_minutes_of_nothing_but_retries_the_run_ends_with_the_providers_text() {
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
            // Between two attempts the server says busy: that is nothing else.
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
fn a_retry_seen_by_a_poll_alone_has_its_deadline_too() {
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
fn work_in_between_begins_the_ten_minutes_again() {
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
fn an_abort_while_the_provider_is_retried_is_known_by_its_empty_message() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.event(retry(&session, 1, 0)).await;
        s.advance_to(8000).await;
        let info = json!({"role": "assistant", "time": {"completed": 8000}});
        s.server.add_message(&session, info, json!([]));
        s.idle(&a).await;
        assert_eq!(
            s.state(&a).await,
            "interrupt: the session was aborted from outside"
        );
    });
}
