//! Cancel: what it ends, what it leaves, and which parents are notified. `cancel_races` covers the stages of
//! a start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use greenroom::domain::task::TaskStatus;
use greenroom::{CancelError, CancelOptions, CancelScope};

use crate::harness::{Harness, SessionRef, idle_event, job, job_of, story, story_with};
use crate::server::{CallKind, CallOutcome};

fn silently() -> CancelOptions {
    CancelOptions {
        skip_notification: true,
        ..CancelOptions::default()
    }
}

async fn cancel_all(s: &Harness, scope: CancelScope) -> Vec<String> {
    let greenroom = s.greenroom.clone();
    let all = s.resolve(async move { greenroom.cancel_all(scope, CancelOptions::default()).await });
    all.await
        .into_iter()
        .map(|task| task.description.to_string())
        .collect()
}

#[test]
fn second_cancel_changes_nothing() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        let because = CancelOptions {
            reason: Some("not needed".to_owned()),
            ..CancelOptions::default()
        };
        let cancelled = s.try_cancel(&a, because.clone()).await;
        assert_eq!(
            cancelled.map(|task| task.status()).ok(),
            Some(TaskStatus::Cancelled)
        );
        assert_eq!(s.state(&a).await, "cancelled: not needed");
        let before = s.task(&a).await;
        s.advance_to(7000).await;
        let again = s.try_cancel(&a, CancelOptions::default()).await;
        assert!(
            matches!(again, Err(CancelError::NotCancellable(_))),
            "{again:?}"
        );
        assert_eq!(s.task(&a).await, before);
        let unknown = s.try_cancel(&"bg_00000000".into(), because).await;
        assert!(
            matches!(unknown, Err(CancelError::Unknown(_))),
            "{unknown:?}"
        );
        assert_eq!(s.notifications_to("P"), ["6000 final wakes: a cancelled"]);
    });
}

async fn pass_turns(turns: usize) {
    for _ in 0..turns {
        // The yield of the runtime would wait until no other task is ready.
        let mut passed = false;
        std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::replace(&mut passed, true) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// The completion of a task is refused if a child is launched at the same moment. A cancel that arrives just
/// after the decision must not be lost with it. The cancel is shifted by one turn of the runtime at a time.
#[test]
fn cancel_succeeds_or_task_has_ended_at_every_moment() {
    let (cancelled, completed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    for turns in 0..40 {
        let (cancelled, completed) = (Arc::clone(&cancelled), Arc::clone(&completed));
        story(move |s| async move {
            let a = s.launch(job("a")).await;
            s.advance_to(6000).await;
            let session = (&a).session(&s.server);
            s.answer_without_event(&session, "done");
            s.idle_without_event(&session);
            s.send_event(idle_event(&session));
            let (greenroom, below, id) = (s.greenroom.clone(), s.greenroom.clone(), a.clone());
            actix_rt::spawn(async move {
                pass_turns(turns).await;
                below.launch(job_of(session, "below")).await
            });
            let cancel = s.resolve(async move {
                pass_turns(turns).await;
                greenroom.cancel(&id, CancelOptions::default()).await
            });
            let so = cancel.await.is_ok();
            let state = s.state(&a).await;
            assert_ne!(state, "running", "after {turns} turns");
            assert_eq!(so, state == "cancelled", "after {turns} turns: {state}");
            let count = if so { cancelled } else { completed };
            count.fetch_add(1, Ordering::Relaxed);
        });
    }
    assert!(cancelled.load(Ordering::Relaxed) > 0, "some came before");
    assert!(completed.load(Ordering::Relaxed) > 0, "some came after");
}

#[test]
fn cancel_without_abort_leaves_session() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        let leave = CancelOptions {
            abort_session: false,
            ..CancelOptions::default()
        };
        s.try_cancel(&a, leave).await.expect("it runs");
        s.advance_to(20_000).await;
        assert!(s.calls(CallKind::Abort).is_empty());
    });
}

#[test]
fn silent_cancel_of_last_task_sends_final_without_it() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(7000).await;
        s.try_cancel(&b, silently()).await.expect("it runs");
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note silent: a completed, 1 open",
                "7000 final wakes: a completed"
            ]
        );
    });
}

#[test]
fn silently_cancelled_task_is_in_no_message() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        let c = s.launch(job("c")).await;
        s.advance_to(6000).await;
        s.try_cancel(&b, silently()).await.expect("it runs");
        s.advance_to(7000).await;
        s.finish_turn(&a).await;
        s.advance_to(8000).await;
        s.finish_turn(&c).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "7100 note silent: a completed, 1 open",
                "8000 final wakes: a completed, c completed"
            ]
        );
    });
}

#[test]
fn empty_batch_closes_without_message() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        s.try_cancel(&a, silently()).await.expect("it runs");
        s.try_cancel(&b, silently()).await.expect("it runs");
        s.advance_to(60_000).await;
        assert!(s.notifications_to("P").is_empty());
        s.advance_to(11 * 60_000).await;
        assert_eq!(s.state(&a).await, "gone", "and its tasks leave memory");
        // Later tasks form a batch of their own.
        let c = s.launch(job("c")).await;
        s.advance(6000).await;
        s.finish_turn(&c).await;
        assert_eq!(s.notifications_to("P"), ["666000 final wakes: c completed"]);
    });
}

#[test]
fn cancel_does_not_wait_for_parent() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        for on in [CallKind::Notify, CallKind::Messages, CallKind::Session] {
            s.server.set_outcome_for(on, "P", CallOutcome::Hangs);
        }
        s.server.set_outcome(CallKind::Abort, CallOutcome::Hangs);
        s.advance_to(6000).await;
        // All are answered at this instant.
        assert!(s.cancel(&a).await);
        assert!(s.cancel(&b).await);
        assert_eq!(s.in_use().await, 0);
    });
}

#[test]
fn cancel_of_queued_task_makes_no_call() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            let a = s.launch(job("a")).await;
            let (b, c) = (s.launch(job("b")).await, s.launch(job("c")).await);
            let calls = s.server.log().len();
            assert!(s.cancel(&c).await);
            assert!(s.cancel(&b).await);
            let new: Vec<CallKind> = s.server.log()[calls..]
                .iter()
                .map(|call| call.kind)
                .collect();
            assert!(new.iter().all(|on| *on == CallKind::Toast), "{new:?}");
            assert_eq!(s.slots().await, ["worker 1/1"]);
            s.advance_to(6000).await;
            s.finish_turn(&a).await;
            let last = s.notifications_to("P").pop();
            assert_eq!(
                last.as_deref(),
                Some("6000 final wakes: a completed, b cancelled, c cancelled")
            );
        },
    );
}

#[test]
fn cancel_wins_over_completion_check() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server
            .set_next_outcome(CallKind::Todos, CallOutcome::Late(2000));
        s.finish_turn(&a).await;
        s.advance_to(7000).await;
        assert!(s.cancel(&a).await);
        s.advance_to(9000).await;
        assert_eq!(s.state(&a).await, "cancelled");
        assert_eq!(s.notifications_to("P"), ["7000 final wakes: a cancelled"]);
    });
}

#[test]
fn cancel_all_includes_descendants() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.launch(job_of(session.as_str(), "below")).await;
        let b = s.launch(job("b")).await;
        s.launch(job_of("Q", "other")).await;
        s.advance_to(6000).await;
        assert!(s.cancel(&b).await);
        assert_eq!(s.names(TaskStatus::Running).await, ["a", "below", "other"]);
        assert_eq!(cancel_all(&s, CancelScope::Tree(a)).await, ["a", "below"]);
        assert_eq!(s.names(TaskStatus::Running).await, ["other"]);
        assert_eq!(
            cancel_all(&s, CancelScope::Descendants("Q".into())).await,
            ["other"]
        );
        assert!(cancel_all(&s, CancelScope::All).await.is_empty());
        s.advance_to(20_000).await;
        assert_eq!(
            s.notifications_to("P").last().map(String::as_str),
            Some("6000 final wakes: a cancelled, b cancelled")
        );
    });
}

#[test]
fn cancel_of_one_task_leaves_its_children() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        let below = s.launch(job_of(session.as_str(), "below")).await;
        s.advance_to(6000).await;
        assert!(s.cancel(&a).await);
        s.advance_to(7000).await;
        assert_eq!(s.state(&below).await, "running");
        s.finish_turn(&below).await;
        assert_eq!(
            s.notifications_to(session.as_str()),
            ["7000 final silent: below completed"],
            "no unwatched session is busy"
        );
    });
}
