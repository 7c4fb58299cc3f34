//! The calls of a start: refused, late, lost, of unknown outcome.

use greenroom::domain::task::Launch;
use greenroom::{EventLink, LaunchError};
use serde_json::json;

use super::prompts;
use crate::harness::{error_event, job, job_on, story, story_with};
use crate::server::{CallKind, CallOutcome, cut_off, not_found, status};

#[test]
fn refused_create_is_an_error() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Fails(status(400)));
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Ignored);
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Fails(not_found()));
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        let c = s.launch(job("c")).await;
        assert_eq!(s.state(&a).await, "error: refused with 400");
        assert_eq!(s.state(&b).await, "error: the answer has no id");
        assert_eq!(s.state(&c).await, "error: no such session");
        assert_eq!(s.in_use().await, 0);
        assert!(s.calls(CallKind::Abort).is_empty());
    });
}

#[test]
fn create_times_out_and_late_session_is_aborted() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Late(45_000));
        let a = s.launch(job("a")).await;
        s.advance_to(29_999).await;
        assert_eq!(s.state(&a).await, "pending");
        s.advance_to(30_000).await;
        assert_eq!(
            s.state(&a).await,
            "error: the session was not created within 30s"
        );
        assert_eq!(s.in_use().await, 0);
        s.advance_to(50_000).await;
        let late = s.server.session_of(&a).expect("it came late");
        assert_eq!(s.calls(CallKind::Abort), [format!("45000 {late}")]);
        assert!(s.calls(CallKind::Prompt).is_empty());
        assert_eq!(s.notifications_to("P"), ["30000 final wakes: a error"]);
    });
}

#[test]
fn create_answered_at_limit_counts() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Late(30_000));
        let a = s.launch(job("a")).await;
        s.advance_to(30_000).await;
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn create_of_unknown_outcome_is_found() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Cut(cut_off()));
        let a = s.launch(job("a")).await;
        s.advance_to(10_000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.calls(CallKind::Create).len(), 1, "it is not repeated");
        assert_eq!(s.calls(CallKind::Below), ["500 P"]);
        let session = s.server.session_of(&a).expect("it was made");
        assert_eq!(s.calls(CallKind::Prompt), [format!("500 {session}")]);
    });
}

#[test]
fn create_that_did_not_arrive_is_repeated() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Fails(cut_off()));
        let a = s.launch(job("a")).await;
        s.advance_to(10_000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.calls(CallKind::Create), ["0 a", "500 a"]);
    });
}

#[test]
fn create_is_not_repeated_without_lookup() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Cut(cut_off()));
        s.server
            .set_next_outcome(CallKind::Below, CallOutcome::Fails(status(500)));
        s.server
            .set_next_outcome(CallKind::Below, CallOutcome::Fails(cut_off()));
        let a = s.launch(job("a")).await;
        s.advance_to(10_000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.times(CallKind::Below), [500, 1500, 3500]);
        assert_eq!(s.calls(CallKind::Create).len(), 1);
    });
}

#[test]
fn create_without_parent_is_looked_up_in_directory() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Cut(cut_off()));
        let a = s
            .launch(Launch {
                parent_session: None,
                ..job("a")
            })
            .await;
        s.advance_to(10_000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.calls(CallKind::Below), ["500 /base"]);
        assert_eq!(s.calls(CallKind::Create).len(), 1);
    });
}

#[test]
fn refused_prompt_interrupts() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Fails(status(400)));
        let a = s.launch(job("a")).await;
        assert_eq!(s.state(&a).await, "interrupt: refused with 400");
        let session = s.server.session_of(&a).expect("it was made");
        assert_eq!(s.calls(CallKind::Abort), [format!("0 {session}")]);
        assert_eq!(s.in_use().await, 0);
    });
}

#[test]
fn prompt_times_out_after_two_minutes() {
    story_with(
        |config| config.lifecycle.not_taken_up = None,
        |s| async move {
            s.server
                .set_next_outcome(CallKind::Prompt, CallOutcome::Hangs);
            let a = s.launch(job("a")).await;
            s.advance_to(119_999).await;
            assert_eq!(s.state(&a).await, "running");
            s.advance_to(120_000).await;
            assert_eq!(
                s.state(&a).await,
                "interrupt: the prompt was not accepted: no answer from the agent server within 120s"
            );
        },
    );
}

#[test]
fn create_below_deleted_parent_is_looked_up_among_all_sessions() {
    story(|s| async move {
        // One session was created without an answer, the other was not created.
        for (fate, state) in [
            (CallOutcome::Cut(cut_off()), "running"),
            (
                CallOutcome::Fails(cut_off()),
                "error: the parent session does not exist any more",
            ),
        ] {
            s.server.set_next_outcome(CallKind::Create, fate);
            s.server
                .set_next_outcome(CallKind::Below, CallOutcome::Fails(not_found()));
            let a = s.launch(job("a")).await;
            s.advance(2000).await;
            assert_eq!(s.state(&a).await, state);
        }
        assert_eq!(s.times(CallKind::Create), [0, 2000]);
        assert_eq!(s.times(CallKind::Below), [500, 500, 2500, 2500]);
    });
}

#[test]
fn unsent_prompt_is_not_reported_as_not_taken_up() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Late(80_000));
        let a = s.launch(job("a")).await;
        // Idle, because it has no prompt yet.
        s.advance_to(10_000).await;
        s.idle(&a).await;
        s.advance_to(60_000).await;
        s.idle(&a).await;
        assert_eq!(s.state(&a).await, "running");
        // The time counts from here: the session is idle since then.
        s.advance_to(80_000).await;
        s.idle(&a).await;
        s.advance_to(109_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(114_000).await;
        assert_eq!(s.state(&a).await, "interrupt: the prompt was not taken up");
    });
}

#[test]
fn prompt_in_flight_is_not_repeated() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Late(80_000));
        let a = s.launch(job("a")).await;
        s.advance_to(3000).await;
        s.link(EventLink::Broken).await;
        s.link(EventLink::Connected).await;
        s.advance_to(10_000).await;
        s.idle(&a).await;
        s.advance_to(20_000).await;
        s.idle(&a).await;
        s.advance_to(90_000).await;
        assert_eq!(
            s.times(CallKind::Prompt),
            [0],
            "nothing was lost that had begun"
        );
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn activity_before_prompt_is_not_counted() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(8000).await;
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Late(40_000));
        s.resume(&a).await;
        // Meanwhile the user prompts the session, and it answers the user.
        s.advance_to(20_000).await;
        s.finish_turn(&a).await;
        s.advance_to(47_999).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(55_000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(s.times(CallKind::Prompt), [0, 8000]);
    });
}

#[test]
fn prompt_takes_effect_without_answer() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Lost);
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn prompt_of_unknown_outcome_that_arrived_is_not_repeated() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Cut(cut_off()));
        let a = s.launch(job("a")).await;
        s.advance_to(10_000).await;
        assert_eq!(s.calls(CallKind::Prompt).len(), 1);
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn prompt_that_did_not_arrive_is_repeated() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Fails(cut_off()));
        s.server
            .set_next_outcome(CallKind::Messages, CallOutcome::Fails(status(503)));
        s.launch(job("a")).await;
        s.advance_to(10_000).await;
        assert_eq!(
            s.times(CallKind::Messages),
            [500, 1500],
            "looked up until it is known"
        );
        assert_eq!(s.times(CallKind::Prompt), [0, 1500]);
        let prompts = prompts(&s);
        assert_eq!(prompts[0], prompts[1]);
    });
}

#[test]
fn unknown_agent_is_detected_by_its_error() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(20).await;
        let text = "Agent not found: \"worker\". Available agents: build, plan";
        let error = json!({"name": "UnknownError", "data": {"message": text}});
        s.event(error_event(&session, error)).await;
        assert_eq!(s.state(&a).await, format!("error: {text}"));
        // The server sends the error twice, the second time with a stack trace.
        let error = json!({"name": "UnknownError", "data": {"message": "at x.ts:1"}});
        s.event(error_event(&session, error)).await;
        assert_eq!(s.state(&a).await, format!("error: {text}"));
    });
}

#[test]
fn unknown_model_error_lists_models() {
    story(|s| async move {
        let a = s.launch(job_on("fake/nope", "a")).await;
        s.advance_to(20).await;
        s.fail(&a, "Model not found: fake/nope.").await;
        assert_eq!(
            s.state(&a).await,
            "error: Model not found: fake/nope. Available models: acme/big, acme/small"
        );
        s.advance_to(20_000).await;
        assert_eq!(s.notifications_to("P"), ["20 final wakes: a error"]);
    });
}

#[test]
fn model_list_has_time_limit_and_cancel_wins() {
    story(|s| async move {
        s.server.set_outcome(CallKind::Models, CallOutcome::Hangs);
        let a = s.launch(job_on("fake/nope", "a")).await;
        let b = s.launch(job_on("fake/nope", "b")).await;
        s.advance_to(1000).await;
        s.fail(&a, "Model not found: fake/nope.").await;
        s.fail(&b, "Model not found: fake/nope.").await;
        s.advance_to(2000).await;
        assert!(s.cancel(&b).await);
        s.advance_to(3000).await;
        assert_eq!(s.state(&a).await, "error: Model not found: fake/nope.");
        assert_eq!(s.state(&b).await, "cancelled");
        assert_eq!(s.in_use().await, 0);
    });
}

#[test]
fn launch_key_is_idempotent_for_a_day() {
    story(|s| async move {
        let once = |launch: Launch| {
            let greenroom = s.greenroom.clone();
            s.resolve(async move { greenroom.launch_once("key".to_owned(), launch).await })
        };
        let (a, again) = once(job("a")).await.expect("it is accepted");
        assert!(!again);
        s.advance_to(6000).await;
        s.finish_turn(&a.id).await;
        let (same, again) = once(job("a")).await.expect("it is known");
        assert!(again);
        assert_eq!((&same.id, same.status().as_str()), (&a.id, "completed"));
        let other = once(job("b")).await;
        assert!(
            matches!(other, Err(LaunchError::KeyReused { .. })),
            "{other:?}"
        );
        s.advance_to(86_399_000).await;
        let (same, _) = once(job("a")).await.expect("it is remembered");
        assert_eq!(same.id, a.id);
        s.advance_to(86_400_000).await;
        let (new, again) = once(job("a")).await.expect("it is accepted");
        assert!(!again && new.id != a.id);
        assert_eq!(s.calls(CallKind::Create).len(), 2);
    });
}
