//! A reverted parent: every message would delete what its user can still restore, so messages are held.

use greenroom::domain::task::TaskStatus;
use serde_json::json;

use crate::harness::{Harness, job, job_of, story};
use crate::server::CallKind;

/// In milliseconds.
const HOUR: u64 = 3_600_000;

async fn fate(s: &Harness) -> String {
    let greenroom = s.greenroom.clone();
    let records = s.resolve(async move { greenroom.notifications(&"P".into()).await });
    records.await[0].fate.clone()
}

/// Sets whether a session is reverted, with the event.
async fn set_reverted(s: &Harness, session: &str, reverted: bool) {
    s.server.set_reverted(&session.into(), reverted);
    let mut info = json!({"id": session});
    if reverted {
        info["revert"] = json!({"messageID": "msg_1"});
    }
    s.event(json!({"type": "session.updated", "properties": {"sessionID": session, "info": info}}))
        .await;
}

#[test]
fn message_waits_for_restore() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        set_reverted(&s, "P", true).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(200_000).await;
        assert!(s.notifications_to("P").is_empty());
        assert_eq!(fate(&s).await, "owed");
        set_reverted(&s, "P", false).await;
        assert_eq!(s.notifications_to("P"), ["200000 final wakes: a completed"]);
    });
}

#[test]
fn revert_and_restore_without_events_are_read() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.server.set_reverted(&"P".into(), true);
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(30_000).await;
        s.finish_turn(&b).await;
        s.advance_to(100_000).await;
        assert!(
            s.notifications_to("P").is_empty(),
            "silent messages delete too"
        );
        s.server.set_reverted(&"P".into(), false);
        s.advance_to(200_000).await;
        assert_eq!(
            s.notifications_to("P"),
            ["126100 final wakes: a completed, b completed"],
            "the record is read every 60 s"
        );
    });
}

#[test]
fn prompt_of_user_releases_message() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        set_reverted(&s, "P", true).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(20_000).await;
        s.server.set_reverted(&"P".into(), false);
        s.user_prompts("P", None, None).await;
        assert_eq!(s.notifications_to("P"), ["20000 final wakes: a completed"]);
    });
}

#[test]
fn held_message_is_kept_for_days() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        set_reverted(&s, "P", true).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(HOUR).await;
        assert_eq!(
            s.state(&a).await,
            "gone",
            "a held message does not keep its tasks"
        );
        s.advance_to(50 * HOUR).await;
        assert!(s.notifications_to("P").is_empty());
        set_reverted(&s, "P", false).await;
        assert_eq!(s.times(CallKind::Notify).len(), 1);
    });
}

#[test]
fn held_message_does_not_block_completion_of_parent() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        let below = s.launch(job_of(session.as_str(), "below")).await;
        set_reverted(&s, &session, true).await;
        s.advance_to(6000).await;
        s.finish_turn(&below).await;
        s.advance_to(10_000).await;
        s.finish_turn(&a).await;
        s.advance_to(20_000).await;
        assert_eq!(s.names(TaskStatus::Completed).await, ["a", "below"]);
        assert!(s.notifications_to(&session).is_empty());
    });
}

#[test]
fn held_message_survives_restart() {
    story(|mut s| async move {
        let a = s.launch(job("a")).await;
        set_reverted(&s, "P", true).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(100_000).await;
        s.crash(1000).await;
        s.advance_to(200_000).await;
        assert!(s.notifications_to("P").is_empty());
        set_reverted(&s, "P", false).await;
        assert_eq!(s.notifications_to("P"), ["200000 final wakes: a completed"]);
    });
}
