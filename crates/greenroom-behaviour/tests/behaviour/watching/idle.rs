//! Idle: deferred in the first five seconds of a run unless the turn is known to be finished, and dropped by
//! a sign of life.

use greenroom::domain::ids::SessionId;
use greenroom::ports::agent_server::SessionStatus;
use serde_json::{Value, json};

use crate::harness::{Harness, job, message_event, status_event, story};
use crate::server::{CallKind, CallOutcome};

#[test]
fn early_idle_is_deferred() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(2000).await;
        s.answer_without_event(&a, "done");
        s.idle(&a).await;
        s.advance_to(3500).await;
        s.idle(&a).await;
        s.advance_to(4999).await;
        assert_eq!(s.state(&a).await, "running");
        assert!(s.times(CallKind::Messages).is_empty());
        s.advance_to(5000).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(s.notifications_to("P"), ["5000 final wakes: a completed"]);
    });
}

#[test]
fn idle_after_guard_completes_at_once() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(5000).await;
        s.answer_without_event(&a, "done");
        s.idle(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn idle_status_counts_as_idle() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.answer_without_event(&a, "done");
        s.idle_without_event(&a);
        s.event(status_event(&session, json!({"type": "idle"})))
            .await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn guard_starts_with_run() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Late(10_000));
        let a = s.launch(job("a")).await;
        s.advance_to(12_000).await;
        s.answer_without_event(&a, "done");
        s.idle(&a).await;
        s.advance_to(14_999).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(15_000).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn two_second_task_completes_after_two_seconds() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(2000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(s.notifications_to("P"), ["2000 final wakes: a completed"]);
    });
}

/// Returns the time at which a task completes that is idle at 2 s with this last message.
fn believed_at(busy: bool, info: Value) -> i64 {
    let (notifications, believed) = std::sync::mpsc::channel();
    story(move |s: Harness| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(2000).await;
        s.answer_without_event(&a, "done");
        if busy {
            s.busy(&a).await;
        }
        s.event(message_event(&session, &info)).await;
        s.idle(&a).await;
        s.advance_to(20_000).await;
        let task = s.task(&a).await;
        let ended = task.completed_at().map(|at| at.as_millis());
        notifications
            .send(ended.expect("it ended"))
            .expect("the test waits");
    });
    believed.recv().expect("the story sends its result")
}

#[test]
fn finished_turn_of_busy_run_ends_deferral() {
    let message = |time: Value, finish: Value| json!({"id": "msg_z", "role": "assistant", "time": time, "finish": finish});
    let done = json!({"created": 1, "completed": 2});
    assert_eq!(
        believed_at(true, message(done.clone(), json!("stop"))),
        2000
    );
    assert_eq!(
        believed_at(true, message(done.clone(), json!("length"))),
        2000
    );
    assert_eq!(
        believed_at(true, message(done.clone(), json!("tool-calls"))),
        5000
    );
    assert_eq!(believed_at(true, message(done.clone(), Value::Null)), 5000);
    assert_eq!(
        believed_at(true, message(json!({"created": 1}), json!("stop"))),
        5000
    );
    assert_eq!(believed_at(false, message(done, json!("stop"))), 5000);
}

#[test]
fn newer_unfinished_message_keeps_deferral() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(1000).await;
        s.busy(&a).await;
        let done = json!({"id": "msg_1", "role": "assistant", "finish": "stop",
            "time": {"created": 1, "completed": 2}});
        s.event(message_event(&session, &done)).await;
        s.event(message_event(
            &session,
            &json!({"id": "msg_2", "role": "assistant"}),
        ))
        .await;
        s.idle(&a).await;
        assert!(s.times(CallKind::Messages).is_empty(), "deferred");
        s.advance_to(5000).await;
        assert_eq!(s.times(CallKind::Messages), [5000]);
    });
}

#[test]
fn busy_poll_drops_deferred_idle() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(2000).await;
        s.answer_without_event(&a, "done");
        s.idle(&a).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server.set_status(&session, Some(SessionStatus::Busy));
        s.advance_to(5500).await;
        assert_eq!(s.state(&a).await, "running");
        assert!(s.times(CallKind::Messages).is_empty());
    });
}

#[test]
fn older_busy_poll_keeps_deferred_idle() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.server
            .set_next_outcome(CallKind::Statuses, CallOutcome::Late(1500));
        s.advance_to(4000).await;
        s.answer_without_event(&a, "done");
        s.idle(&a).await;
        // The poll of 3 s is answered at 4.5 s with the state at 3 s.
        s.advance_to(5000).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn doubled_idle_completes_once() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        s.answer_without_event(&a, "done");
        s.send_event(crate::harness::idle_event(&session));
        s.send_event(status_event(&session, json!({"type": "idle"})));
        s.idle(&a).await;
        s.advance_to(7000).await;
        s.idle(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        s.advance_to(30_000).await;
        assert_eq!(s.notifications_to("P"), ["6000 final wakes: a completed"]);
    });
}

#[test]
fn deferred_idle_ends_with_run() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(2000).await;
        s.answer_without_event(&a, "done");
        s.idle(&a).await;
        assert!(s.cancel(&a).await);
        s.advance_to(3000).await;
        s.resume(&a).await;
        s.advance_to(5000).await;
        assert_eq!(
            s.state(&a).await,
            "running",
            "the timer of the first run is dead"
        );
        s.advance_to(7000).await;
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn send_restarts_guard() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(20_000).await;
        let (greenroom, id) = (s.greenroom.clone(), a.clone());
        s.resolve(async move { greenroom.send(&id, "also this".to_owned()).await })
            .await
            .expect("it is sent");
        s.advance_to(21_000).await;
        s.answer_without_event(&a, "done");
        s.idle(&a).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(25_000).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn wake_restarts_guard() {
    story(|s| async move {
        let parent = s.launch(job("parent")).await;
        let session: SessionId = s.server.session_of(&parent).expect("it runs");
        let child = s
            .launch(crate::harness::job_of(session.as_str(), "child"))
            .await;
        s.advance_to(20_000).await;
        s.answer_without_event(&parent, "waiting");
        s.idle(&parent).await;
        s.advance_to(21_000).await;
        s.finish_turn(&child).await;
        assert_eq!(
            s.notifications_to(session.as_str()),
            ["21000 final wakes: child completed"]
        );
        // The idle event of the previous turn is late; it does not answer the wake.
        s.advance_to(21_500).await;
        s.idle(&parent).await;
        assert_eq!(s.state(&parent).await, "running");
        s.advance_to(23_000).await;
        s.finish_turn(&parent).await;
        assert_eq!(
            s.state(&parent).await,
            "completed",
            "only an assistant message finished since then lifts them"
        );
    });
}
