//! An actor that panics repeatedly: it is restarted at once a few times, then every half minute, and
//! readiness reports it.

use greenroom::{LimitsChange, LimitsError};

use super::{PanicAt, finish, launch, retry_until_answered};
use crate::harness::*;
use crate::server::CallKind;

/// Runs one task for two minutes in a system whose actor of one kind panics `times` times.
fn dies_often(place: &'static str, times: usize, look: fn(&Harness, &[String])) {
    let panic_at = PanicAt::at(place, 1, times);
    let panics = story_with_failpoints(panic_at, move |s| async move {
        let greenroom = s.greenroom.clone();
        let task = launch(&s, job("a")).await;
        s.advance(2000).await;
        let readiness = retry_until_answered(&s, async move { greenroom.readiness().await }).await;
        look(&s, &readiness.problems);
        s.advance(120_000).await;
        finish(&s, &task).await;
        s.advance(90_000).await;
        finish(&s, &task).await;
        s.advance(7000).await;
        let readiness = s.greenroom.readiness().await;
        assert!(readiness.ready, "{readiness:?}");
        assert_eq!(s.state(&task).await, "completed");
        let finals = s
            .notifications_to("P")
            .into_iter()
            .filter(|line| line.contains("final"));
        assert_eq!(finals.count(), 1);
    });
    assert_eq!(panics.len(), times, "{panics:?}");
}

#[test]
fn frequent_panics_delay_restart_and_readiness() {
    dies_often("queue: Enqueue", 7, |s, problems| {
        assert_eq!(problems, ["the queue fails repeatedly"]);
        assert_eq!(s.greenroom.counters().actor_deaths["queue"], 6);
    });
    dies_often("slots: start", 7, |s, problems| {
        assert_eq!(problems, ["the slot manager fails repeatedly"]);
        assert_eq!(s.greenroom.counters().actor_deaths["slot manager"], 6);
    });
}

#[test]
fn five_panics_within_a_minute_restart_at_once() {
    dies_often("slots: Acquire", 5, |s, problems| {
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(s.greenroom.counters().actor_deaths["slot manager"], 5);
    });
}

#[test]
fn registry_comes_back_after_frequent_panics() {
    let panic_at = PanicAt::at("registry: Ask", 2, 6);
    let panics = story_with_failpoints(panic_at, |s| async move {
        let task = launch(&s, job("a")).await;
        // Each request makes it panic, until it is restarted only every half minute.
        for _ in 0..3 {
            let greenroom = s.greenroom.clone();
            retry_until_answered(&s, async move { greenroom.readiness().await }).await;
        }
        let readiness = s.greenroom.readiness().await;
        assert!(!readiness.ready, "{readiness:?}");
        assert_eq!(
            readiness.problems,
            ["greenroom is restarting after an internal failure"]
        );
        s.advance(60_000).await;
        finish(&s, &task).await;
        s.advance(7000).await;
        assert!(s.greenroom.readiness().await.ready);
        assert_eq!(s.greenroom.counters().actor_deaths["registry"], 6);
        assert_eq!(s.state(&task).await, "completed");
    });
    assert_eq!(panics.len(), 6, "{panics:?}");
}

#[test]
fn failed_set_limits_returns_error() {
    let panic_at = PanicAt::at("registry: Ask", 1, 6);
    let panics = story_with_failpoints(panic_at, |s| async move {
        for _ in 0..2 {
            let greenroom = s.greenroom.clone();
            retry_until_answered(&s, async move { greenroom.readiness().await }).await;
        }
        let change = || LimitsChange {
            default: Some(Some(1)),
            ..LimitsChange::default()
        };
        let greenroom = s.greenroom.clone();
        let set =
            retry_until_answered(&s, async move { greenroom.set_limits(change()).await }).await;
        assert!(matches!(set, Err(LimitsError::Interrupted)), "{set:?}");
        s.advance(40_000).await;
        let greenroom = s.greenroom.clone();
        let set =
            retry_until_answered(&s, async move { greenroom.set_limits(change()).await }).await;
        assert_eq!(set.map(|limits| limits.keys.len()).ok(), Some(0));
        launch(&s, job("a")).await;
        launch(&s, job("b")).await;
        s.settle().await;
        assert_eq!(s.slots().await, ["worker 1/1 +1"]);
    });
    assert_eq!(panics.len(), 6, "{panics:?}");
}

#[test]
fn third_panic_of_task_actor_ends_run_as_error() {
    let panic_at = PanicAt::at("task: Happened", 1, 3);
    let panics = story_with_failpoints(panic_at, |s| async move {
        let (task, other) = (launch(&s, job("a")).await, launch(&s, job("b")).await);
        s.advance(1000).await;
        for _ in 0..3 {
            s.stream_text(&task).await;
            s.advance(100).await;
        }
        let state = s.state(&task).await;
        assert!(
            state.starts_with("error: greenroom failed at it 3 times"),
            "{state}"
        );
        assert_eq!(
            s.calls(CallKind::Abort).len(),
            1,
            "its session does not work on"
        );
        assert_eq!(s.in_use().await, 1, "its slot is back");
        assert_eq!(s.state(&other).await, "running");
        s.advance(6000).await;
        finish(&s, &other).await;
        s.advance(7000).await;
        let last = s.notifications_to("P").pop().unwrap_or_default();
        assert!(last.contains("final wakes: a error, b completed"), "{last}");
    });
    assert_eq!(panics.len(), 3, "{panics:?}");
}
