//! A busy parent is not interrupted needlessly: messages wait until it is idle, a wake at most until its
//! ceiling.

use greenroom::ports::agent_server::SessionStatus;

use crate::harness::{Harness, job, story, story_with};
use crate::server::{CallKind, CallOutcome, status};

/// Two tasks of a parent that is busy from 5 s on. One of them completes at 6 s.
async fn one_of_two_done(s: &Harness) -> greenroom::domain::ids::TaskId {
    let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
    s.advance_to(5000).await;
    s.busy("P").await;
    s.advance_to(6000).await;
    s.finish_turn(&a).await;
    b
}

#[test]
fn individual_messages_are_held_while_parent_is_busy() {
    story(|s| async move {
        let c = s.launch(job("c")).await;
        one_of_two_done(&s).await;
        s.advance_to(8000).await;
        s.finish_turn(&c).await;
        s.advance_to(300_000).await;
        assert!(
            s.notifications_to("P").is_empty(),
            "a silent message waits as long as it must"
        );
        s.idle("P").await;
        assert_eq!(
            s.notifications_to("P"),
            ["300000 note silent: a completed, c completed, 1 open"]
        );
    });
}

#[test]
fn final_replaces_held_messages() {
    story(|s| async move {
        let b = one_of_two_done(&s).await;
        s.advance_to(10_000).await;
        s.finish_turn(&b).await;
        s.advance_to(30_000).await;
        assert!(s.notifications_to("P").is_empty());
        s.idle("P").await;
        s.advance_to(90_000).await;
        assert_eq!(
            s.notifications_to("P"),
            ["30000 final wakes: a completed, b completed"]
        );
    });
}

#[test]
fn final_waits_sixty_seconds_at_most() {
    story(|s| async move {
        let b = one_of_two_done(&s).await;
        s.advance_to(10_000).await;
        s.finish_turn(&b).await;
        s.advance_to(69_999).await;
        assert!(s.notifications_to("P").is_empty());
        s.advance_to(70_000).await;
        assert_eq!(
            s.notifications_to("P"),
            ["70000 final wakes: a completed, b completed"]
        );
    });
}

#[test]
fn failure_waits_sixty_seconds_at_most() {
    story(|s| async move {
        let b = one_of_two_done(&s).await;
        s.launch(job("c")).await;
        s.advance_to(10_000).await;
        s.fail(&b, "boom").await;
        s.advance_to(120_000).await;
        // The held message is merged into it. The minute counts from the first message that waits.
        assert_eq!(
            s.notifications_to("P"),
            ["66000 note wakes: a completed, b error, 1 open"]
        );
    });
}

#[test]
fn wake_ceiling_is_configurable() {
    story_with(
        |config| config.notifications.wake_ceiling = std::time::Duration::from_secs(5),
        |s| async move {
            let b = one_of_two_done(&s).await;
            s.advance_to(10_000).await;
            s.finish_turn(&b).await;
            s.advance_to(60_000).await;
            assert_eq!(
                s.notifications_to("P"),
                ["15000 final wakes: a completed, b completed"]
            );
        },
    );
}

#[test]
fn waiting_for_busy_parent_can_be_disabled() {
    story_with(
        |config| config.notifications.wait_for_busy_parent = false,
        |s| async move {
            one_of_two_done(&s).await;
            s.advance_to(7000).await;
            assert_eq!(
                s.notifications_to("P"),
                ["6100 note silent: a completed, 1 open"]
            );
        },
    );
}

#[test]
fn unknown_parent_status_is_read_once() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(7000).await;
        let polls = s.times(CallKind::Statuses).len();
        s.finish_turn(&a).await;
        assert_eq!(s.times(CallKind::Statuses)[polls..], [7000]);
        assert_eq!(s.notifications_to("P"), ["7000 final wakes: a completed"]);
    });
}

#[test]
fn busy_parent_status_is_read_again() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(7000).await;
        s.server.set_status(&"P".into(), Some(SessionStatus::Busy));
        s.finish_turn(&a).await;
        assert!(s.notifications_to("P").is_empty());
        s.advance_to(11_000).await;
        s.server.set_status(&"P".into(), None);
        // The idle event is lost; the next status call, three seconds later, detects it.
        s.advance_to(12_999).await;
        assert!(s.notifications_to("P").is_empty());
        s.advance_to(13_000).await;
        assert_eq!(s.notifications_to("P"), ["13000 final wakes: a completed"]);
    });
}

#[test]
fn parent_with_unreadable_status_counts_as_idle() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(7000).await;
        s.server
            .set_outcome(CallKind::Statuses, CallOutcome::Fails(status(500)));
        s.finish_turn(&a).await;
        assert_eq!(s.notifications_to("P"), ["7000 final wakes: a completed"]);
    });
}

#[test]
fn second_message_to_parent_with_unreadable_status_is_sent() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(7000).await;
        s.server
            .set_outcome(CallKind::Statuses, CallOutcome::Fails(status(500)));
        s.advance_to(20_000).await;
        s.finish_turn(&b).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note silent: a completed, 1 open",
                "20000 final wakes: a completed, b completed",
            ]
        );
    });
}

#[test]
fn hanging_status_call_times_out_after_ten_seconds() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(7000).await;
        s.server
            .set_next_outcome(CallKind::Statuses, CallOutcome::Hangs);
        s.finish_turn(&a).await;
        s.advance_to(30_000).await;
        assert_eq!(s.notifications_to("P"), ["17000 final wakes: a completed"]);
    });
}

#[test]
fn retrying_parent_is_busy() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(5000).await;
        let retry = serde_json::json!({"type": "retry", "message": "overloaded"});
        s.event(crate::harness::status_event(&"P".into(), retry))
            .await;
        let backs_off = SessionStatus::Retry {
            attempt: None,
            message: "overloaded".to_owned(),
            until: None,
        };
        s.server.set_status(&"P".into(), Some(backs_off));
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(30_000).await;
        assert!(s.notifications_to("P").is_empty());
        s.idle("P").await;
        assert_eq!(s.notifications_to("P"), ["30000 final wakes: a completed"]);
    });
}

#[test]
fn accepted_wake_invalidates_known_status() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        let c = s.launch(job("c")).await;
        s.advance_to(6000).await;
        s.idle("P").await;
        s.fail(&a, "boom").await;
        s.advance_to(6500).await;
        assert_eq!(s.notifications_to("P").len(), 1);
        // The woken parent is busy. Its busy event is late, but the status call reports it.
        s.server.set_status(&"P".into(), Some(SessionStatus::Busy));
        s.advance_to(7000).await;
        s.finish_turn(&b).await;
        s.advance_to(9000).await;
        assert_eq!(s.notifications_to("P").len(), 1, "it is held");
        s.idle("P").await;
        assert_eq!(
            s.notifications_to("P")[1..],
            ["9000 note silent: b completed, 1 open"]
        );
        s.advance_to(12_000).await;
        s.finish_turn(&c).await;
        assert_eq!(s.notifications_to("P").len(), 3);
    });
}

#[test]
fn busy_during_debounce_holds_message() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.launch(job("b")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(6050).await;
        s.busy("P").await;
        s.advance_to(20_000).await;
        assert!(s.notifications_to("P").is_empty());
        s.idle("P").await;
        assert_eq!(
            s.notifications_to("P"),
            ["20000 note silent: a completed, 1 open"]
        );
    });
}
