//! Messages are owed, not tried: kept until accepted, looked up where their fate is unknown, dropped with a record.

use greenroom::EventLink;
use greenroom::domain::task::TaskStatus;

use super::notices;
use crate::harness::{Harness, job, story};
use crate::server::{CallKind, CallOutcome, cut_off, not_found, status, unreachable};

/// What became of the messages to `P` that its notifier still remembers, newest first.
async fn fates(s: &Harness) -> Vec<String> {
    let greenroom = s.greenroom.clone();
    let records = s.resolve(async move { greenroom.notifications(&"P".into()).await });
    let records = records.await.into_iter();
    records
        .map(|record| format!("{} {}", record.facts.tasks.len(), record.fate))
        .collect()
}

/// One task done at six seconds.
async fn done(s: &Harness) -> greenroom::domain::ids::TaskId {
    let a = s.launch(job("a")).await;
    s.advance_to(6000).await;
    s.finish_turn(&a).await;
    a
}

#[test]
fn a_final_that_is_refused_is_resent_with_backoff_until_it_is_taken() {
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
        let told = s.notifications_to("P");
        assert_eq!(told.len(), 10);
        assert_eq!(told[9], "249000 final wakes: a completed");
        let sent = notices(&s);
        assert!(
            sent.iter().all(|notice| notice.id == sent[0].id),
            "one message, one id"
        );
    });
}

#[test]
fn it_is_resent_though_nothing_runs_and_the_server_was_away() {
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
fn what_waits_for_the_way_to_the_server_is_sent_as_soon_as_it_is_open() {
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
        assert_eq!(fates(&s).await, ["1 delivered"]);
    });
}

#[test]
fn the_way_is_open_again_once_the_server_is_healthy() {
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
        // Health is asked at 22, 22.5, 23.5, 25.5, 29.5, 37.5 and 47.5 s; the next message was due at 69 s.
        assert_eq!(s.times(CallKind::Notify).last(), Some(&47_500));
        assert_eq!(fates(&s).await, ["1 delivered"]);
    });
}

#[test]
fn what_the_server_has_refused_does_not_hurry_when_the_way_opens() {
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
fn a_message_of_unknown_fate_is_looked_for_as_soon_as_the_way_is_open() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Cut(cut_off()));
        s.server
            .set_next_outcome_for(CallKind::Messages, "P", CallOutcome::Late(0));
        s.server
            .always_for(CallKind::Messages, "P", CallOutcome::Fails(unreachable()));
        done(&s).await;
        s.advance_to(50_000).await;
        assert_eq!(fates(&s).await, ["1 sending"]);
        s.server.clear_outcomes(CallKind::Messages);
        s.link(EventLink::Connected).await;
        assert_eq!(fates(&s).await, ["1 delivered"]);
        s.advance_to(300_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
    });
}

#[test]
fn a_refused_note_is_merged_into_the_next() {
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
fn a_refused_note_is_dropped_when_a_final_follows() {
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
fn a_refused_note_that_wakes_is_owed_a_wake() {
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
fn a_final_that_is_too_large_or_malformed_is_sent_in_its_shortest_form() {
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
fn the_shortest_form_is_resent_with_backoff_like_any() {
    story(|s| async move {
        s.server
            .set_outcome(CallKind::Notify, CallOutcome::Fails(status(413)));
        done(&s).await;
        s.advance_to(10_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000, 6000, 7000, 9000]);
    });
}

#[test]
fn a_parent_that_answers_404_is_gone_and_the_drop_is_recorded() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Fails(not_found()));
        s.advance_to(6000).await;
        s.fail(&a, "boom").await;
        s.advance_to(10_000).await;
        assert_eq!(fates(&s).await, ["1 dropped"]);
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
fn a_final_to_a_parent_that_is_gone_is_not_resent() {
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
fn a_final_that_timed_out_and_arrived_is_not_resent() {
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
fn a_final_that_timed_out_and_did_not_arrive_is_resent() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Hangs);
        done(&s).await;
        s.advance_to(600_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000, 37_000]);
    });
}

#[test]
fn a_final_whose_connection_was_cut_is_looked_up_at_once() {
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
fn until_the_look_up_is_answered_nothing_is_resent() {
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
        // The first read is the parent's voice; the look-ups after it fail.
        s.server
            .set_next_outcome_for(CallKind::Messages, "P", CallOutcome::Late(0));
        s.server
            .always_for(CallKind::Messages, "P", CallOutcome::Fails(status(500)));
        s.idle(&a).await;
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
        s.server.clear_outcomes(CallKind::Messages);
        s.advance_to(200_000).await;
        assert_eq!(s.times(CallKind::Notify).len(), 2);
    });
}

#[test]
fn a_note_that_timed_out_is_looked_up_too() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.launch(job("b")).await;
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Lost);
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(600_000).await;
        assert_eq!(s.times(CallKind::Notify), [6100]);
        assert_eq!(fates(&s).await, ["1 delivered"]);
    });
}

#[test]
fn messages_go_out_in_order() {
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
        let told = s.notifications_to("P");
        assert!(
            told[..told.len() - 1]
                .iter()
                .all(|line| line.ends_with("a completed")),
            "{told:?}"
        );
        assert_eq!(
            told[told.len() - 2..],
            [
                "129000 final wakes: a completed",
                "129000 final wakes: b completed"
            ]
        );
    });
}

#[test]
fn after_a_day_a_message_is_dropped() {
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
        // The parent can be told of what comes after it.
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
fn what_is_under_way_and_what_was_delivered_can_be_read() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.launch(job("c")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Late(1000));
        s.advance_to(6200).await;
        assert_eq!(fates(&s).await, ["1 sending"]);
        s.advance_to(7500).await;
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Late(1000));
        s.finish_turn(&b).await;
        s.advance_to(7700).await;
        assert_eq!(fates(&s).await, ["1 sending", "1 delivered"]);
    });
}
