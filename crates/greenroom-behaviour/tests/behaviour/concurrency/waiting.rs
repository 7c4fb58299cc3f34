//! Waiting: the queue of a key, the reason why a task waits, and a parent that must not wait for its own
//! children.

use greenroom::LaunchError;

use super::{RUNNING, by_agent, one_at_a_time};
use crate::harness::{job, job_of, story_with};
use crate::server::{CallKind, CallOutcome};

#[test]
fn starts_of_key_are_fifo() {
    story_with(one_at_a_time, |s| async move {
        for name in ["a", "b", "c", "d"] {
            s.launch(job(name)).await;
        }
        for (second, name) in [(6, "a"), (12, "b"), (18, "c"), (24, "d")] {
            s.advance_to(second * 1000).await;
            assert_eq!(s.names(RUNNING).await, [name]);
            let running = s.tasks().await;
            let task = running.iter().find(|task| task.description == name.into());
            s.finish_turn(&task.expect("it runs").id).await;
        }
        assert_eq!(
            s.calls(CallKind::Create),
            ["0 a", "6000 b", "12000 c", "18000 d"]
        );
    });
}

#[test]
fn hanging_create_delays_only_itself() {
    story_with(
        |config| config.limits.default = 2,
        |s| async move {
            s.server
                .set_next_outcome(CallKind::Create, CallOutcome::Hangs);
            let hung = s.launch(job("hung")).await;
            let b = s.launch(job("b")).await;
            s.launch(job("c")).await;
            assert_eq!(s.names(RUNNING).await, ["b"]);
            s.advance_to(6000).await;
            s.finish_turn(&b).await;
            assert_eq!(s.names(RUNNING).await, ["c"]);
            assert_eq!(s.state(&hung).await, "pending");
            assert_eq!(s.in_use().await, 2, "a start in flight holds its slot");
        },
    );
}

#[test]
fn resume_waits_in_same_queue() {
    story_with(one_at_a_time, |s| async move {
        let a = s.launch(job("a")).await;
        let b = s.launch(job("b")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.launch(job("c")).await;
        s.resume(&a).await;
        s.launch(job("d")).await;
        assert_eq!(s.slots().await, ["worker 1/1 +3"]);
        let why = s.find(a.as_str()).await.and_then(|found| found.waits_for);
        assert_eq!(why.map(|why| why.position), Some(2));
        let mut order = Vec::new();
        for second in [12, 18, 24, 30] {
            s.advance_to(second * 1000).await;
            let running = s.tasks().await;
            let running = running.iter().find(|task| task.status() == RUNNING);
            let running = running.expect("one runs");
            order.push(running.description.clone());
            s.finish_turn(&running.id).await;
        }
        assert_eq!(
            order.iter().map(|name| &**name).collect::<Vec<_>>(),
            ["b", "c", "a", "d"]
        );
        assert_eq!(s.state(&b).await, "completed");
    });
}

#[test]
fn queued_task_reports_reason() {
    story_with(one_at_a_time, |s| async move {
        s.launch(job("a")).await;
        let b = s.launch(job("b")).await;
        let c = s.launch(job("c")).await;
        let why = s.find(c.as_str()).await.and_then(|found| found.waits_for);
        let why = why.expect("it waits");
        assert_eq!(why.key.as_str(), "worker");
        assert_eq!((why.position, why.in_use, why.limit), (2, 1, 1));
        assert_eq!(why.text, "number 2 in line; 1 of 1 slots in use");
        assert!(s.cancel(&b).await);
        let why = s.find(c.as_str()).await.and_then(|found| found.waits_for);
        assert_eq!(why.map(|why| why.position), Some(1));
    });
}

#[test]
fn wait_for_global_limit_is_reported() {
    story_with(
        |config| config.limits.max = 1,
        |s| async move {
            s.launch(by_agent("x", "a")).await;
            let b = s.launch(by_agent("y", "b")).await;
            let why = s.find(b.as_str()).await.and_then(|found| found.waits_for);
            assert_eq!(
                why.map(|why| why.text).as_deref(),
                Some("number 1 in line; 1 of 1 slots of all keys in use")
            );
        },
    );
}

#[test]
fn full_queue_refuses_launch() {
    story_with(
        |config| {
            config.limits.default = 1;
            config.limits.max_waiting = 2;
        },
        |s| async move {
            let a = s.launch(job("a")).await;
            s.launch(job("b")).await;
            s.advance_to(6000).await;
            s.finish_turn(&a).await;
            s.launch(job("c")).await;
            s.launch(job("d")).await;
            let refused = s.try_launch(job("e")).await;
            assert_eq!(refused, Err(LaunchError::QueueFull { waiting: 2 }));
            let refused = s.try_resume(s.resume_request(&a, "go on")).await;
            assert!(
                matches!(
                    refused,
                    Err(greenroom::ResumeError::QueueFull { waiting: 2 })
                ),
                "{refused:?}"
            );
            assert_eq!(s.state(&a).await, "completed", "nothing was changed");
            assert_eq!(s.slots().await, ["worker 1/1 +2"]);
        },
    );
}

#[test]
fn parent_waiting_for_children_holds_no_slot() {
    story_with(one_at_a_time, |s| async move {
        let parent = s.launch(job("parent")).await;
        let session = s.server.session_of(&parent).expect("it runs");
        s.advance_to(1000).await;
        let child = s.launch(job_of(session.as_str(), "child")).await;
        assert_eq!(s.state(&child).await, "pending");
        s.advance_to(6000).await;
        s.finish_turn(&parent).await;
        assert_eq!(s.state(&parent).await, "running", "it waits for its child");
        assert_eq!(s.state(&child).await, "running");
        assert_eq!(s.slots().await, ["worker 1/1"]);
        assert_eq!(s.task(&parent).await.concurrency_key, None);
        // With its next sign of life the task counts again, even above the limit.
        s.advance_to(8000).await;
        s.stream_text(&parent).await;
        assert_eq!(s.slots().await, ["worker 2/1"]);
        let key = s.task(&parent).await.concurrency_key;
        assert_eq!(key.as_ref().map(|key| key.as_str()), Some("worker"));
        let waits = s.launch(job("waits")).await;
        s.advance_to(9000).await;
        s.finish_turn(&child).await;
        assert_eq!(s.state(&waits).await, "pending", "the parent counts");
        // The parent is woken, answers, and completes.
        s.advance_to(15_000).await;
        s.finish_turn(&parent).await;
        assert_eq!(s.state(&parent).await, "completed");
        assert_eq!(s.state(&waits).await, "running");
    });
}

#[test]
fn parent_idle_before_child_releases_slot() {
    story_with(one_at_a_time, |s| async move {
        let parent = s.launch(job("parent")).await;
        let session = s.server.session_of(&parent).expect("it runs");
        s.advance_to(6000).await;
        // The check is still in flight when the child is launched.
        s.server
            .set_next_outcome_for(CallKind::Messages, session.as_str(), CallOutcome::Late(500));
        s.finish_turn(&parent).await;
        let child = s.launch(job_of(session.as_str(), "child")).await;
        s.advance_to(6500).await;
        assert_eq!(s.state(&parent).await, "running");
        assert_eq!(s.state(&child).await, "running");
        assert_eq!(s.slots().await, ["worker 1/1"]);
    });
}

#[test]
fn cancelled_head_passes_turn_to_next() {
    story_with(one_at_a_time, |s| async move {
        let a = s.launch(job("a")).await;
        let b = s.launch(job("b")).await;
        s.launch(job("c")).await;
        assert!(s.cancel(&b).await);
        assert!(s.cancel(&a).await);
        assert_eq!(s.names(RUNNING).await, ["c"]);
    });
}

#[test]
fn queued_task_does_not_expire() {
    story_with(one_at_a_time, |s| async move {
        let a = s.launch(job("a")).await;
        let b = s.launch(job("b")).await;
        for half_hour in 1..20 {
            s.advance_to(half_hour * 1_700_000).await;
            s.stream_text(&a).await;
        }
        assert_eq!(s.state(&b).await, "pending");
        s.finish_turn(&a).await;
        assert_eq!(s.state(&b).await, "running");
    });
}

#[test]
fn queue_ttl_ends_with_grant() {
    story_with(
        |config| {
            config.limits.default = 1;
            config.lifecycle.queue_ttl = Some(std::time::Duration::from_secs(60));
        },
        |s| async move {
            let a = s.launch(job("a")).await;
            let b = s.launch(job("b")).await;
            s.advance_to(10_000).await;
            s.server
                .set_next_outcome(CallKind::Create, CallOutcome::Late(25_000));
            let c = s.launch(job("c")).await;
            s.advance_to(50_000).await;
            s.finish_turn(&a).await;
            // b has its slot and its session is being created, so it no longer waits. c waits for one minute
            // from its own acceptance.
            s.advance_to(60_001).await;
            assert_eq!(s.state(&b).await, "pending");
            s.advance_to(69_999).await;
            assert_eq!(s.state(&c).await, "pending");
            s.advance_to(70_000).await;
            assert_eq!(s.state(&c).await, "error: it waited 1m 0s for a slot");
            s.advance_to(76_000).await;
            assert_eq!(s.state(&b).await, "running");
            s.resume(&a).await;
            s.advance_to(135_999).await;
            assert_eq!(s.state(&a).await, "pending", "a resume: after its resume");
            s.advance_to(136_000).await;
            assert_eq!(s.state(&a).await, "error: it waited 1m 0s for a slot");
        },
    );
}
