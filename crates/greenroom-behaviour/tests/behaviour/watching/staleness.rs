//! Stale and silent runs: the last sign of life and the rules that apply.

use std::time::Duration;

use greenroom::domain::ids::{SessionId, TaskId};
use greenroom::ports::agent_server::SessionStatus;
use serde_json::json;

use crate::harness::{Harness, job, job_of, status_event, story, story_with};
use crate::server::{CallKind, CallOutcome, status};

/// A run with only a blank text, which is no longer listed.
async fn silent(s: &Harness) -> (TaskId, SessionId) {
    let a = s.launch(job("a")).await;
    let session = s.server.session_of(&a).expect("it runs");
    let info = json!({"role": "assistant", "finish": "stop", "time": {"completed": 0}});
    s.server
        .add_message(&session, info, json!([{"type": "text", "text": " "}]));
    s.idle_without_event(&a);
    (a, session)
}

#[test]
fn silence_without_output_cancels() {
    story(|s| async move {
        let (a, session) = silent(&s).await;
        s.advance_to(10_000).await;
        s.stream_text(&a).await;
        // 180 s are not more than three minutes; the rule is applied at each poll.
        s.advance_to(190_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(192_000).await;
        assert_eq!(
            s.state(&a).await,
            "cancelled: Stale timeout (no activity for 3min)"
        );
        assert_eq!(s.calls(CallKind::Abort), [format!("192000 {session}")]);
        assert_eq!(s.notifications_to("P"), ["192000 final wakes: a cancelled"]);
    });
}

#[test]
fn silence_with_open_todos_completes_with_note() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server
            .set_todos(&session, &[("x", "pending"), ("y", "in_progress")]);
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(187_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(189_000).await;
        assert_eq!(s.state(&a).await, "completed (2 todos left open)");
    });
}

#[test]
fn busy_or_retry_status_prevents_staleness() {
    story(|s| async move {
        let (a, session) = silent(&s).await;
        for minute in 1..12 {
            s.advance_to(minute * 60_000 - 500).await;
            let status = if minute % 2 == 0 { "busy" } else { "retry" };
            let event = status_event(&session, json!({"type": status, "message": "x"}));
            s.event(event).await;
            s.idle(&a).await;
        }
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(11 * 60_000 + 183_000).await;
        assert!(s.state(&a).await.starts_with("cancelled: Stale timeout"));
    });
}

#[test]
fn run_is_not_stale_in_first_thirty_seconds() {
    story_with(
        |config| {
            config.lifecycle.stale_timeout = Duration::from_secs(1);
            config.lifecycle.not_taken_up = None;
        },
        |s| async move {
            let (a, _) = silent(&s).await;
            s.advance_to(29_999).await;
            assert_eq!(s.state(&a).await, "running");
            s.advance_to(30_000).await;
            assert_eq!(
                s.state(&a).await,
                "cancelled: Stale timeout (no activity for 1s)"
            );
        },
    );
}

#[test]
fn task_with_queued_child_is_not_stale() {
    story_with(
        |config| config.limits.models.extend([("child".to_owned(), 1)]),
        |s| async move {
            let (a, session) = silent(&s).await;
            let by_child = |parent: &str, name: &str| greenroom::domain::task::Launch {
                agent: "child".to_owned(),
                ..job_of(parent, name)
            };
            let blocks = s.launch(by_child("Q", "blocks")).await;
            let waits = s.launch(by_child(session.as_str(), "waits")).await;
            for minute in 1..=10 {
                s.advance_to(minute * 60_000).await;
                s.stream_text(&blocks).await;
            }
            assert_eq!(s.state(&waits).await, "pending");
            assert_eq!(s.state(&a).await, "running");
        },
    );
}

#[test]
fn task_with_running_child_is_not_stale() {
    story(|s| async move {
        let (a, session) = silent(&s).await;
        let child = s.launch(job_of(session.as_str(), "child")).await;
        for minute in 1..=5 {
            s.advance_to(minute * 60_000).await;
            s.stream_text(&child).await;
        }
        assert_eq!(s.state(&a).await, "running");
        s.finish_turn(&child).await;
        s.advance_to(479_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(486_000).await;
        assert!(s.state(&a).await.starts_with("cancelled: Stale timeout"));
    });
}

#[test]
fn busy_without_activity_for_half_an_hour_is_an_error() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(60_000).await;
        s.stream_text(&a).await;
        for minute in (2..=30).step_by(4) {
            // A busy status moves only the clock of the stale rule.
            s.advance_to(minute * 60_000).await;
            s.busy(&a).await;
        }
        s.advance_to(31 * 60_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(31 * 60_000 + 3000).await;
        assert_eq!(
            s.state(&a).await,
            "error: no activity for 30m 0s although the session is busy"
        );
        assert_eq!(s.calls(CallKind::Abort), [format!("1863000 {session}")]);
    });
}

#[test]
fn unreadable_status_for_half_an_hour_is_an_error() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.server
            .set_outcome(CallKind::Statuses, CallOutcome::Fails(status(500)));
        s.advance_to(29 * 60_000).await;
        assert_eq!(s.state(&a).await, "running", "unknown is not stale");
        s.advance_to(30 * 60_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(30 * 60_000 + 3000).await;
        assert!(
            s.state(&a).await.starts_with("error: "),
            "{}",
            s.state(&a).await
        );
        assert_eq!(s.calls(CallKind::Abort).len(), 1);
    });
}

#[test]
fn activity_restarts_half_hour() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(29 * 60_000).await;
        s.stream_text(&a).await;
        s.advance_to(58 * 60_000).await;
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn silence_counts_from_last_sign_of_life() {
    story(|s| async move {
        let (a, session) = silent(&s).await;
        for second in (10..600).step_by(100) {
            s.advance_to(second * 1000).await;
            s.stream_text(&a).await;
            s.server.set_status(&session, None);
        }
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn busy_again_resets_silence() {
    story(|s| async move {
        let (a, session) = silent(&s).await;
        s.advance_to(170_000).await;
        s.server.set_status(&session, Some(SessionStatus::Busy));
        s.advance_to(175_000).await;
        s.server.set_status(&session, None);
        s.advance_to(300_000).await;
        assert_eq!(s.state(&a).await, "running");
    });
}
