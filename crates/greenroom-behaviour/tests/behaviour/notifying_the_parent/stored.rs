//! Delivered means stored: an accepted message counts as delivered when the parent's history contains it.

use greenroom::domain::ids::ModelRef;
use greenroom::domain::task::Launch;
use serde_json::json;

use super::notices;
use crate::harness::{Harness, job, part_event, story};
use crate::server::{CallKind, CallOutcome, status};

/// Returns the delivery status of the newest message to `P`.
async fn fate(s: &Harness) -> String {
    let greenroom = s.greenroom.clone();
    let records = s.resolve(async move { greenroom.notifications(&"P".into()).await });
    records.await[0].fate.clone()
}

/// One task that completes at 6 s.
async fn done(s: &Harness, launch: Launch) {
    let a = s.launch(launch).await;
    s.advance_to(6000).await;
    s.finish_turn(&a).await;
}

fn job_as(agent: &str) -> Launch {
    Launch {
        parent_agent: Some(agent.to_owned()),
        ..job("a")
    }
}

fn job_under(provider: &str, model: &str) -> Launch {
    Launch {
        parent_model: Some(ModelRef {
            provider_id: provider.to_owned(),
            model_id: model.to_owned(),
            variant: None,
        }),
        ..job("a")
    }
}

#[test]
fn unknown_agent_is_left_out() {
    story(|s| async move {
        s.server.remove_agent("nope");
        done(&s, job_as("nope")).await;
        assert_ne!(fate(&s).await, "delivered", "nothing is stored yet");
        s.advance_to(60_000).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6000 final wakes: a completed as nope",
                "7000 final wakes: a completed"
            ]
        );
        assert_eq!(fate(&s).await, "delivered");
        let sent = notices(&s);
        assert_eq!(sent[0].id, sent[1].id, "one message, one id");
    });
}

#[test]
fn other_error_keeps_agent() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Ignored);
        done(&s, job_as("lead")).await;
        s.advance_to(6100).await;
        s.fail("P", "overloaded").await;
        s.advance_to(60_000).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6000 final wakes: a completed as lead",
                "17000 final wakes: a completed as lead"
            ],
            "the error may belong to an earlier turn"
        );
    });
}

#[test]
fn error_about_the_model_does_not_prove_that_a_message_is_missing() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Ignored);
        done(&s, job_under("acme", "big")).await;
        s.advance_to(6100).await;
        s.fail("P", "Model not found: acme/big.").await;
        s.advance_to(15_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000], "it may be stored late");
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000, 17_000]);
        assert_eq!(notices(&s)[1].model, None, "the model is left out");
    });
}

#[test]
fn message_that_is_not_stored_is_sent_again_after_ten_seconds() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Ignored);
        done(&s, job("a")).await;
        s.advance_to(15_999).await;
        assert_eq!(fate(&s).await, "sending");
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000, 17_000]);
        assert_eq!(fate(&s).await, "delivered");
    });
}

#[test]
fn failed_read_proves_nothing() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Ignored);
        done(&s, job("a")).await;
        s.server
            .set_outcome_for(CallKind::Messages, "P", CallOutcome::Fails(status(500)));
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
        s.server.clear_outcomes(CallKind::Messages);
        s.advance_to(200_000).await;
        assert_eq!(s.times(CallKind::Notify).len(), 2);
    });
}

#[test]
fn server_without_events_is_confirmed_by_read() {
    story(|s| async move {
        s.server.send_events_to(None);
        done(&s, job("a")).await;
        s.advance_to(6999).await;
        assert_eq!(fate(&s).await, "sending");
        s.advance_to(7000).await;
        assert_eq!(fate(&s).await, "delivered");
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
    });
}

#[test]
fn message_stored_late_is_not_sent_again() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Ignored);
        done(&s, job("a")).await;
        s.advance_to(6100).await;
        s.fail("P", "overloaded").await;
        s.advance_to(6500).await;
        let part = json!({"messageID": "msg_900000", "sessionID": "P", "type": "text",
            "text": "x", "synthetic": true,
            "metadata": {"greenroom": {"id": notices(&s)[0].id}}});
        s.event(part_event(&"P".into(), part)).await;
        assert_eq!(fate(&s).await, "delivered");
        s.advance_to(60_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
    });
}

#[test]
fn later_message_waits_for_confirmation() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Notify, CallOutcome::Ignored);
        done(&s, job("a")).await;
        let b = s.launch(job("b")).await;
        s.advance_to(12_000).await;
        s.finish_turn(&b).await;
        s.advance_to(60_000).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6000 final wakes: a completed",
                "17000 final wakes: a completed",
                "17000 final wakes: b completed"
            ]
        );
    });
}
