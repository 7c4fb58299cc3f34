//! The completion check: output of this run, no open todo, no open child, no pending message to the session.

use serde_json::{Value, json};

use crate::harness::{Harness, job, job_of, story};
use crate::server::{CallKind, CallOutcome, not_found, status};

/// Returns the state at 9 s of a task that is idle at 6 s with one assistant message of these parts.
fn with_parts(role: &'static str, parts: Value) -> String {
    let (notifications, state) = std::sync::mpsc::channel();
    story(move |s: Harness| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        let info = json!({"role": role, "finish": "stop", "time": {"completed": 6000}});
        s.server.add_message(&session, info, parts);
        s.idle(&a).await;
        s.advance_to(9000).await;
        notifications
            .send(s.state(&a).await)
            .expect("the test waits");
    });
    state.recv().expect("the story sends its result")
}

#[test]
fn text_reasoning_and_tools_are_output() {
    let done = |role, parts| assert_eq!(with_parts(role, parts), "completed");
    done("assistant", json!([{"type": "text", "text": "x"}]));
    done("assistant", json!([{"type": "reasoning", "text": "hm"}]));
    done("assistant", json!([{"type": "tool", "tool": "bash"}]));
    done("tool", json!([{"type": "tool_result", "content": "ok"}]));
    done(
        "tool",
        json!([{"type": "tool_result", "content": [{"type": "text", "text": ""}]}]),
    );
    done(
        "assistant",
        json!([{"type": "text", "text": ""}, {"type": "text", "text": "y"}]),
    );
}

#[test]
fn blank_texts_steps_and_user_messages_are_not_output() {
    let waits = |role, parts| assert_eq!(with_parts(role, parts), "running");
    waits("assistant", json!([{"type": "text", "text": " \n"}]));
    waits("assistant", json!([{"type": "reasoning", "text": ""}]));
    waits(
        "assistant",
        json!([{"type": "step-start"}, {"type": "step-finish"}]),
    );
    waits("tool", json!([{"type": "tool_result", "content": ""}]));
    waits("tool", json!([{"type": "tool_result", "content": []}]));
    waits("user", json!([{"type": "text", "text": "hello"}]));
}

#[test]
fn open_todo_keeps_task_running() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        for status in ["pending", "in_progress", "blocked"] {
            s.server
                .set_todos(&session, &[("one", "completed"), ("two", status)]);
            s.answer(&a, "so far").await;
            s.idle(&a).await;
            assert_eq!(s.state(&a).await, "running", "{status}");
        }
        s.server
            .set_todos(&session, &[("one", "completed"), ("two", "cancelled")]);
        s.idle(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn next_poll_repeats_check() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(7000).await;
        s.server.set_todos(&session, &[("two", "pending")]);
        s.finish_turn(&a).await;
        s.server.set_todos(&session, &[]);
        s.advance_to(12_000).await;
        assert_eq!(s.state(&a).await, "completed");
        let task = s.task(&a).await;
        assert_eq!(task.completed_at().map(|at| at.as_millis()), Some(12_000));
    });
}

#[test]
fn open_child_prevents_completion() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        let child = s.launch(job_of(session.as_str(), "child")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(60_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.finish_turn(&child).await;
        assert_eq!(
            s.notifications_to(session.as_str()),
            ["60000 final wakes: child completed"]
        );
        s.advance_to(62_000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(s.notifications_to("P"), ["62000 final wakes: a completed"]);
    });
}

#[test]
fn child_launched_during_check_prevents_completion() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.server
            .set_next_outcome_for(CallKind::Todos, session.clone(), CallOutcome::Late(800));
        s.finish_turn(&a).await;
        s.advance_to(6700).await;
        let child = s.launch(job_of(session.as_str(), "child")).await;
        s.advance_to(7000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.state(&child).await, "running");
    });
}

#[test]
fn pending_message_prevents_completion() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        let child = s.launch(job_of(session.as_str(), "child")).await;
        s.advance_to(10_000).await;
        s.finish_turn(&a).await;
        s.server.set_outcome_for(
            CallKind::Notify,
            session.clone(),
            CallOutcome::Fails(status(500)),
        );
        s.finish_turn(&child).await;
        assert_eq!(s.state(&child).await, "completed");
        s.advance_to(30_000).await;
        assert_eq!(s.state(&a).await, "running", "its wake is still owed");
        s.server.clear_outcomes(CallKind::Notify);
        s.advance_to(50_000).await;
        assert!(s.notifications_to(session.as_str()).len() > 2);
        s.advance_to(60_000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn one_check_at_a_time() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.server
            .set_next_outcome_for(CallKind::Messages, session, CallOutcome::Late(2000));
        s.answer_without_event(&a, "done");
        s.idle(&a).await;
        s.advance_to(6500).await;
        s.idle(&a).await;
        s.advance_to(7000).await;
        s.idle(&a).await;
        assert_eq!(s.times(CallKind::Messages), [6000]);
        s.advance_to(8000).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn sign_of_life_during_check_drops_answer() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.server
            .set_next_outcome_for(CallKind::Messages, session, CallOutcome::Late(2000));
        s.finish_turn(&a).await;
        s.advance_to(7000).await;
        s.busy(&a).await;
        s.advance_to(8000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(30_000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn check_of_earlier_run_is_ignored() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.server
            .set_next_outcome_for(CallKind::Messages, session, CallOutcome::Late(4000));
        s.finish_turn(&a).await;
        assert!(s.cancel(&a).await);
        s.resume(&a).await;
        s.advance_to(10_000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.task(&a).await.run.0, 2);
    });
}

#[test]
fn failed_check_is_retried_and_completes_after_three() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(8000).await;
        s.server.set_outcome_for(
            CallKind::Messages,
            session.clone(),
            CallOutcome::Fails(status(500)),
        );
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(12_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(15_000).await;
        assert_eq!(
            s.state(&a).await,
            "completed (taken as done; its messages could not be read: refused with 500)"
        );
        let about_it = s.calls(CallKind::Messages);
        let about_it = about_it
            .iter()
            .filter(|call| call.ends_with(session.as_str()));
        assert_eq!(about_it.count(), 3);
    });
}

#[test]
fn only_consecutive_failures_count() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server.set_todos(&session, &[("one", "pending")]);
        s.advance_to(6000).await;
        let fails = || {
            s.server.set_next_outcome_for(
                CallKind::Messages,
                session.clone(),
                CallOutcome::Fails(status(500)),
            )
        };
        fails();
        fails();
        s.finish_turn(&a).await;
        s.idle(&a).await;
        // The third is answered, the fourth and fifth are not.
        s.idle(&a).await;
        fails();
        fails();
        s.idle(&a).await;
        s.idle(&a).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.times(CallKind::Messages).len(), 5);
    });
}

#[test]
fn unreadable_todos_fail_check() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server
            .set_next_outcome(CallKind::Todos, CallOutcome::Hangs);
        s.finish_turn(&a).await;
        s.advance_to(15_999).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(19_000).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(s.times(CallKind::Todos), [6000, 18_000]);
    });
}

#[test]
fn missing_session_is_an_error() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.server
            .set_next_outcome_for(CallKind::Messages, session, CallOutcome::Fails(not_found()));
        s.finish_turn(&a).await;
        assert_eq!(
            s.state(&a).await,
            "error: the session does not exist any more"
        );
    });
}

#[test]
fn answer_with_error_is_a_failure() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        let info = json!({"role": "assistant", "time": {"completed": 6000},
            "error": {"name": "APIError", "data": {"message": "out of credit"}}});
        s.server
            .add_message(&session, info, json!([{"type": "text", "text": "half"}]));
        s.idle(&a).await;
        assert_eq!(s.state(&a).await, "error: out of credit");
    });
}

#[test]
fn output_of_previous_run_does_not_count() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        s.advance_to(8000).await;
        s.resume(&a).await;
        s.advance_to(14_000).await;
        s.idle(&a).await;
        s.advance_to(20_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn message_without_id_and_time_counts() {
    story(|s| async move {
        s.server.add_session("S", None);
        s.track("t", "S", None).await;
        let t = "t".into();
        s.advance_to(6000).await;
        assert!(s.cancel(&t).await);
        s.advance_to(8000).await;
        s.resume("S").await;
        s.advance_to(14_000).await;
        s.server.add_bare_message(&"S".into(), "done");
        s.idle("S").await;
        assert_eq!(s.state(&t).await, "completed");
    });
}
