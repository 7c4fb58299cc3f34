//! Silent messages: to parents that their user has aborted, and to parents that are sessions of ended tasks.
//! A wake never overrides the user, and no unwatched turn is started.

use greenroom::config::OnParentAbort;
use greenroom::domain::task::TaskStatus;
use serde_json::json;

use super::notices;
use crate::harness::{Harness, job, job_of, message_event, part_event, story, story_with};
use crate::server::CallKind;

/// In milliseconds.
const HOUR: u64 = 3_600_000;

/// Runs a story in which an abort counts as a person's at once.
fn story_without_grace<F: Future<Output = ()>>(
    run_story: impl FnOnce(Harness) -> F + Send + 'static,
) {
    story_with(|config| config.lifecycle.abort_grace = None, run_story);
}

#[test]
fn message_after_unjudged_abort_waits() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(5000).await;
        s.abort_externally("P").await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(6999).await;
        assert!(s.notifications_to("P").is_empty());
        s.advance_to(60_000).await;
        let notifications = s.notifications_to("P");
        assert_eq!(notifications.len(), 1, "{notifications:?}");
        assert!(notifications[0].ends_with("final silent: a completed"));
    });
}

#[test]
fn abort_of_turn_without_output_is_an_abort() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(3000).await;
        let info = json!({"id": "msg_900000", "role": "assistant",
            "time": {"created": 2900, "completed": 3000},
            "error": {"name": "MessageAbortedError", "data": {"message": "aborted"}}});
        s.event(message_event(&"P".into(), &info)).await;
        s.advance_to(20_000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.notifications_to("P"), ["20000 final silent: a completed"]);
    });
}

#[test]
fn user_abort_makes_messages_silent() {
    story_without_grace(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(5000).await;
        s.abort_externally("P").await;
        assert_eq!(s.names(TaskStatus::Running).await, ["a", "b"]);
        s.advance_to(6000).await;
        s.fail(&a, "boom").await;
        s.advance_to(7000).await;
        s.finish_turn(&b).await;
        s.advance_to(600_000).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note silent: a error, 1 open",
                "7000 final silent: a error, b completed"
            ],
            "a silent final counts as delivered"
        );
    });
}

#[test]
fn user_prompt_ends_silence() {
    story_without_grace(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(5000).await;
        s.abort_externally("P").await;
        s.advance_to(6000).await;
        s.fail(&a, "boom").await;
        s.advance_to(10_000).await;
        s.user_prompts("P", None, None).await;
        s.advance_to(20_000).await;
        s.finish_turn(&b).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note silent: a error, 1 open",
                "20000 final wakes: a error, b completed"
            ]
        );
    });
}

#[test]
fn user_abort_is_forgotten_after_a_day_without_messages() {
    story_without_grace(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(5000).await;
        s.abort_externally("P").await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(HOUR).await;
        assert_eq!(
            s.resource_counts().await.notifiers,
            1,
            "its user may come back"
        );
        s.advance_to(25 * HOUR).await;
        assert_eq!(s.resource_counts().await.notifiers, 0);
        // A later launch by this session shows that its user has prompted it.
        let b = s.launch(job("b")).await;
        s.advance(6000).await;
        s.finish_turn(&b).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6000 final silent: a completed",
                "90006000 final wakes: b completed"
            ]
        );
    });
}

#[test]
fn own_notification_is_not_a_user_prompt() {
    story_without_grace(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(5000).await;
        s.abort_externally("P").await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(6200).await;
        // The server sends the event of our own stored message.
        let id = notices(&s)[0].id.to_string();
        let info = json!({"id": "msg_900000", "role": "user", "time": {"created": 6100}});
        s.event(message_event(&"P".into(), &info)).await;
        let part = json!({"messageID": "msg_900000", "type": "text", "text": "x",
            "synthetic": true, "metadata": {"greenroom": {"id": id}}});
        s.event(part_event(&"P".into(), part)).await;
        s.advance_to(7000).await;
        s.finish_turn(&b).await;
        assert_eq!(
            s.notifications_to("P")[1],
            "7000 final silent: a completed, b completed"
        );
    });
}

#[test]
fn update_of_earlier_message_is_not_a_user_prompt() {
    story_without_grace(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(1000).await;
        let info = json!({"id": "msg_900000", "role": "user", "time": {"created": 1000}});
        s.event(message_event(&"P".into(), &info)).await;
        s.advance_to(5000).await;
        s.abort_externally("P").await;
        s.event(message_event(&"P".into(), &info)).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.notifications_to("P"), ["6000 final silent: a completed"]);
    });
}

#[test]
fn batch_after_user_abort_is_silent() {
    story_without_grace(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(5000).await;
        s.abort_externally("P").await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(8000).await;
        let b = s.launch(job("b")).await;
        s.advance_to(14_000).await;
        s.finish_turn(&b).await;
        s.advance_to(20_000).await;
        s.user_prompts("P", None, None).await;
        let c = s.launch(job("c")).await;
        s.advance_to(26_000).await;
        s.finish_turn(&c).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6000 final silent: a completed",
                "14000 final silent: b completed",
                "26000 final wakes: c completed",
            ]
        );
    });
}

#[test]
fn user_abort_can_cancel_descendants() {
    story_with(
        |config| {
            config.lifecycle.abort_grace = None;
            config.notifications.on_parent_abort = OnParentAbort::Cancel;
        },
        |s| async move {
            let a = s.launch(job("a")).await;
            let session = s.server.session_of(&a).expect("it runs");
            let below = s.launch(job_of(session.as_str(), "below")).await;
            let q = s.launch(job_of("Q", "q")).await;
            s.advance_to(6000).await;
            s.abort_externally("P").await;
            s.advance_to(8000).await;
            for task in [&a, &below] {
                let state = s.state(task).await;
                assert!(state.starts_with("cancelled: "), "{state}");
            }
            assert_eq!(s.state(&q).await, "running");
            assert_eq!(s.notifications_to("P"), ["6000 final silent: a cancelled"]);
            assert_eq!(s.in_use().await, 1);
        },
    );
}

#[test]
fn silence_after_abort_can_be_disabled() {
    story_with(
        |config| config.notifications.silence_after_parent_abort = false,
        |s| async move {
            let a = s.launch(job("a")).await;
            s.advance_to(5000).await;
            s.abort_externally("P").await;
            s.advance_to(6000).await;
            s.finish_turn(&a).await;
            assert_eq!(s.notifications_to("P"), ["6000 final wakes: a completed"]);
        },
    );
}

#[test]
fn other_parent_error_is_not_an_abort() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(5000).await;
        s.fail("P", "overloaded").await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.notifications_to("P"), ["6000 final wakes: a completed"]);
    });
}

#[test]
fn ended_parent_gets_silent_messages() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        let below = s.launch(job_of(session.as_str(), "below")).await;
        let other = s.launch(job_of(session.as_str(), "other")).await;
        s.advance_to(6000).await;
        assert!(s.cancel(&a).await);
        s.advance_to(7000).await;
        s.fail(&below, "boom").await;
        s.advance_to(8000).await;
        s.finish_turn(&other).await;
        assert_eq!(
            s.notifications_to(&session),
            [
                "7100 note silent: below error, 1 open",
                "8000 final silent: below error, other completed",
            ]
        );
    });
}

#[test]
fn resumed_parent_is_woken() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        let below = s.launch(job_of(session.as_str(), "below")).await;
        s.advance_to(6000).await;
        assert!(s.cancel(&a).await);
        s.advance_to(8000).await;
        s.resume(&a).await;
        s.advance_to(14_000).await;
        s.idle(&a).await;
        s.finish_turn(&below).await;
        assert_eq!(
            s.notifications_to(&session),
            ["14000 final wakes: below completed"]
        );
    });
}

#[test]
fn task_of_ended_parent_is_reported_silently() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        let late = s.launch(job_of(session.as_str(), "late")).await;
        s.advance_to(12_000).await;
        s.finish_turn(&late).await;
        assert_eq!(
            s.notifications_to(&session),
            ["12000 final silent: late completed"]
        );
        assert_eq!(s.calls(CallKind::Notify).len(), 2);
    });
}
