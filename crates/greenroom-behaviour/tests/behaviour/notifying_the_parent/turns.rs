//! A stored wake without an answer: a turn that was cut off is continued once, and a final whose turn failed on its agent or
//! model is sent once more.

use greenroom::EventLink;
use serde_json::json;

use super::notices;
use crate::fixtures::error_event;
use crate::harness::{Harness, job, story};
use crate::server::CallKind;

/// One task that completes at 6 s. Its parent does not answer.
async fn unanswered(s: &Harness) {
    s.server.leave_wakes_unanswered();
    let a = s.launch(job("a")).await;
    s.advance_to(6000).await;
    s.finish_turn(&a).await;
    assert_eq!(s.notifications_to("P"), ["6000 final wakes: a completed"]);
}

async fn reason(s: &Harness) -> Option<String> {
    let greenroom = s.greenroom.clone();
    let records = s.resolve(async move { greenroom.notifications(&"P".into()).await });
    records.await[0].reason.clone()
}

#[test]
fn turn_that_was_cut_off_continues_once() {
    story(|s| async move {
        unanswered(&s).await;
        s.advance_to(7000).await;
        s.cut_off("P").await;
        s.advance_to(7120).await;
        s.end_instance(None).await;
        s.advance_to(20_000).await;
        let continued = "8000 continue wakes: a completed";
        assert_eq!(s.notifications_to("P")[1..], [continued]);
        let text = notices(&s)[1].text.clone();
        assert!(
            !text.contains("COMPLETE"),
            "the text is not repeated: {text}"
        );
        s.advance_to(21_000).await;
        s.cut_off("P").await;
        s.end_instance(None).await;
        s.advance_to(90_000).await;
        assert_eq!(s.notifications_to("P")[1..], [continued]);
        assert_eq!(
            reason(&s).await.as_deref(),
            Some("the turn was cut off again")
        );
    });
}

#[test]
fn turn_that_never_began_before_the_end_of_its_instance_continues() {
    story(|s| async move {
        unanswered(&s).await;
        // The message is stored, its turn has not begun: the end of the instance is all that is reported.
        s.end_instance(None).await;
        s.advance_to(20_000).await;
        let continued = "7000 continue wakes: a completed";
        assert_eq!(s.notifications_to("P")[1..], [continued]);
    });
}

#[test]
fn turn_that_its_user_stopped_is_not_continued() {
    story(|s| async move {
        unanswered(&s).await;
        s.advance_to(7000).await;
        s.cut_off("P").await;
        s.advance_to(200_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
    });
}

#[test]
fn turn_lost_with_its_server_continues() {
    story(|s| async move {
        unanswered(&s).await;
        s.advance_to(7000).await;
        s.link(EventLink::Broken).await;
        s.advance_to(9000).await;
        s.link(EventLink::Connected).await;
        s.advance_to(200_000).await;
        let continued = "8000 continue wakes: a completed";
        assert_eq!(s.notifications_to("P")[1..], [continued]);
    });
}

#[test]
fn turn_lost_before_its_message_was_confirmed_continues() {
    story(|s| async move {
        s.server.leave_wakes_unanswered();
        s.server.send_events_to(None);
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(6500).await;
        s.link(EventLink::Broken).await;
        s.advance_to(200_000).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6000 final wakes: a completed",
                "8000 continue wakes: a completed"
            ]
        );
    });
}

#[test]
fn turn_without_a_sign_of_an_end_is_not_continued() {
    story(|s| async move {
        unanswered(&s).await;
        s.advance_to(4_000_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
    });
}

#[test]
fn prompt_of_the_user_replaces_the_continuation() {
    story(|s| async move {
        unanswered(&s).await;
        s.advance_to(7000).await;
        s.cut_off("P").await;
        s.end_instance(None).await;
        s.user_prompts("P", None, None).await;
        s.advance_to(200_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
    });
}

#[test]
fn final_is_repeated_once_with_the_default_model() {
    story(|s| async move {
        s.server.set_default_model("acme", "small");
        unanswered(&s).await;
        let fails = async || {
            let error =
                json!({"name": "UnknownError", "data": {"message": "Model not found: acme/big."}});
            s.event(error_event(&"P".into(), error)).await;
        };
        s.advance_to(6100).await;
        fails().await;
        s.advance_to(8000).await;
        let sent = notices(&s);
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[1].retry_of.as_ref(), Some(&sent[0].id));
        assert_eq!(sent[1].text, sent[0].text);
        let model = sent[1].model.as_ref().expect("the default is named");
        assert_eq!(model.model_id, "small");
        fails().await;
        s.advance_to(200_000).await;
        assert_eq!(notices(&s).len(), 2, "sent once more, not twice");
        assert_eq!(
            reason(&s).await.as_deref(),
            Some("Model not found: acme/big.")
        );
    });
}

#[test]
fn other_failure_of_a_turn_is_recorded() {
    story(|s| async move {
        unanswered(&s).await;
        s.server.push_answer(
            &"P".into(),
            &json!({"error": {"name": "APIError", "data": {"message": "overloaded"}},
                "time": {"completed": 7000}}),
        );
        s.idle("P").await;
        s.advance_to(200_000).await;
        assert_eq!(s.times(CallKind::Notify), [6000]);
        assert_eq!(reason(&s).await.as_deref(), Some("overloaded"));
    });
}
