//! A cancel of each kind at each stage of a task: the cancel wins, and no session is left busy.

use greenroom::CancelOptions;
use greenroom::domain::ids::TaskId;
use serde_json::json;

use crate::harness::{Harness, job, job_of, status_event, story, story_with};
use crate::server::{CallKind, CallOutcome, CallPayload, cut_off, status};

/// Cancels a task and checks its state, the calls that follow, and the slots.
async fn cancelled_at(s: &Harness, a: &TaskId) {
    let before = s.server.log().len();
    assert!(s.cancel(a).await);
    assert_eq!(s.state(a).await, "cancelled");
    assert_eq!(s.in_use().await, 0);
    s.advance(60_000).await;
    let after = &s.server.log()[before..];
    assert!(
        !after
            .iter()
            .any(|call| matches!(call.kind, CallKind::Create | CallKind::Prompt)),
        "nothing is made or prompted after a cancel: {after:?}"
    );
    let notifications = s.notifications_to("P");
    assert_eq!(notifications.len(), 1, "{notifications:?}");
    assert!(
        notifications[0].ends_with("final wakes: a cancelled"),
        "{notifications:?}"
    );
}

#[test]
fn cancel_wins_over_lineage_read() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Session, CallOutcome::Late(5000));
        let a = s.launch(job("a")).await;
        s.advance_to(1000).await;
        cancelled_at(&s, &a).await;
        assert!(s.calls(CallKind::Abort).is_empty());
    });
}

#[test]
fn cancel_during_create_aborts_late_session() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Late(5000));
        let a = s.launch(job("a")).await;
        s.advance_to(1000).await;
        cancelled_at(&s, &a).await;
        let late = s.server.session_of(&a).expect("it came back");
        assert_eq!(s.calls(CallKind::Abort), [format!("5000 {late}")]);
    });
}

#[test]
fn cancel_during_create_lookup_aborts_found_session() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Cut(cut_off()));
        s.server
            .set_next_outcome(CallKind::Below, CallOutcome::Late(3000));
        let a = s.launch(job("a")).await;
        s.advance_to(1000).await;
        cancelled_at(&s, &a).await;
        let found = s.server.session_of(&a).expect("it was made");
        assert_eq!(s.calls(CallKind::Abort), [format!("3500 {found}")]);
    });
}

#[test]
fn cancel_before_create_lookup_leaves_no_busy_session() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Cut(cut_off()));
        let a = s.launch(job("a")).await;
        s.advance_to(200).await;
        cancelled_at(&s, &a).await;
        let made = s.server.session_of(&a).expect("it was made");
        let status = s.server.status_of(&made);
        assert_eq!(status, None, "nothing was prompted, so nothing works");
    });
}

#[test]
fn cancel_during_prompt_aborts_turn() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Late(5000));
        let a = s.launch(job("a")).await;
        s.advance_to(1000).await;
        cancelled_at(&s, &a).await;
        let session = s.server.session_of(&a).expect("it runs");
        assert_eq!(
            s.calls(CallKind::Abort),
            [format!("1000 {session}"), format!("5000 {session}")]
        );
        assert_eq!(s.server.status_of(&session), None);
    });
}

#[test]
fn refused_prompt_after_cancel_needs_no_second_abort() {
    story(|s| async move {
        s.server.set_next_outcome(
            CallKind::Prompt,
            CallOutcome::LateFailure(5000, status(500)),
        );
        let a = s.launch(job("a")).await;
        s.advance_to(1000).await;
        cancelled_at(&s, &a).await;
        assert_eq!(s.times(CallKind::Abort), [1000]);
    });
}

#[test]
fn cancel_during_send_aborts_turn() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Late(5000));
        let (greenroom, id) = (s.greenroom.clone(), a.clone());
        let sent = actix_rt::spawn(async move { greenroom.send(&id, "more".to_owned()).await });
        s.advance_to(7000).await;
        assert!(s.cancel(&a).await);
        s.advance_to(60_000).await;
        assert!(sent.is_finished());
        assert_eq!(s.times(CallKind::Abort), [7000, 11_000]);
        let session = s.server.session_of(&a).expect("it runs");
        assert_eq!(s.server.status_of(&session), None);
    });
}

#[test]
fn resume_waits_briefly_for_previous_prompt() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Late(4000));
        let a = s.launch(job("a")).await;
        s.advance_to(1000).await;
        assert!(s.cancel(&a).await);
        s.resume(&a).await;
        s.advance_to(3999).await;
        assert_eq!(s.state(&a).await, "pending");
        s.advance_to(4000).await;
        assert_eq!(
            s.state(&a).await,
            "running",
            "the late prompt was aborted first"
        );
        assert_eq!(s.times(CallKind::Abort), [1000, 4000]);
        assert_eq!(s.times(CallKind::Prompt), [0, 4000]);
    });
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Late(40_000));
        let a = s.launch(job("a")).await;
        s.advance_to(1000).await;
        assert!(s.cancel(&a).await);
        s.resume(&a).await;
        s.advance_to(10_999).await;
        assert_eq!(s.state(&a).await, "pending");
        s.advance_to(11_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.busy(&a).await;
        s.advance_to(60_000).await;
        assert_eq!(
            s.times(CallKind::Abort),
            [1000],
            "it would hit the later run"
        );
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn cancel_wins_over_start_retry() {
    story(|s| async move {
        s.server.go_offline();
        let a = s.launch(job("a")).await;
        s.advance_to(1200).await;
        s.server.come_online();
        cancelled_at(&s, &a).await;
    });
}

#[test]
fn cancel_if_pending_leaves_granted_task() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            s.server
                .set_next_outcome(CallKind::Create, CallOutcome::Late(5000));
            let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
            let only_pending = CancelOptions {
                only_pending: true,
                ..CancelOptions::default()
            };
            assert!(s.try_cancel(&a, only_pending.clone()).await.is_err());
            assert!(s.try_cancel(&b, only_pending.clone()).await.is_ok());
            assert!(s.try_cancel(&b, only_pending).await.is_err());
            s.advance_to(5000).await;
            assert_eq!(s.state(&a).await, "running");
            assert_eq!(s.state(&b).await, "cancelled");
        },
    );
}

/// A moment in the life of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    QueuedHead,
    QueuedBehind,
    Creating,
    Prompting,
    Running,
    IdleDeferred,
    Checking,
    BackingOff,
    Asking,
    Resuming,
}

const MOMENTS: [Moment; 10] = [
    Moment::QueuedHead,
    Moment::QueuedBehind,
    Moment::Creating,
    Moment::Prompting,
    Moment::Running,
    Moment::IdleDeferred,
    Moment::Checking,
    Moment::BackingOff,
    Moment::Asking,
    Moment::Resuming,
];

/// A way to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ordered,
    SessionDeleted,
    ParentDeleted,
    Shutdown,
}

/// Brings a task of `P` to a moment. All other tasks belong to `Q`.
async fn bring_to_stage(s: &Harness, moment: Moment) -> TaskId {
    if matches!(moment, Moment::QueuedHead | Moment::QueuedBehind) {
        s.launch(job_of("Q", "holds the slot")).await;
    }
    if moment == Moment::QueuedBehind {
        s.launch(job_of("Q", "stands before it")).await;
    }
    match moment {
        Moment::Creating => s
            .server
            .set_next_outcome(CallKind::Create, CallOutcome::Late(5000)),
        Moment::Prompting => s
            .server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Late(5000)),
        _ => {}
    }
    let a = s.launch(job("a")).await;
    s.advance_to(2000).await;
    match moment {
        Moment::IdleDeferred => {
            s.answer_without_event(&a, "done");
            s.idle(&a).await;
        }
        Moment::Checking => {
            s.server
                .set_next_outcome(CallKind::Todos, CallOutcome::Late(5000));
            s.finish_turn(&a).await;
        }
        Moment::BackingOff => {
            let session = s.server.session_of(&a).expect("it runs");
            let retry = json!({"type": "retry", "message": "overloaded"});
            s.event(status_event(&session, retry)).await;
        }
        Moment::Asking => {
            let session = s.server.session_of(&a).expect("it runs");
            let request = json!({"type": "permission.asked", "properties": {"id": "per_1",
                "sessionID": session, "permission": "bash", "patterns": []}});
            s.event(request).await;
        }
        Moment::Resuming => {
            s.server
                .set_next_outcome(CallKind::Abort, CallOutcome::Late(5000));
            s.finish_turn(&a).await;
            s.resume(&a).await;
        }
        _ => {}
    }
    a
}

/// Cancels in every way at every moment: the task is cancelled once with the right reason, no call is started
/// for it, no session of it is left busy, and each parent is notified once.
fn cancelled(moment: Moment, way: Way) {
    let settings = |config: &mut greenroom::Config| config.limits.default = 1;
    story_with(settings, move |s| async move {
        let context = format!("{moment:?}, {way:?}");
        let a = bring_to_stage(&s, moment).await;
        let mut changes = s.changes();
        let (begun, notifications) = (s.server.log().len(), s.notifications_to("P").len());
        let reason = match way {
            Way::Ordered => {
                assert!(s.cancel(&a).await, "{context}");
                None
            }
            Way::SessionDeleted => {
                s.delete(&a).await;
                Some("Session deleted")
            }
            Way::ParentDeleted => {
                s.delete("P").await;
                Some("Session deleted")
            }
            Way::Shutdown => {
                s.shutdown().await;
                Some("Shutdown")
            }
        };
        let mut ends = Vec::new();
        while let Ok(change) = changes.try_recv() {
            if change.task.id == a {
                ends.push((change.to.as_str(), change.task.error().map(str::to_owned)));
            }
        }
        let expected = ("cancelled", reason.map(str::to_owned));
        assert_eq!(ends, [expected], "{context}");
        s.advance_to(120_000).await;
        let about_a = s.server.log()[begun..].to_vec().into_iter().filter(|call| {
            let session = s.server.session_of(&a);
            let create = matches!(&call.payload, CallPayload::Create(new) if new.task == a);
            create || (call.kind == CallKind::Prompt && call.session == session)
        });
        assert_eq!(about_a.count(), 0, "{context}: nothing is begun");
        if let Some(session) = s.server.session_of(&a) {
            assert_eq!(
                s.server.status_of(&session),
                None,
                "{context}: left at work"
            );
        }
        let finals = match way {
            Way::Ordered | Way::SessionDeleted => 1,
            Way::ParentDeleted | Way::Shutdown => 0,
        };
        assert_eq!(
            s.notifications_to("P").len() - notifications,
            finals,
            "{context}: {:?}",
            s.notifications_to("P")
        );
    });
}

#[test]
fn cancel_wins_at_every_moment() {
    for moment in MOMENTS {
        cancelled(moment, Way::Ordered);
    }
}

#[test]
fn session_deletion_wins_at_every_moment() {
    use Moment::{Creating, QueuedBehind, QueuedHead};
    for moment in MOMENTS {
        if !matches!(moment, QueuedHead | QueuedBehind | Creating) {
            cancelled(moment, Way::SessionDeleted);
        }
    }
}

#[test]
fn parent_deletion_wins_at_every_moment() {
    for moment in MOMENTS {
        cancelled(moment, Way::ParentDeleted);
    }
}

#[test]
fn shutdown_wins_at_every_moment() {
    for moment in MOMENTS {
        cancelled(moment, Way::Shutdown);
    }
}
