//! An actor that must abort the session of an ended run panics: the abort is still made, and a resume waits
//! for it.

use super::{PanicAt, launch, retry_until_answered};
use crate::harness::*;
use crate::server::CallKind;

fn assert_session_aborted(place: &'static str, times: usize) {
    let panic_at = PanicAt::at(place, 1, times);
    let panics = story_with_failpoints(panic_at, move |s| async move {
        let task = launch(&s, job("a")).await;
        s.advance(1000).await;
        s.busy(&task).await;
        let (greenroom, id) = (s.greenroom.clone(), task.clone());
        let cancelled = retry_until_answered(&s, async move {
            greenroom.cancel(&id, Default::default()).await
        });
        cancelled.await.expect("it was running");
        s.advance(3000).await;
        assert_eq!(s.state(&task).await, "cancelled");
        assert_eq!(s.calls(CallKind::Abort).len(), 1, "{place}");
        assert_eq!(s.in_use().await, 0);
        s.resume(&task).await;
        s.advance(1000).await;
        assert_eq!(s.state(&task).await, "running", "{place}");
        assert_eq!(
            s.calls(CallKind::Abort).len(),
            1,
            "{place}: not the next run"
        );
    });
    assert_eq!(panics.len(), times, "{panics:?}");
}

#[test]
fn panic_at_recorded_end_leaves_no_busy_session() {
    assert_session_aborted("task: EndAccepted", 1);
}

#[test]
fn interrupted_abort_is_repeated() {
    assert_session_aborted("task: abort is answered", 1);
    assert_session_aborted("task: abort is answered", 3);
}

#[test]
fn impossible_abort_is_given_up() {
    let panic_at = PanicAt::at("task: abort is answered", 1, usize::MAX - 1);
    let panics = story_with_failpoints(panic_at, |s| async move {
        let task = launch(&s, job("a")).await;
        s.advance(1000).await;
        assert!(s.cancel(&task).await);
        s.resume(&task).await;
        s.advance(1000).await;
        assert_eq!(
            s.state(&task).await,
            "running",
            "a resume does not wait forever"
        );
        assert!(s.calls(CallKind::Abort).is_empty());
    });
    // The run, three more attempts, and the end of the story.
    assert_eq!(panics.len(), 8, "{panics:?}");
}
