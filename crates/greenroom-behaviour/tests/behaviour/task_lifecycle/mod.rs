//! A task: its fields, its statuses, and the finaliser of every end.

mod aborts;

use std::time::Duration;

use greenroom::domain::ids::Run;
use greenroom::domain::task::{Launch, TaskStatus};
use serde_json::json;

use crate::harness::{Harness, abort_event, idle_event, job, job_on, model, story};
use crate::server::{CallKind, CallOutcome, status};

#[test]
fn launch_keeps_input_and_is_pending() {
    story(|s| async move {
        let task = s
            .try_launch(Launch {
                parent_message: Some("msg_9".into()),
                parent_agent: Some("lead".to_owned()),
                parent_model: Some(model("acme/small")),
                category: Some("quick".to_owned()),
                skills: vec!["git".to_owned()],
                skill_content: Some("be brief".to_owned()),
                directory: Some("/elsewhere".to_owned()),
                ..job_on("acme/big:high", "a")
            })
            .await
            .expect("it is accepted");
        let id = task.id.as_str();
        assert!(
            id.len() == 11
                && id.starts_with("bg_")
                && id[3..].chars().all(|c| c.is_ascii_hexdigit()),
            "{id}"
        );
        assert_eq!(task.status(), TaskStatus::Pending);
        assert_eq!((task.run, task.queued_at.as_millis()), (Run(1), 0));
        assert_eq!(task.concurrency_group.as_str(), "acme/big");
        assert_eq!(task.parent_session.as_ref().map(|p| p.as_str()), Some("P"));
        assert_eq!(
            task.parent_message.as_ref().map(|m| m.as_str()),
            Some("msg_9")
        );
        assert_eq!(task.category.as_deref(), Some("quick"));
        assert_eq!(task.skills, ["git"]);
        assert_eq!((&task.session, task.started_at()), (&None, None));
    });
}

#[test]
fn running_task_has_session_times_attempt_and_slot() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Late(500));
        let a = s.launch(job("a")).await;
        s.advance_to(499).await;
        assert_eq!(s.state(&a).await, "pending");
        s.advance_to(500).await;
        let task = s.task(&a).await;
        assert_eq!(task.status(), TaskStatus::Running);
        assert_eq!(task.started_at().map(|at| at.as_millis()), Some(500));
        assert_eq!(
            task.concurrency_key.as_ref().map(|key| key.as_str()),
            Some("worker")
        );
        assert_eq!(task.directory.as_deref(), Some("/base"));
        assert_eq!(task.attempts.len(), 1);
        assert_eq!(task.attempts[0].session, s.server.session_of(&a));
        s.advance_to(7000).await;
        s.finish_turn(&a).await;
        let task = s.task(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(task.completed_at().map(|at| at.as_millis()), Some(7000));
        assert_eq!(task.concurrency_key, None, "the slot held now: none");
    });
}

#[test]
fn changes_are_published_once_in_order() {
    story(|s| async move {
        let mut changes = s.changes();
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(8000).await;
        s.resume(&a).await;
        s.advance_to(9000).await;
        s.fail(&a, "boom").await;
        let mut seen = Vec::new();
        while let Ok(change) = changes.try_recv() {
            let from = change.from.map_or("-", TaskStatus::as_str);
            seen.push(format!(
                "{} run {}: {from} > {}",
                change.at.as_millis(),
                change.task.run,
                change.to.as_str()
            ));
        }
        assert_eq!(
            seen,
            [
                "0 run 1: - > pending",
                "0 run 1: pending > running",
                "6000 run 1: running > completed",
                "8000 run 2: completed > pending",
                "8000 run 2: pending > running",
                "9000 run 2: running > error",
            ]
        );
    });
}

#[test]
fn first_of_two_simultaneous_ends_counts() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        let session = s.server.session_of(&a).expect("a runs");
        // An external abort and an idle event arrive together; a cancel after that is too late.
        s.send_event(abort_event(&session));
        s.send_event(idle_event(&session));
        s.advance_to(8000).await;
        assert_eq!(
            s.state(&a).await,
            "interrupt: the session was aborted from outside"
        );
        assert!(!s.cancel(&a).await);
        assert_eq!(
            s.state(&a).await,
            "interrupt: the session was aborted from outside"
        );
        s.finish_turn(&b).await;
        s.advance_to(9000).await;
        assert_eq!(
            s.notifications_to("P"),
            ["8000 final wakes: a interrupt, b completed"]
        );
    });
}

/// Checks the effects that every end has.
async fn finalised(s: &Harness, a: &greenroom::domain::ids::TaskId, at: i64, end: &str) {
    assert_eq!(s.state(a).await, end);
    assert_eq!(s.in_use().await, 0);
    let task = s.task(a).await;
    assert_eq!(task.completed_at().map(|at| at.as_millis()), Some(at));
    let history = s.greenroom.history(&"P".into()).await;
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].status, task.status());
    let session = s.server.session_of(a).expect("it ran");
    assert_eq!(s.calls(CallKind::Abort), [format!("{at} {session}")]);
    let word = task.status().as_str();
    assert_eq!(
        s.notifications_to("P"),
        [format!("{at} final wakes: a {word}")]
    );
    s.advance(11 * 60_000).await;
    assert_eq!(s.state(a).await, "gone", "the removal was armed");
    assert_eq!(s.calls(CallKind::Abort).len(), 1, "the abort worked");
}

#[test]
fn completion_is_finalised() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        finalised(&s, &a, 6000, "completed").await;
    });
}

#[test]
fn failure_is_finalised() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.fail(&a, "boom").await;
        finalised(&s, &a, 6000, "error: boom").await;
    });
}

#[test]
fn cancel_is_finalised() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        assert!(s.cancel(&a).await);
        finalised(&s, &a, 6000, "cancelled").await;
    });
}

#[test]
fn external_abort_is_finalised() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.abort_externally(&a).await;
        s.advance_to(8000).await;
        finalised(
            &s,
            &a,
            8000,
            "interrupt: the session was aborted from outside",
        )
        .await;
    });
}

#[test]
fn error_is_truncated_to_2000_characters() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.fail(&a, &"é".repeat(5000)).await;
        let task = s.task(&a).await;
        assert_eq!(task.error().map(|error| error.chars().count()), Some(2000));
    });
}

#[test]
fn toasts_report_progress_and_may_fail() {
    story(|s| async move {
        s.server
            .set_outcome(CallKind::Toast, CallOutcome::Fails(status(500)));
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(7000).await;
        s.fail(&b, "boom").await;
        let toasts: Vec<String> = s
            .server
            .calls(CallKind::Toast)
            .into_iter()
            .filter_map(|call| match call.payload {
                crate::server::CallPayload::Toast(toast) => {
                    Some(format!("{} {}", call.at, toast.title))
                }
                _ => None,
            })
            .collect();
        assert_eq!(
            toasts,
            [
                "0 Background task queued",
                "0 Background task queued",
                "6000 Background task finished",
                "7000 All background tasks finished",
            ]
        );
        let second = match &s.server.calls(CallKind::Toast)[1].payload {
            crate::server::CallPayload::Toast(toast) => toast.message.clone(),
            other => panic!("{other:?} is no toast"),
        };
        assert_eq!(
            second, "b\nrunning: a\nwaiting: b",
            "what runs and what waits"
        );
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(json!(s.state(&b).await), json!("error: boom"));
    });
}

#[test]
fn unstarted_task_has_no_duration_and_no_abort() {
    story(|s| async move {
        s.server.set_next_outcome(
            CallKind::Create,
            CallOutcome::LateFailure(2000, status(500)),
        );
        let a = s.launch(job("a")).await;
        s.advance_to(2000).await;
        assert_eq!(s.state(&a).await, "error: refused with 500");
        let task = s.task(&a).await;
        assert_eq!(task.duration(task.queued_at), Duration::ZERO);
        s.advance_to(20_000).await;
        assert!(s.calls(CallKind::Abort).is_empty());
        assert_eq!(s.notifications_to("P"), ["2000 final wakes: a error"]);
    });
}
