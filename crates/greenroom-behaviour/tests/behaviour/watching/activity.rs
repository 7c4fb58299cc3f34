//! Signs of life, activity, and the progress that is recorded.

use greenroom::domain::ids::{SessionId, TaskId};
use serde_json::{Value, json};

use crate::harness::{Harness, delta_event, job, message_event, part_event, status_event, story};
use crate::server::CallKind;

fn tool(session: &SessionId, id: &str, name: &str, status: &str) -> Value {
    let part = json!({"id": id, "messageID": "msg_x", "sessionID": session, "type": "tool",
        "callID": format!("call_{id}"), "tool": name,
        "state": {"status": status, "input": {"n": id}}});
    part_event(session, part)
}

async fn running(s: &Harness) -> (TaskId, SessionId) {
    let a = s.launch(job("a")).await;
    let session = s.server.session_of(&a).expect("it runs");
    (a, session)
}

async fn last_update(s: &Harness, a: &TaskId) -> i64 {
    s.task(a).await.progress.last_update.as_millis()
}

/// Returns whether an idle of the first five seconds still completes the task after this event.
fn drops_a_deferred_idle(event: impl Fn(&SessionId) -> Value + Send + 'static) -> bool {
    let (notifications, dropped) = std::sync::mpsc::channel();
    story(|s| async move {
        let (_, session) = running(&s).await;
        s.advance_to(1000).await;
        s.idle(&session).await;
        s.advance_to(2000).await;
        s.event(event(&session)).await;
        s.advance_to(5000).await;
        notifications
            .send(s.times(CallKind::Messages).is_empty())
            .expect("the test waits");
    });
    dropped.recv().expect("the story sends its result")
}

#[test]
fn signs_of_life_drop_deferred_idle() {
    let assistant = |session: &SessionId| message_event(session, &json!({"role": "assistant"}));
    assert!(drops_a_deferred_idle(assistant));
    assert!(drops_a_deferred_idle(delta_event));
    assert!(drops_a_deferred_idle(|session| tool(
        session, "1", "bash", "running"
    )));
    assert!(drops_a_deferred_idle(|session| {
        part_event(session, json!({"type": "step-start", "messageID": "m"}))
    }));
    assert!(drops_a_deferred_idle(|session| {
        json!({"type": "todo.updated", "properties": {"sessionID": session, "todos": []}})
    }));
    assert!(drops_a_deferred_idle(|session| status_event(
        session,
        json!({"type": "busy"})
    )));
    assert!(drops_a_deferred_idle(|session| status_event(
        session,
        json!({"type": "retry", "message": "later"})
    )));
}

#[test]
fn user_messages_updates_and_diffs_are_not_signs_of_life() {
    let user = |session: &SessionId| message_event(session, &json!({"id": "u", "role": "user"}));
    assert!(!drops_a_deferred_idle(user));
    for kind in [
        "session.updated",
        "session.diff",
        "session.compacted",
        "plugin.added",
    ] {
        assert!(!drops_a_deferred_idle(move |session| {
            json!({"type": kind, "properties": {"sessionID": session, "info": {"id": session}}})
        }));
    }
}

#[test]
fn user_message_parts_are_not_signs_of_life() {
    story(|s| async move {
        let (a, session) = running(&s).await;
        s.advance_to(1000).await;
        s.event(message_event(
            &session,
            &json!({"id": "msg_u", "role": "user"}),
        ))
        .await;
        s.idle(&session).await;
        s.advance_to(2000).await;
        let part = json!({"id": "p", "messageID": "msg_u", "type": "text", "text": "do a"});
        s.event(part_event(&session, part)).await;
        let delta = json!({"type": "message.part.delta", "properties": {"sessionID": session,
            "messageID": "msg_u", "field": "text", "delta": "x"}});
        s.event(delta).await;
        s.advance_to(5000).await;
        assert_eq!(
            s.times(CallKind::Messages),
            [5000],
            "the idle was not dropped"
        );
        assert_eq!(last_update(&s, &a).await, 0);
        assert_eq!(s.task(&a).await.progress.last_message, None);
    });
}

#[test]
fn activity_changes_last_update_and_status_does_not() {
    story(|s| async move {
        let (a, session) = running(&s).await;
        s.advance_to(2000).await;
        s.stream_text(&session).await;
        assert_eq!(last_update(&s, &a).await, 2000);
        s.advance_to(4000).await;
        s.busy(&session).await;
        s.event(status_event(
            &session,
            json!({"type": "retry", "message": "x"}),
        ))
        .await;
        assert_eq!(last_update(&s, &a).await, 2000);
        s.advance_to(6000).await;
        s.answer(&session, "so far").await;
        assert_eq!(last_update(&s, &a).await, 6000);
    });
}

#[test]
fn tool_calls_are_counted_once() {
    story(|s| async move {
        let (a, session) = running(&s).await;
        s.advance_to(1000).await;
        for status in ["pending", "running", "completed"] {
            s.event(tool(&session, "1", "bash", status)).await;
        }
        let same_call = json!({"id": "other", "callID": "call_1", "type": "tool", "tool": "bash"});
        s.event(part_event(&session, same_call)).await;
        s.event(tool(&session, "2", "edit", "running")).await;
        // A part that names a tool is a call, independent of its type.
        let named = json!({"id": "3", "type": "tool_use", "tool": "grep"});
        s.event(part_event(&session, named)).await;
        let progress = s.task(&a).await.progress;
        assert_eq!(progress.tool_calls, 3);
        assert_eq!(progress.last_tool.as_deref(), Some("grep"));
    });
}

#[test]
fn newest_text_is_truncated_to_500_characters() {
    story(|s| async move {
        let (a, session) = running(&s).await;
        let text = |text: &str| json!({"id": "t", "messageID": "m", "type": "text", "text": text});
        s.advance_to(1000).await;
        s.event(part_event(&session, text("first"))).await;
        s.advance_to(3000).await;
        s.event(part_event(&session, text(&"ß".repeat(900)))).await;
        s.advance_to(5000).await;
        s.event(part_event(&session, text("  "))).await;
        let progress = s.task(&a).await.progress;
        assert_eq!(progress.last_message.as_deref(), Some(&*"ß".repeat(500)));
        assert_eq!(
            progress.last_message_at.map(|at| at.as_millis()),
            Some(3000)
        );
    });
}

#[test]
fn session_ids_and_parts_are_found_in_every_shape() {
    story(|s| async move {
        let (a, session) = running(&s).await;
        let flat = json!({"type": "message.part.updated", "properties": {"sessionID": session,
            "id": "f", "type": "tool", "tool": "flat"}});
        let in_part = json!({"type": "message.part.updated", "properties": {
            "part": {"sessionID": session, "id": "n", "type": "tool", "tool": "nested"}}});
        let in_info = json!({"type": "message.updated", "properties": {
            "info": {"sessionID": session, "role": "assistant", "id": "m"}}});
        for (second, event, tools) in [(2, flat, 1), (4, in_part, 2), (6, in_info, 2)] {
            s.advance_to(second * 1000).await;
            s.event(event).await;
            assert_eq!(last_update(&s, &a).await, second as i64 * 1000);
            assert_eq!(s.task(&a).await.progress.tool_calls, tools);
        }
    });
}

#[test]
fn unknown_events_are_ignored() {
    story(|s| async move {
        let (a, session) = running(&s).await;
        s.advance_to(6000).await;
        let id = session.as_str();
        for event in [
            json!(null),
            json!([1, 2]),
            json!({"type": 7, "properties": {"sessionID": id}}),
            json!({"type": "session.idle"}),
            json!({"type": "session.idle", "properties": {"sessionID": 5}}),
            json!({"type": "session.status", "properties": {"sessionID": id}}),
            json!({"type": "session.status", "properties": {"sessionID": id, "status": {"type": "napping"}}}),
            json!({"type": "message.updated", "properties": {"sessionID": id, "info": "x"}}),
            json!({"type": "session.sang", "properties": {"sessionID": id}}),
            json!({"type": "permission.asked", "properties": {"sessionID": id}}),
        ] {
            s.event(event).await;
        }
        assert_eq!(s.state(&a).await, "running");
        assert!(
            s.times(CallKind::Messages).is_empty(),
            "nothing was taken for an idle"
        );
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn events_of_ended_task_are_ignored() {
    story(|s| async move {
        let (a, session) = running(&s).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        let before = s.task(&a).await;
        s.advance_to(7000).await;
        s.stream_text(&session).await;
        s.event(tool(&session, "9", "bash", "running")).await;
        s.fail(&session, "late").await;
        s.abort_externally(&session).await;
        s.idle(&session).await;
        assert_eq!(s.task(&a).await, before);
        s.advance_to(20_000).await;
        assert_eq!(s.notifications_to("P"), ["6000 final wakes: a completed"]);
    });
}

#[test]
fn events_of_unknown_session_are_ignored() {
    story(|s| async move {
        let (a, _) = running(&s).await;
        s.advance_to(6000).await;
        s.idle("stranger").await;
        s.fail("stranger", "boom").await;
        s.event(json!({"type": "session.deleted", "properties": {"info": {"id": "stranger"}}}))
            .await;
        assert_eq!(s.state(&a).await, "running");
        assert!(s.notifications_to("P").is_empty());
    });
}

#[test]
fn endless_tool_calls_are_stopped() {
    crate::harness::story_with(
        |config| config.safety.max_tool_calls = 3,
        |s| async move {
            let (a, session) = running(&s).await;
            for id in ["1", "2", "3"] {
                s.event(tool(&session, id, "bash", "running")).await;
            }
            assert_eq!(s.state(&a).await, "running");
            s.event(tool(&session, "4", "bash", "running")).await;
            assert_eq!(s.state(&a).await, "cancelled: more than 3 tool calls");
            assert_eq!(s.calls(CallKind::Abort).len(), 1);
        },
    );
}
