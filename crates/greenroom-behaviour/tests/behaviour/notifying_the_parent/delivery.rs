//! Delivery: a message is kept until it is accepted, looked up if its outcome is unknown, and dropped with a
//! record.

use greenroom::EventLink;
use greenroom::domain::task::TaskStatus;

use super::notices;
use crate::harness::{Harness, job, story};
use crate::server::{CallKind, CallOutcome, cut_off, not_found, status, unreachable};

/// Returns the delivery statuses of the messages to `P` that its notifier still keeps, newest first.
async fn statuses(s: &Harness) -> Vec<String> {
    let greenroom = s.greenroom.clone();
    let records = s.resolve(async move { greenroom.notifications(&"P".into()).await });
    let records = records.await.into_iter();
    records
        .map(|record| format!("{} {}", record.facts.tasks.len(), record.fate))
        .collect()
}

/// One task that completes at 6 s.
async fn done(s: &Harness) -> greenroom::domain::ids::TaskId {
    let a = s.launch(job("a")).await;
    s.advance_to(6000).await;
    s.finish_turn(&a).await;
    a
}

#[test]
fn refused_final_is_resent_with_backoff() {
    story(|s| async move {
        s.server
            .set_outcome(CallKind::Notify, CallOutcome::Fails(status(500)));
        done(&s).await;
        s.advance_to(200_000).await;
        assert_eq!(
            s.times(CallKind::Notify),
            [
                6000, 7000, 9000, 13_000, 21_000, 37_000, 69_000, 129_000, 189_000
            ]
        );
        s.server.clear_outcomes(CallKind::Notify);
        s.advance_to(600_000).await;
        let notifications = s.notifications_to("P");
        assert_eq!(notifications.len(), 10);
        assert_eq!(notifications[9], "249000 final wakes: a completed");
        let sent = notices(&s);
        assert!(
            sent.iter().all(|notice| notice.id == sent[0].id),
            "one message, one id"
        );
    });
}

#[test]
fn final_is_resent_after_outage_without_running_tasks() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.answer_without_event(&a, "done");
        s.server
            .set_outcome(CallKind::Notify, CallOutcome::Fails(unreachable()));
        s.idle(&a).await;
        assert!(s.names(TaskStatus::Running).await.is_empty());
        s.advance_to(100_000).await;
        s.server.clear_outcomes(CallKind::Notify);
        s.advance_to(200_000).await;
        assert_eq!(
            s.notifications_to("P").last().map(String::as_str),
            Some("129000 final wakes: a completed")
        );
    });
}

#[test]
fn pending_messages_are_sent_on_reconnect() {
    story(|s| async move {
        s.server
            .set_outcome(CallKind::Notify, CallOutcome::Fails(unreachable()));
        done(&s).await;
        s.advance_to(70_000).await;
        s.link(EventLink::Connected).await;
        s.advance_to(80_000).await;
        s.server.clear_outcomes(CallKind::Notify);
        s.link(EventLink::Connected).await;
        s.advance_to(300_000).await;
        assert_eq!(
            s.times(CallKind::Notify),
            [
                6000, 7000, 9000, 13_000, 21_000, 37_000, 69_000, 70_000, 80_000
            ],
            "and once each time it opens"
        );
        assert_eq!(statuses(&s).await, ["1 delivered"]);
    });
}

#[test]
fn pending_messages_are_sent_when_server_is_healthy() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.answer_without_event(&a, "done");
        s.server
            .set_outcome(CallKind::Notify, CallOutcome::Fails(unreachable()));
        s.idle(&a).await;
        s.advance_to(22_000).await;
        s.server
            .set_outcome(CallKind::Health, CallOutcome::Fails(unreachable()));
        s.link(EventLink::Broken).await;
        s.advance_to(40_000).await;
        s.server.clear_outcomes(CallKind::Health);
        s.server.clear_outcomes(CallKind::Notify);
        s.advance_to(300_000).await;
        // Health is checked at 22, 22.5, 23.5, 25.5, 29.5, 37.5 and 47.5 s; the next message was due at 69 s.
        assert_eq!(s.times(CallKind::Notify).last(), Some(&47_500));
        assert_eq!(statuses(&s).await, ["1 delivered"]);
    });
}

#[test]
fn reconnect_does_not_shorten_backoff_of_refused_message() {
    story(|s| async move {
        s.server
            .set_outcome(CallKind::Notify, CallOutcome::Fails(status(500)));
        done(&s).await;
        s.advance_to(70_000).await;
        s.link(EventLink::Connected).await;
        s.advance_to(128_000).await;
        assert_eq!(s.times(CallKind::Notify).last(), Some(&69_000));
    });
}

#[test]
fn message_of_unknown_outcome_is_looked_up_on_reconnect() {
    story(|s| async move {
        s.server.send_events_to(None);
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Cut(cut_off()));
        s.server
            .set_next_outcome_for(CallKind::Messages, "P", CallOutcome::Late(0));
        s.server
            .set_outcome_for(CallKind::Messages, "P", CallOutcome::Fails(unreachable()));
        done(&s).await;
        s.advance_to(50_000).await;
        assert_eq!(statuses(&s).await, ["1 sending"]);
        s.server.clear_outcomes(CallKind::Messages);
        s.link(EventLink::Connected).await;
        assert_eq!(statuses(&s).await, ["1 delivered"]);
        s.advance_to(300_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
    });
}

#[test]
fn refused_individual_message_is_merged_into_next() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.launch(job("c")).await;
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Fails(status(500)));
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(20_000).await;
        assert_eq!(
            s.times(CallKind::Notify),
            [6100],
            "it is not resent by itself"
        );
        s.finish_turn(&b).await;
        s.advance_to(30_000).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note silent: a completed, 2 open",
                "20000 note silent: a completed, b completed, 1 open",
            ]
        );
    });
}

#[test]
fn refused_individual_message_is_dropped_before_final() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Fails(status(500)));
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(7000).await;
        s.finish_turn(&b).await;
        s.advance_to(60_000).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note silent: a completed, 1 open",
                "7000 final wakes: a completed, b completed",
            ]
        );
    });
}

#[test]
fn refused_wake_is_sent_again() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.launch(job("b")).await;
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Fails(status(500)));
        s.advance_to(6000).await;
        s.fail(&a, "boom").await;
        s.advance_to(60_000).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note wakes: a error, 1 open",
                "7100 note wakes: a error, 1 open"
            ]
        );
    });
}

#[test]
fn rejected_final_is_sent_in_short_form() {
    for refusal in [400, 413, 422] {
        story(move |s| async move {
            s.server
                .set_next_outcome(CallKind::Notify, CallOutcome::Fails(status(refusal)));
            let a = done(&s).await;
            s.advance_to(60_000).await;
            assert_eq!(
                s.notifications_to("P"),
                [
                    "6000 final wakes: a completed",
                    "6000 final wakes: a completed"
                ]
            );
            let sent = notices(&s);
            assert!(sent[1].text.len() < sent[0].text.len());
            assert!(
                sent[1].text.contains(&format!("{a} completed")),
                "{}",
                sent[1].text
            );
            assert!(!sent[1].text.contains("background_output"));
        });
    }
}

#[test]
fn short_form_is_resent_with_backoff() {
    story(|s| async move {
        s.server
            .set_outcome(CallKind::Notify, CallOutcome::Fails(status(413)));
        done(&s).await;
        s.advance_to(10_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000, 6000, 7000, 9000]);
    });
}

#[test]
fn message_to_missing_parent_is_dropped_and_recorded() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Fails(not_found()));
        s.advance_to(6000).await;
        s.fail(&a, "boom").await;
        s.advance_to(10_000).await;
        assert_eq!(statuses(&s).await, ["1 dropped"]);
        s.finish_turn(&b).await;
        s.advance_to(60_000).await;
        assert_eq!(
            s.notifications_to("P").len(),
            2,
            "{:?}",
            s.notifications_to("P")
        );
    });
}

#[test]
fn final_to_missing_parent_is_not_resent() {
    story(|s| async move {
        s.server
            .set_outcome(CallKind::Notify, CallOutcome::Fails(not_found()));
        let a = done(&s).await;
        s.advance_to(600_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
        s.advance_to(606_000).await;
        assert_eq!(s.state(&a).await, "gone");
    });
}

#[test]
fn timed_out_final_that_arrived_is_not_resent() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Lost);
        done(&s).await;
        s.advance_to(35_999).await;
        let reads = s.times(CallKind::Messages).len();
        s.advance_to(36_000).await;
        assert_eq!(
            s.times(CallKind::Messages).len(),
            reads + 1,
            "it is looked up"
        );
        s.advance_to(600_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
    });
}

#[test]
fn timed_out_final_that_did_not_arrive_is_resent() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Hangs);
        done(&s).await;
        s.advance_to(600_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000, 37_000]);
    });
}

#[test]
fn cut_final_is_looked_up_at_once() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Cut(cut_off()));
        done(&s).await;
        s.advance_to(600_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
    });
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Fails(cut_off()));
        done(&s).await;
        s.advance_to(600_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000, 7000]);
    });
}

#[test]
fn nothing_is_resent_before_lookup_is_answered() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Cut(cut_off()));
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
        s.advance_to(600_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
    });
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Fails(cut_off()));
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.answer_without_event(&a, "done");
        // The first read returns the agent and model of the parent; the later lookups fail.
        s.server
            .set_next_outcome_for(CallKind::Messages, "P", CallOutcome::Late(0));
        s.server
            .set_outcome_for(CallKind::Messages, "P", CallOutcome::Fails(status(500)));
        s.idle(&a).await;
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
        s.server.clear_outcomes(CallKind::Messages);
        s.advance_to(200_000).await;
        assert_eq!(s.times(CallKind::Notify).len(), 2);
    });
}

#[test]
fn timed_out_individual_message_is_looked_up() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.launch(job("b")).await;
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Lost);
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(600_000).await;
        assert_eq!(s.times(CallKind::Notify), [6100]);
        assert_eq!(statuses(&s).await, ["1 delivered"]);
    });
}

#[test]
fn messages_are_sent_in_order() {
    story(|s| async move {
        s.server
            .set_outcome(CallKind::Notify, CallOutcome::Fails(status(500)));
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        let b = s.launch(job("b")).await;
        s.advance_to(15_000).await;
        s.finish_turn(&b).await;
        s.advance_to(100_000).await;
        s.server.clear_outcomes(CallKind::Notify);
        s.advance_to(300_000).await;
        let notifications = s.notifications_to("P");
        assert!(
            notifications[..notifications.len() - 1]
                .iter()
                .all(|line| line.ends_with("a completed")),
            "{notifications:?}"
        );
        assert_eq!(
            notifications[notifications.len() - 2..],
            [
                "129000 final wakes: a completed",
                "129000 final wakes: b completed"
            ]
        );
    });
}

#[test]
fn message_is_dropped_after_a_day() {
    story(|s| async move {
        s.server
            .set_outcome(CallKind::Notify, CallOutcome::Fails(status(500)));
        done(&s).await;
        s.advance_to(86_400_000).await;
        let tried = s.times(CallKind::Notify).len();
        s.advance_to(86_400_000 + 120_000).await;
        assert!(s.times(CallKind::Notify).len() <= tried + 1);
        let tried = s.times(CallKind::Notify).len();
        s.server.clear_outcomes(CallKind::Notify);
        s.advance_to(2 * 86_400_000).await;
        assert_eq!(s.times(CallKind::Notify).len(), tried, "it was dropped");
        // Later messages reach the parent.
        let b = s.launch(job("b")).await;
        s.advance(6000).await;
        s.finish_turn(&b).await;
        assert!(
            s.notifications_to("P")
                .last()
                .is_some_and(|line| line.ends_with("final wakes: b completed"))
        );
    });
}

#[test]
fn delivery_status_can_be_read() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.launch(job("c")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Late(1000));
        s.advance_to(6200).await;
        assert_eq!(statuses(&s).await, ["1 sending"]);
        s.advance_to(7500).await;
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Late(1000));
        s.finish_turn(&b).await;
        s.advance_to(7700).await;
        assert_eq!(statuses(&s).await, ["1 sending", "1 delivered"]);
    });
}
