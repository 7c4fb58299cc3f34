//! Batches: individual messages and the final message, merged, replaced and revoked messages.

use greenroom::ports::agent_server::ServerError;

use super::notices;
use crate::harness::{job, job_of, story, story_with};
use crate::server::{CallKind, CallOutcome, status};

#[test]
fn single_task_batch_sends_final_only() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(60_000).await;
        assert_eq!(s.notifications_to("P"), ["6000 final wakes: a completed"]);
    });
}

#[test]
fn individual_messages_are_silent_and_final_names_all() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        let c = s.launch(job("c")).await;
        s.advance_to(6000).await;
        s.finish_turn(&b).await;
        s.advance_to(7000).await;
        assert!(s.cancel(&a).await);
        s.advance_to(8000).await;
        s.finish_turn(&c).await;
        s.advance_to(60_000).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note silent: b completed, 2 open",
                "7100 note silent: a cancelled, 1 open",
                "8000 final wakes: a cancelled, b completed, c completed",
            ]
        );
    });
}

#[test]
fn individual_message_content() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.launch(job("b")).await;
        s.advance_to(70_000).await;
        s.fail(&a, "boom").await;
        s.advance_to(71_000).await;
        let text = &notices(&s)[0].text;
        for expected in [
            "<system-reminder>\n[BACKGROUND TASK FAILED]",
            a.as_str(),
            "FAILED: a (1m 10s)",
            "Error: boom",
            "1 task is still open",
            "background_output",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in {text}");
        }
    });
}

#[test]
fn final_lists_failures_and_cancel_reasons() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        let (c, d) = (s.launch(job("c")).await, s.launch(job("d")).await);
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.fail(&b, "boom").await;
        s.abort_externally(&c).await;
        s.advance_to(8000).await;
        s.delete(&d).await;
        let text = notices(&s).pop().expect("the parent is notified").text;
        assert!(
            text.contains("[ALL BACKGROUND TASKS COMPLETE - 2 FAILED]"),
            "{text}"
        );
        let place = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word}: {text}"));
        assert!(place("FAILED: b") < place("COMPLETED: a"), "{text}");
        assert!(place("INTERRUPTED: c") < place("COMPLETED: a"), "{text}");
        assert!(place("Error: boom") > 0 && place("Reason: Session deleted") > 0);
    });
}

#[test]
fn failure_wakes_parent_at_once() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        let c = s.launch(job("c")).await;
        s.advance_to(6000).await;
        s.fail(&a, "boom").await;
        s.advance_to(7000).await;
        s.abort_externally(&b).await;
        s.advance_to(10_000).await;
        s.finish_turn(&c).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note wakes: a error, 2 open",
                "9100 note wakes: b interrupt, 1 open",
                "10000 final wakes: a error, b interrupt, c completed",
            ]
        );
    });
}

#[test]
fn wake_on_failure_can_be_disabled() {
    story_with(
        |config| config.notifications.wake_on_failure = false,
        |s| async move {
            let a = s.launch(job("a")).await;
            s.launch(job("b")).await;
            s.advance_to(6000).await;
            s.fail(&a, "boom").await;
            s.advance_to(7000).await;
            assert_eq!(
                s.notifications_to("P"),
                ["6100 note silent: a error, 1 open"]
            );
        },
    );
}

#[test]
fn ends_within_debounce_are_merged() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        let c = s.launch(job("c")).await;
        s.launch(job("d")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(6050).await;
        s.fail(&b, "boom").await;
        s.advance_to(6099).await;
        s.finish_turn(&c).await;
        assert!(s.notifications_to("P").is_empty());
        s.advance_to(6100).await;
        assert_eq!(
            s.notifications_to("P"),
            ["6100 note wakes: a completed, b error, c completed, 1 open"]
        );
        let text = &notices(&s)[0].text;
        assert!(
            text.contains("[BACKGROUND TASKS: 2 COMPLETED, 1 FAILED]"),
            "{text}"
        );
    });
}

#[test]
fn final_replaces_unsent_messages() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        s.fail(&a, "boom").await;
        s.advance_to(6050).await;
        s.finish_turn(&b).await;
        s.advance_to(60_000).await;
        assert_eq!(
            s.notifications_to("P"),
            ["6050 final wakes: a error, b completed"]
        );
    });
}

#[test]
fn joining_task_revokes_unsent_final() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.busy("P").await;
        s.finish_turn(&a).await;
        assert!(
            s.notifications_to("P").is_empty(),
            "the final waits for the parent"
        );
        let b = s.launch(job("b")).await;
        s.advance_to(9000).await;
        s.idle("P").await;
        assert_eq!(
            s.notifications_to("P"),
            ["9000 note silent: a completed, 1 open"]
        );
        s.advance_to(15_000).await;
        s.finish_turn(&b).await;
        s.advance_to(20_000).await;
        assert_eq!(
            s.notifications_to("P")[1..],
            ["15000 final wakes: a completed, b completed"]
        );
    });
}

#[test]
fn joining_task_after_final_opens_new_batch() {
    story(|s| async move {
        s.server
            .set_next_outcome_for(CallKind::Notify, "P", CallOutcome::Late(1000));
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        // The batch is closed with the first attempt to send its final.
        s.advance_to(6500).await;
        let b = s.launch(job("b")).await;
        s.advance_to(12_000).await;
        s.finish_turn(&b).await;
        s.advance_to(60_000).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6000 final wakes: a completed",
                "12000 final wakes: b completed"
            ]
        );
    });
}

#[test]
fn end_during_message_in_flight_gets_own_message() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        let c = s.launch(job("c")).await;
        s.launch(job("d")).await;
        s.server
            .set_next_outcome_for(CallKind::Notify, "P", CallOutcome::Late(5000));
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(7000).await;
        s.finish_turn(&b).await;
        s.advance_to(8000).await;
        s.finish_turn(&c).await;
        assert_eq!(s.notifications_to("P").len(), 1, "one message at a time");
        s.advance_to(20_000).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note silent: a completed, 3 open",
                "11100 note silent: b completed, 2 open",
                "11100 note silent: c completed, 1 open",
            ],
            "each describes the moment of its end"
        );
    });
}

#[test]
fn slow_parent_does_not_delay_others() {
    story(|s| async move {
        s.server
            .set_outcome_for(CallKind::Notify, "P", CallOutcome::Hangs);
        s.server
            .set_outcome_for(CallKind::Messages, "P", CallOutcome::Hangs);
        let (a, q) = (s.launch(job("a")).await, s.launch(job_of("Q", "q")).await);
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.finish_turn(&q).await;
        assert_eq!(s.notifications_to("Q"), ["6000 final wakes: q completed"]);
    });
}

/// Two batches. The server refuses the first final until 200 s.
async fn first_final_is_stuck(s: &crate::harness::Harness) {
    s.server
        .set_outcome(CallKind::Notify, CallOutcome::Fails(status(500)));
    let a = s.launch(job("a")).await;
    s.advance_to(6000).await;
    s.finish_turn(&a).await;
    let b = s.launch(job("b")).await;
    s.advance_to(20_000).await;
    s.finish_turn(&b).await;
}

#[test]
fn queued_final_is_revoked_within_a_minute() {
    story(|s| async move {
        first_final_is_stuck(&s).await;
        s.advance_to(79_000).await;
        let c = s.launch(job("c")).await;
        s.advance_to(200_000).await;
        s.server.clear_outcomes(CallKind::Notify);
        s.advance_to(300_000).await;
        s.finish_turn(&c).await;
        s.advance_to(400_000).await;
        let notifications = s.notifications_to("P");
        let notifications: Vec<&str> = notifications[notifications.len() - 3..]
            .iter()
            .map(|line| {
                line.split_once(' ')
                    .map_or("", |(_, notifications)| notifications)
            })
            .collect();
        assert_eq!(
            notifications,
            [
                "final wakes: a completed",
                "note silent: b completed, 1 open",
                "final wakes: b completed, c completed",
            ]
        );
    });
}

#[test]
fn queued_final_counts_as_sent_after_a_minute() {
    story(|s| async move {
        first_final_is_stuck(&s).await;
        s.advance_to(80_000).await;
        let c = s.launch(job("c")).await;
        s.advance_to(200_000).await;
        s.server.clear_outcomes(CallKind::Notify);
        s.advance_to(300_000).await;
        s.finish_turn(&c).await;
        s.advance_to(400_000).await;
        let notifications = s.notifications_to("P");
        let notifications: Vec<&str> = notifications[notifications.len() - 3..]
            .iter()
            .map(|line| {
                line.split_once(' ')
                    .map_or("", |(_, notifications)| notifications)
            })
            .collect();
        assert_eq!(
            notifications,
            [
                "final wakes: a completed",
                "final wakes: b completed",
                "final wakes: c completed",
            ]
        );
    });
}

#[test]
fn simultaneous_ends_send_one_final() {
    story_with(
        |config| config.limits.default = 0,
        |s| async move {
            let mut tasks = Vec::new();
            for count in 0..30 {
                tasks.push(s.launch(job(&format!("{count}"))).await);
            }
            s.advance_to(6000).await;
            for task in &tasks {
                s.answer_without_event(task, "done");
                s.idle_without_event(task);
                let session = s.server.session_of(task).expect("it runs");
                s.send_event(crate::harness::idle_event(&session));
            }
            s.settle().await;
            s.advance_to(60_000).await;
            let notifications = s.notifications_to("P");
            assert_eq!(notifications.len(), 1, "{notifications:?}");
            assert!(notifications[0].starts_with("6000 final wakes: 0 completed, 1 completed"));
            assert!(
                notifications[0].ends_with("29 completed"),
                "{notifications:?}"
            );
        },
    );
}

#[test]
fn message_sizes_are_bounded() {
    story_with(
        |config| config.limits.default = 0,
        |s| async move {
            let mut tasks = Vec::new();
            for count in 0..20 {
                tasks.push(s.launch(job(&format!("{count}"))).await);
            }
            s.advance_to(6000).await;
            for task in &tasks {
                let session = s.server.session_of(task).expect("it runs");
                let error = serde_json::json!({"name": "E", "data": {"message": "x".repeat(9000)}});
                s.send_event(crate::harness::error_event(&session, error));
            }
            s.settle().await;
            let notifications = notices(&s).pop().expect("the parent is notified");
            assert_eq!(notifications.facts.tasks.len(), 20);
            assert!(notifications.text.chars().count() <= 16_000);
            let longest = notifications
                .facts
                .tasks
                .iter()
                .filter_map(|fact| fact.error.as_ref());
            assert_eq!(longest.map(|error| error.chars().count()).max(), Some(2000));
        },
    );
}

#[test]
fn message_ids_are_unique() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        let q = s.launch(job_of("Q", "q")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.finish_turn(&q).await;
        s.advance_to(7000).await;
        s.finish_turn(&b).await;
        let mut ids: Vec<String> = notices(&s).iter().map(|n| n.id.to_string()).collect();
        assert!(ids.iter().all(|id| id.starts_with("ntc_")), "{ids:?}");
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 3);
    });
}

#[test]
fn disabled_notifications_send_no_message() {
    story_with(
        |config| config.notifications.enabled = false,
        |s| async move {
            let a = s.launch(job("a")).await;
            s.advance_to(6000).await;
            s.fail(&a, "boom").await;
            s.advance_to(605_999).await;
            assert_eq!(s.state(&a).await, "error: boom");
            s.advance_to(606_000).await;
            assert_eq!(s.state(&a).await, "gone");
            assert!(s.calls(CallKind::Notify).is_empty());
        },
    );
}

#[test]
fn undeliverable_final_does_not_keep_tasks_in_memory() {
    story(|s| async move {
        let down = ServerError::Unreachable("away".to_owned());
        s.server
            .set_outcome(CallKind::Notify, CallOutcome::Fails(down));
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(606_000).await;
        assert_eq!(
            s.state(&a).await,
            "gone",
            "the pending message keeps its text, not the tasks"
        );
        s.server.clear_outcomes(CallKind::Notify);
        s.advance_to(700_000).await;
        let notifications = s.notifications_to("P");
        assert!(
            notifications
                .last()
                .is_some_and(|line| line.ends_with("final wakes: a completed"))
        );
    });
}
