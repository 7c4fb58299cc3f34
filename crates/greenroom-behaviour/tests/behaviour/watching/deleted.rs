//! session.deleted: the task of that session and all tasks below it are cancelled and leave memory; other
//! tasks are unaffected.

use greenroom::domain::task::TaskStatus;

use crate::harness::{Harness, job, job_of, story, story_with};
use crate::server::{CallKind, CallOutcome};

async fn history(s: &Harness, parent: &str) -> Vec<String> {
    let entries = s.greenroom.history(&parent.into()).await.into_iter();
    entries
        .map(|entry| format!("{} {}", entry.description, entry.status.as_str()))
        .collect()
}

#[test]
fn session_deletion_cancels_task_and_notifies_parent() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        s.delete(&a).await;
        assert_eq!(s.state(&a).await, "gone", "it leaves memory at once");
        assert_eq!(history(&s, "P").await, ["a cancelled", "b running"]);
        assert_eq!(s.state(&b).await, "running", "only its own session");
        assert_eq!(s.in_use().await, 1);
        s.advance_to(7000).await;
        assert_eq!(
            s.notifications_to("P"),
            ["6100 note silent: a cancelled, 1 open"]
        );
        s.finish_turn(&b).await;
        assert_eq!(
            s.notifications_to("P")[1],
            "7000 final wakes: a cancelled, b completed"
        );
    });
}

#[test]
fn deletion_reason_is_reported() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.delete(&a).await;
        let notifications = s.server.calls(CallKind::Notify);
        let crate::server::CallPayload::Notify(notice) = &notifications[0].payload else {
            panic!("{notifications:?}");
        };
        assert_eq!(
            notice.facts.tasks[0].error.as_deref(),
            Some("Session deleted")
        );
        assert!(
            notice.text.contains("Reason: Session deleted"),
            "{}",
            notice.text
        );
    });
}

#[test]
fn deletion_cascades_and_notifies_outside_parents_only() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let sa = s.server.session_of(&a).expect("it runs").to_string();
        let b = s.launch(job_of(sa.as_str(), "b")).await;
        let sb = s.server.session_of(&b).expect("it runs").to_string();
        let c = s.launch(job_of(sb.as_str(), "c")).await;
        let other = s.launch(job_of("Q", "other")).await;
        s.advance_to(6000).await;
        s.delete(&a).await;
        for task in [&a, &b, &c] {
            assert_eq!(s.state(task).await, "gone");
        }
        assert_eq!(history(&s, &sb).await, ["c cancelled"]);
        assert_eq!(s.state(&other).await, "running");
        assert_eq!(s.in_use().await, 1);
        s.advance_to(60_000).await;
        assert_eq!(s.notifications_to("P"), ["6000 final wakes: a cancelled"]);
        assert!(s.notifications_to(&sa).is_empty() && s.notifications_to(&sb).is_empty());
    });
}

#[test]
fn parent_deletion_cancels_running_and_queued_tasks() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
            let q = s.launch(job_of("Q", "q")).await;
            s.advance_to(6000).await;
            s.delete("P").await;
            assert_eq!(s.state(&a).await, "gone");
            assert_eq!(s.state(&b).await, "gone");
            assert_eq!(s.names(TaskStatus::Running).await, ["q"]);
            assert_eq!(s.calls(CallKind::Create).len(), 2, "b never started");
            s.advance_to(30_000).await;
            assert!(
                s.notifications_to("P").is_empty(),
                "a deleted parent is not notified"
            );
            s.finish_turn(&q).await;
            assert_eq!(s.notifications_to("Q"), ["30000 final wakes: q completed"]);
        },
    );
}

#[test]
fn messages_to_deleted_parent_are_dropped() {
    story(|s| async move {
        s.server.set_outcome_for(
            CallKind::Notify,
            "P",
            CallOutcome::Fails(crate::server::status(500)),
        );
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(10_000).await;
        let tried = s.notifications_to("P").len();
        assert!(tried >= 2, "it is being resent");
        s.delete("P").await;
        s.advance_to(600_000).await;
        assert_eq!(s.notifications_to("P").len(), tried);
    });
}

#[test]
fn session_deleted_during_create_is_handled() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Late(3000));
        let a = s.launch(job("a")).await;
        s.advance_to(1000).await;
        s.delete("P").await;
        assert_eq!(s.state(&a).await, "gone");
        assert_eq!(s.in_use().await, 0);
        s.advance_to(10_000).await;
        let late = s.server.session_of(&a).expect("it came back");
        assert_eq!(s.calls(CallKind::Abort), [format!("3000 {late}")]);
        assert!(s.calls(CallKind::Prompt).is_empty());
    });
}

#[test]
fn ended_task_of_deleted_session_leaves_memory() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(8000).await;
        s.delete(&a).await;
        assert_eq!(s.state(&a).await, "gone");
        assert_eq!(history(&s, "P").await, ["a completed"]);
        s.advance_to(20_000).await;
        assert_eq!(s.notifications_to("P"), ["6000 final wakes: a completed"]);
    });
}

#[test]
fn queued_resume_ends_with_session() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            let a = s.launch(job("a")).await;
            s.advance_to(6000).await;
            s.finish_turn(&a).await;
            let b = s.launch(job("b")).await;
            s.resume(&a).await;
            assert_eq!(s.state(&a).await, "pending");
            s.delete(&a).await;
            assert_eq!(s.state(&a).await, "gone");
            s.advance_to(12_000).await;
            s.finish_turn(&b).await;
            assert_eq!(s.in_use().await, 0);
            assert_eq!(
                s.calls(CallKind::Prompt).len(),
                2,
                "a deleted session is not prompted"
            );
            let last = s.notifications_to("P").pop();
            assert_eq!(
                last.as_deref(),
                Some("12000 final wakes: b completed, a cancelled")
            );
        },
    );
}
