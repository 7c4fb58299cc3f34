//! The poller detects changes whose events were lost. An absent session is idle only after two polls, and a
//! failed poll has no meaning.

use greenroom::Config;
use greenroom::domain::task::Launch;
use greenroom::ports::agent_server::SessionStatus;

use crate::harness::{Harness, job, story, story_with};
use crate::server::{CallKind, CallOutcome, not_found, status};

/// Makes the poller the only caller of the status call: no parent, no check after an abort.
fn only_the_poll(config: &mut Config) {
    config.lifecycle.look_after_abort = false;
}

fn alone(name: &str) -> Launch {
    Launch {
        parent_session: None,
        ..job(name)
    }
}

#[test]
fn poller_ticks_while_tasks_run() {
    story_with(only_the_poll, |s| async move {
        s.advance_to(1000).await;
        let a = s.launch(alone("a")).await;
        s.advance_to(8000).await;
        let b = s.launch(alone("b")).await;
        s.advance_to(11_000).await;
        s.finish_turn(&a).await;
        s.advance_to(14_500).await;
        s.finish_turn(&b).await;
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Statuses), [4000, 7000, 10_000, 13_000]);
        // The next run starts its own phase.
        s.launch(alone("c")).await;
        s.advance_to(64_000).await;
        assert_eq!(s.times(CallKind::Statuses)[4..], [63_000]);
    });
}

#[test]
fn phase_is_kept_while_tasks_run() {
    story_with(only_the_poll, |s| async move {
        let a = s.launch(alone("a")).await;
        s.advance_to(7000).await;
        s.finish_turn(&a).await;
        s.advance_to(8000).await;
        s.launch(alone("b")).await;
        s.advance_to(13_000).await;
        assert_eq!(s.times(CallKind::Statuses), [3000, 6000, 9000, 12_000]);
    });
}

#[test]
fn one_call_for_each_directory() {
    story_with(only_the_poll, |s| async move {
        let there = |name: &str| Launch {
            directory: Some("/there".to_owned()),
            ..alone(name)
        };
        s.launch(alone("a")).await;
        s.launch(alone("b")).await;
        s.launch(there("c")).await;
        s.launch(there("d")).await;
        s.advance_to(6500).await;
        assert_eq!(
            s.calls(CallKind::Statuses),
            ["3000 /base", "3000 /there", "6000 /base", "6000 /there"]
        );
    });
}

#[test]
fn one_call_in_flight_for_each_directory() {
    story_with(only_the_poll, |s| async move {
        s.launch(alone("a")).await;
        s.launch(Launch {
            directory: Some("/there".to_owned()),
            ..alone("b")
        })
        .await;
        s.server
            .set_next_outcome(CallKind::Statuses, CallOutcome::Hangs);
        s.advance_to(20_000).await;
        let here = s.calls(CallKind::Statuses).into_iter();
        let here: Vec<String> = here.filter(|call| call.ends_with("/base")).collect();
        assert_eq!(
            here,
            ["3000 /base", "15000 /base", "18000 /base"],
            "the first is given up after ten seconds"
        );
        let there = s.calls(CallKind::Statuses).into_iter();
        assert_eq!(there.filter(|call| call.ends_with("/there")).count(), 6);
    });
}

#[test]
fn session_listed_as_idle_is_idle() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(2000).await;
        s.answer_without_event(&a, "done");
        s.server.set_status(&session, Some(SessionStatus::Idle));
        s.advance_to(5999).await;
        assert_eq!(
            s.state(&a).await,
            "running",
            "never in the first five seconds"
        );
        s.advance_to(6000).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn absent_session_is_idle_after_two_polls() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(1000).await;
        s.answer_without_event(&a, "done");
        s.idle_without_event(&a);
        // 3 s is too early, 6 s is the first.
        s.advance_to(8999).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(9000).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn sign_of_life_resets_absence_count() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(1000).await;
        s.answer_without_event(&a, "done");
        s.idle_without_event(&a);
        s.advance_to(7000).await;
        s.stream_text(&a).await;
        s.advance_to(11_999).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(12_000).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn busy_poll_resets_absence_count() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.answer_without_event(&a, "done");
        s.idle_without_event(&a);
        s.advance_to(7000).await;
        s.server.set_status(&session, Some(SessionStatus::Busy));
        s.advance_to(10_000).await;
        s.idle_without_event(&a);
        s.advance_to(14_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(15_000).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn failed_poll_is_ignored() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.answer_without_event(&a, "done");
        s.advance_to(5000).await;
        s.server
            .set_outcome(CallKind::Statuses, CallOutcome::Fails(status(500)));
        s.idle_without_event(&a);
        s.advance_to(60_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.server.clear_outcomes(CallKind::Statuses);
        s.advance_to(63_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(66_000).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn poll_before_prompt_is_ignored() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Late(20_000));
        let a = s.launch(job("a")).await;
        s.advance_to(19_000).await;
        s.answer_without_event(&a, "the answer of another run");
        s.advance_to(22_000).await;
        assert_eq!(s.state(&a).await, "running");
        assert!(
            s.times(CallKind::Messages).is_empty(),
            "idle before its prompt is no idle"
        );
    });
}

/// Adds a session that only the call about it does not find.
async fn absent_without_output(s: &Harness) -> greenroom::domain::ids::TaskId {
    let a = s.launch(job("a")).await;
    s.idle_without_event(&a);
    a
}

#[test]
fn existence_is_checked_after_three_absences() {
    story(|s| async move {
        let a = absent_without_output(&s).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server
            .set_outcome_for(CallKind::Session, session, CallOutcome::Fails(not_found()));
        s.advance_to(11_999).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(12_000).await;
        assert_eq!(
            s.state(&a).await,
            "error: the session does not exist any more"
        );
    });
}

#[test]
fn unknown_existence_is_not_deletion() {
    story(|s| async move {
        let a = absent_without_output(&s).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server.set_outcome_for(
            CallKind::Session,
            session.clone(),
            CallOutcome::Fails(status(500)),
        );
        s.advance_to(30_000).await;
        assert_eq!(s.state(&a).await, "running");
        let lookups = s.calls(CallKind::Session).into_iter();
        assert!(
            lookups
                .filter(|call| call.ends_with(session.as_str()))
                .count()
                > 1
        );
    });
}

#[test]
fn idle_without_answer_is_not_taken_up() {
    story(|s| async move {
        let a = absent_without_output(&s).await;
        s.advance_to(35_999).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(36_000).await;
        assert_eq!(s.state(&a).await, "interrupt: the prompt was not taken up");
        assert_eq!(s.notifications_to("P"), ["36000 final wakes: a interrupt"]);
    });
}

#[test]
fn sign_of_life_restarts_not_taken_up_limit() {
    story(|s| async move {
        let a = absent_without_output(&s).await;
        s.advance_to(20_000).await;
        s.stream_text(&a).await;
        s.advance_to(50_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(52_000).await;
        assert_eq!(s.state(&a).await, "interrupt: the prompt was not taken up");
    });
}

#[test]
fn resumed_run_not_taken_up_uses_own_messages() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(10_000).await;
        s.resume(&a).await;
        s.idle_without_event(&a);
        s.advance_to(80_000).await;
        assert_eq!(s.state(&a).await, "interrupt: the prompt was not taken up");
    });
}

#[test]
fn tracked_session_is_polled_in_own_directory() {
    story_with(only_the_poll, |s| async move {
        s.server.add_session_in("S", "/there");
        s.track("t", "S", None).await;
        s.advance_to(3000).await;
        assert_eq!(s.calls(CallKind::Statuses), ["3000 /there"]);
    });
}
