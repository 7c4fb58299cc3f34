//! A restart of the server, or lost events: running tasks are reconciled and prompted once to continue.

use greenroom::EventLink;
use greenroom::domain::ids::TaskId;
use serde_json::json;

use crate::harness::{Harness, job, story};
use crate::server::{CallKind, CallOutcome, CallPayload, unreachable};

/// Kills the server during an answer of the session and starts it again.
async fn cut_off_and_restarted(s: &Harness, a: &TaskId) {
    let session = s.server.session_of(a).expect("it runs");
    s.server.add_message(
        &session,
        json!({"role": "assistant"}),
        json!([{"type": "text", "text": "ha"}]),
    );
    s.server.go_offline();
    s.server.forget_turns();
    s.link(EventLink::Broken).await;
    s.advance(5000).await;
    s.server.come_online();
    s.link(EventLink::Connected).await;
}

fn prompt_texts(s: &Harness) -> Vec<String> {
    let calls = s.server.calls(CallKind::Prompt).into_iter();
    calls
        .filter_map(|call| match call.payload {
            CallPayload::Prompt(_, prompt) => Some(prompt.text.to_string()),
            _ => None,
        })
        .collect()
}

#[test]
fn lost_run_is_prompted_once_more() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(10_000).await;
        s.busy(&a).await;
        cut_off_and_restarted(&s, &a).await;
        s.advance_to(40_000).await;
        let texts = prompt_texts(&s);
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[1].contains("Go on where you stopped"), "{texts:?}");
        assert_eq!(s.state(&a).await, "running");
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(s.notifications_to("P").len(), 1);
    });
}

#[test]
fn run_lost_twice_is_interrupted() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(10_000).await;
        cut_off_and_restarted(&s, &a).await;
        s.advance_to(40_000).await;
        assert_eq!(prompt_texts(&s).len(), 2);
        cut_off_and_restarted(&s, &a).await;
        s.advance_to(90_000).await;
        assert_eq!(prompt_texts(&s).len(), 2);
        assert_eq!(s.state(&a).await, "interrupt: cut off again");
    });
}

#[test]
fn run_lost_before_output_is_prompted_again() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server.forget_turns();
        s.link(EventLink::Broken).await;
        s.link(EventLink::Connected).await;
        s.advance_to(30_000).await;
        assert_eq!(prompt_texts(&s).len(), 2);
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn prompt_to_continue_waits_for_server() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(10_000).await;
        cut_off_and_restarted(&s, &a).await;
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Fails(unreachable()));
        s.advance_to(60_000).await;
        assert_eq!(
            prompt_texts(&s).len(),
            3,
            "the prompt that did not arrive is repeated"
        );
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn reconnect_checks_running_tasks() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(10_000).await;
        s.link(EventLink::Broken).await;
        s.answer_without_event(&a, "done");
        s.idle_without_event(&a);
        s.advance_to(10_500).await;
        s.link(EventLink::Connected).await;
        assert_eq!(s.times(CallKind::Statuses).last(), Some(&10_500));
        s.advance_to(12_000).await;
        assert_eq!(
            s.state(&a).await,
            "completed",
            "the second look is the next poll"
        );
    });
}

#[test]
fn busy_run_is_unaffected_by_reconnect() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(10_000).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server
            .add_message(&session, json!({"role": "assistant"}), json!([]));
        s.link(EventLink::Broken).await;
        s.link(EventLink::Connected).await;
        s.advance_to(60_000).await;
        assert_eq!(prompt_texts(&s).len(), 1);
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}
