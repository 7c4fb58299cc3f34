//! Launch and start while the agent server is unreachable: a restart of the server must not consume the
//! queue.

use greenroom::EventLink;
use greenroom::domain::task::TaskStatus;

use crate::harness::{job, story, story_with};
use crate::server::{CallKind, CallOutcome, status, unreachable};

#[test]
fn unreachable_start_is_retried_with_backoff() {
    story(|s| async move {
        s.server
            .set_outcome(CallKind::Create, CallOutcome::Fails(unreachable()));
        let a = s.launch(job("a")).await;
        s.advance_to(45_000).await;
        assert_eq!(
            s.times(CallKind::Create),
            [0, 500, 1500, 3500, 7500, 15_500, 25_500, 35_500]
        );
        assert_eq!(s.state(&a).await, "pending");
        s.server.clear_outcomes(CallKind::Create);
        s.advance_to(45_500).await;
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn unreachable_lineage_and_prompt_are_retried() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Session, CallOutcome::Fails(unreachable()));
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Fails(unreachable()));
        let a = s.launch(job("a")).await;
        s.advance_to(500).await;
        assert_eq!(s.times(CallKind::Session), [0, 500]);
        assert_eq!(s.times(CallKind::Prompt), [500]);
        s.advance_to(1000).await;
        assert_eq!(s.times(CallKind::Prompt), [500, 1000]);
        s.advance_to(7000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn outage_grants_no_slot_and_keeps_queue() {
    story_with(
        |config| config.limits.default = 2,
        |s| async move {
            s.server.go_offline();
            let mut tasks = Vec::new();
            for name in ["a", "b", "c", "d"] {
                tasks.push(s.launch(job(name)).await);
            }
            // A task that had its slot before the outage was noticed keeps it; no other slot is granted.
            s.advance_to(30_000).await;
            assert_eq!(s.slots().await, ["worker 1/2 +3"]);
            for task in &tasks {
                assert_eq!(s.state(task).await, "pending");
            }
            assert!(s.cancel(&tasks[0]).await);
            assert_eq!(
                s.slots().await,
                ["worker 0/2 +3"],
                "b is not given the slot"
            );
            let why = s
                .find(tasks[1].as_str())
                .await
                .and_then(|found| found.waits_for);
            let why = why.expect("it waits");
            assert_eq!(
                why.text,
                "number 1 in line; the agent server cannot be reached, nothing is started meanwhile"
            );
            assert_eq!(s.greenroom.readiness().await.problems.len(), 1);
            s.server.come_online();
            s.advance_to(60_000).await;
            assert_eq!(s.names(TaskStatus::Running).await, ["b", "c"]);
            assert!(s.greenroom.readiness().await.ready);
            assert!(
                s.notifications_to("P").len() <= 1,
                "no task failed: {:?}",
                s.notifications_to("P")
            );
        },
    );
}

#[test]
fn health_is_polled_with_backoff() {
    story(|s| async move {
        s.server.go_offline();
        s.launch(job("a")).await;
        s.advance_to(30_000).await;
        assert_eq!(
            s.times(CallKind::Health),
            [0, 500, 1500, 3500, 7500, 15_500, 25_500]
        );
        s.server.come_online();
        s.advance_to(60_000).await;
        let health = s.times(CallKind::Health);
        assert_eq!(
            health.last(),
            Some(&35_500),
            "no health call follows the answer"
        );
        assert_eq!(s.names(TaskStatus::Running).await, ["a"]);
    });
}

#[test]
fn broken_stream_with_healthy_server_delays_nothing() {
    story(|s| async move {
        s.link(EventLink::Broken).await;
        let a = s.launch(job("a")).await;
        assert_eq!(s.times(CallKind::Health), [0]);
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn no_grant_until_stream_is_back() {
    story(|s| async move {
        s.server
            .set_outcome(CallKind::Health, CallOutcome::Fails(unreachable()));
        s.link(EventLink::Broken).await;
        let a = s.launch(job("a")).await;
        s.advance_to(10_000).await;
        assert_eq!(s.state(&a).await, "pending");
        assert_eq!(s.in_use().await, 0);
        assert!(s.calls(CallKind::Create).is_empty());
        s.link(EventLink::Connected).await;
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn hanging_health_call_counts_as_down() {
    story(|s| async move {
        s.server.set_outcome(CallKind::Health, CallOutcome::Hangs);
        s.link(EventLink::Broken).await;
        s.advance_to(10_000).await;
        let a = s.launch(job("a")).await;
        s.advance_to(15_000).await;
        assert_eq!(s.state(&a).await, "pending");
        s.server.clear_outcomes(CallKind::Health);
        s.advance_to(30_000).await;
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn unreachable_start_ends_after_ten_minutes() {
    story(|s| async move {
        s.server.go_offline();
        let (a, waits) = (s.launch(job("a")).await, s.launch(job("waits")).await);
        s.advance_to(599_000).await;
        assert_eq!(s.state(&a).await, "pending");
        s.advance_to(611_000).await;
        assert_eq!(
            s.state(&a).await,
            "error: the agent server was not reached for 10m 0s: the agent server cannot be reached: connection refused"
        );
        assert_eq!(s.in_use().await, 0);
        assert_eq!(
            s.state(&waits).await,
            "pending",
            "who has no slot just waits"
        );
        s.server.come_online();
        s.advance_to(700_000).await;
        assert_eq!(s.state(&waits).await, "running");
        let notifications = s.notifications_to("P");
        let notifications = notifications.last().map(String::as_str).unwrap_or_default();
        assert!(
            notifications.ends_with("note wakes: a error, 1 open"),
            "{notifications}"
        );
    });
}

#[test]
fn start_limit_counts_from_last_reachable_call() {
    story(|s| async move {
        s.server.go_offline();
        let a = s.launch(job("a")).await;
        s.advance_to(500_000).await;
        s.server.come_online();
        s.server
            .set_outcome(CallKind::Prompt, CallOutcome::Fails(unreachable()));
        s.advance_to(510_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(1_000_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(1_130_000).await;
        assert!(
            s.state(&a)
                .await
                .starts_with("error: the agent server was not reached")
        );
    });
}

#[test]
fn refused_start_ends_only_with_answer() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Fails(unreachable()));
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Fails(status(500)));
        let a = s.launch(job("a")).await;
        s.advance_to(10_000).await;
        assert_eq!(s.state(&a).await, "error: refused with 500");
        assert_eq!(s.times(CallKind::Create), [0, 500]);
    });
}

#[test]
fn running_task_continues_during_outage() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server.go_offline();
        s.link(EventLink::Broken).await;
        s.advance_to(60_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.server.come_online();
        s.answer_without_event(&a, "done");
        s.idle_without_event(&a);
        s.link(EventLink::Connected).await;
        s.advance_to(70_000).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(s.notifications_to("P").len(), 1);
    });
}

#[test]
fn resume_waits_for_server() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(8000).await;
        s.server.go_offline();
        s.resume(&a).await;
        // The outage is not noticed yet: the task has its slot, and its prompt is retried.
        s.advance_to(30_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.server.come_online();
        s.advance_to(50_000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        // The outage is known: the task stays in the queue.
        s.server.go_offline();
        s.link(EventLink::Broken).await;
        s.resume(&a).await;
        s.advance_to(80_000).await;
        assert_eq!(s.state(&a).await, "pending");
        assert_eq!(s.in_use().await, 0);
        s.server.come_online();
        s.advance_to(100_000).await;
        assert_eq!(s.state(&a).await, "running");
    });
}
