//! The abort of an ended run: it is repeated when it fails or is lost, and only a resume of its session waits
//! for it.

use greenroom::ports::agent_server::SessionStatus;

use crate::harness::{job, story};
use crate::server::{CallKind, CallOutcome, not_found, status, unreachable};

#[test]
fn failed_abort_is_retried_three_times() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server
            .set_outcome(CallKind::Abort, CallOutcome::Fails(status(500)));
        s.finish_turn(&a).await;
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000, 6000, 6000]);
        assert_eq!(s.state(&a).await, "completed", "it never changes the state");
        assert_eq!(s.notifications_to("P"), ["6000 final wakes: a completed"]);
    });
}

#[test]
fn unreachable_abort_is_retried() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server
            .set_next_outcome(CallKind::Abort, CallOutcome::Fails(unreachable()));
        s.server
            .set_next_outcome(CallKind::Abort, CallOutcome::Fails(status(503)));
        assert!(s.cancel(&a).await);
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000, 6000, 6000]);
    });
}

#[test]
fn unsent_abort_is_made_on_reconnect() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server.go_offline();
        assert!(s.cancel(&a).await);
        s.advance_to(30_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000, 6000, 6000]);
        s.server.come_online();
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000, 6000, 6000, 31_500]);
        assert_eq!(s.state(&a).await, "cancelled");
    });
}

#[test]
fn idle_session_is_not_aborted_on_reconnect() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server.go_offline();
        assert!(s.cancel(&a).await);
        s.advance_to(10_000).await;
        s.server.forget_turns();
        s.server.come_online();
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000, 6000, 6000]);
    });
}

#[test]
fn resume_replaces_abort_waiting_for_server() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server
            .set_outcome(CallKind::Abort, CallOutcome::Fails(unreachable()));
        s.server
            .set_outcome(CallKind::Statuses, CallOutcome::Fails(unreachable()));
        assert!(s.cancel(&a).await);
        s.advance_to(7000).await;
        s.resume(&a).await;
        assert_eq!(s.state(&a).await, "running");
        s.server.clear_outcomes(CallKind::Abort);
        s.server.clear_outcomes(CallKind::Statuses);
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000, 6000, 6000]);
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn abort_waits_ten_minutes_for_server() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server.go_offline();
        assert!(s.cancel(&a).await);
        s.advance_to(700_000).await;
        let polls = s.times(CallKind::Statuses).len();
        s.server.come_online();
        s.advance_to(900_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000, 6000, 6000]);
        assert_eq!(s.times(CallKind::Statuses).len(), polls);
    });
}

#[test]
fn abort_times_out_after_ten_seconds() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let b = s.launch(job("b")).await;
        let (sa, sb) = (s.server.session_of(&a), s.server.session_of(&b));
        let (sa, sb) = (sa.expect("a runs"), sb.expect("b runs"));
        s.advance_to(6000).await;
        s.server
            .set_outcome_for(CallKind::Abort, &*sa.to_string(), CallOutcome::Hangs);
        assert!(s.cancel(&a).await);
        assert_eq!(s.in_use().await, 1, "the slot does not wait for the abort");
        s.advance_to(7000).await;
        assert!(s.cancel(&b).await);
        s.advance_to(60_000).await;
        let expected = [
            format!("6000 {sa}"),
            format!("7000 {sb}"),
            format!("16000 {sa}"),
            format!("26000 {sa}"),
        ];
        assert_eq!(
            s.calls(CallKind::Abort),
            expected,
            "and blocks no other abort"
        );
    });
}

#[test]
fn lost_abort_is_repeated_after_a_second() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server
            .set_next_outcome(CallKind::Abort, CallOutcome::Ignored);
        assert!(s.cancel(&a).await);
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000, 7000]);
    });
}

#[test]
fn lost_abort_is_repeated_twice_at_most() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server.set_outcome(CallKind::Abort, CallOutcome::Ignored);
        assert!(s.cancel(&a).await);
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000, 7000, 8000]);
    });
}

#[test]
fn retrying_session_counts_as_busy_after_abort() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server
            .set_next_outcome(CallKind::Abort, CallOutcome::Ignored);
        let retry = SessionStatus::Retry {
            attempt: Some(2),
            message: "overloaded".to_owned(),
            until: None,
        };
        s.server.set_status(&session, Some(retry));
        assert!(s.cancel(&a).await);
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000, 7000]);
    });
}

#[test]
fn lost_abort_is_not_repeated_in_resumed_run() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server.set_outcome(CallKind::Abort, CallOutcome::Ignored);
        assert!(s.cancel(&a).await);
        s.advance_to(6500).await;
        s.resume(&a).await;
        assert_eq!(s.times(CallKind::Prompt), [0, 6500]);
        s.advance_to(20_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000]);
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn lost_abort_is_not_repeated_if_resumed_during_status_read() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server
            .set_next_outcome(CallKind::Abort, CallOutcome::Ignored);
        assert!(s.cancel(&a).await);
        s.advance_to(6900).await;
        s.server
            .set_next_outcome(CallKind::Statuses, CallOutcome::Late(500));
        s.advance_to(7200).await;
        assert_eq!(
            s.times(CallKind::Statuses).last(),
            Some(&7000),
            "it is being read"
        );
        s.resume(&a).await;
        s.advance_to(20_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000]);
    });
}

#[test]
fn abort_is_not_repeated_in_foreign_turn() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        s.advance_to(6300).await;
        s.user_prompts(&a, None, None).await;
        s.busy(&a).await;
        s.advance_to(20_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000], "that turn is the user's");
    });
}

#[test]
fn abort_is_not_repeated_in_tracked_session() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(6300).await;
        s.track("t", &session, None).await;
        s.busy(session.as_str()).await;
        s.advance_to(12_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000]);
        assert_eq!(s.state(&"t".into()).await, "running");
    });
}

#[test]
fn only_resume_of_session_waits_for_abort() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        s.server
            .set_next_outcome(CallKind::Abort, CallOutcome::Late(4000));
        assert!(s.cancel(&a).await);
        s.advance_to(6500).await;
        s.resume(&a).await;
        s.finish_turn(&b).await;
        assert_eq!(s.state(&b).await, "completed");
        assert_eq!(s.state(&a).await, "pending");
        s.resume(&b).await;
        assert_eq!(s.state(&b).await, "running");
        s.advance_to(9999).await;
        assert_eq!(s.state(&a).await, "pending");
        s.advance_to(10_000).await;
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn missing_session_needs_no_abort() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server
            .set_outcome(CallKind::Abort, CallOutcome::Fails(not_found()));
        assert!(s.cancel(&a).await);
        s.advance_to(20_000).await;
        assert_eq!(s.times(CallKind::Abort), [6000]);
    });
}
