//! Slots are returned on every path and memory is empty at the end, after a thousand tasks of every kind and
//! after panics in calls.

use greenroom::Config;
use greenroom::domain::ids::TaskId;
use greenroom::domain::task::{Launch, TaskStatus};
use serde_json::json;

use crate::harness::{Harness, job, job_of, story_with, story_with_panics};
use crate::server::{CallKind, CallOutcome, cut_off, status, unreachable};

/// Ends the n-th task of the mixed run.
async fn ends(s: &Harness, n: usize, task: &TaskId) {
    if s.find(task.as_str())
        .await
        .is_none_or(|found| found.task.status() != TaskStatus::Running)
    {
        // The task waits, or its start has failed.
        if n.is_multiple_of(3) {
            s.cancel(task).await;
        }
        return;
    }
    match n % 7 {
        0 => s.fail(task, "boom").await,
        1 => s.abort_externally(task).await,
        2 => {
            s.cancel(task).await;
        }
        3 => s.delete(task).await,
        4 => s.idle_without_event(task),
        _ => s.finish_turn(task).await,
    }
}

#[test]
fn thousand_mixed_tasks_leave_nothing() {
    let settings = |config: &mut Config| {
        config.limits.default = 20;
        config.limits.max = 50;
        config.limits.providers.insert("acme".to_owned(), 7);
    };
    story_with(settings, |s| async move {
        let parents: Vec<String> = (0..10).map(|n| format!("parent {n}")).collect();
        for parent in &parents {
            s.server.add_session(parent, None);
        }
        let mut tasks = Vec::new();
        for n in 0..1000_usize {
            if n % 11 == 0 {
                s.server
                    .set_next_outcome(CallKind::Create, CallOutcome::Late(1500));
            }
            if n % 31 == 0 {
                s.server
                    .set_next_outcome(CallKind::Create, CallOutcome::Fails(status(500)));
            }
            if n % 37 == 0 {
                s.server
                    .set_next_outcome(CallKind::Prompt, CallOutcome::Fails(cut_off()));
            }
            if n % 41 == 0 {
                s.server
                    .set_next_outcome(CallKind::Notify, CallOutcome::Cut(cut_off()));
            }
            if n % 43 == 0 {
                s.server
                    .set_next_outcome(CallKind::Create, CallOutcome::Fails(unreachable()));
            }
            if n % 47 == 0 {
                s.server
                    .set_next_outcome(CallKind::Abort, CallOutcome::Ignored);
            }
            let launch = job_of(parents[n % 10].as_str(), &format!("{n}"));
            let model = (n % 3 == 0).then(|| crate::harness::model(["acme/a", "acme/b"][n % 2]));
            let agent = format!("agent {}", n % 4);
            tasks.push(
                s.launch(Launch {
                    model,
                    agent,
                    ..launch
                })
                .await,
            );
            s.advance(50).await;
            let limits = s.limits().await;
            assert!(limits.in_use <= 50, "{limits:?}");
            let of = |key: &str| limits.keys.iter().find(|k| k.key.as_str() == key);
            let acme: usize = ["acme/a", "acme/b"]
                .iter()
                .filter_map(|key| of(key))
                .map(|k| k.in_use)
                .sum();
            assert!(acme <= 7, "{limits:?}");
            if n >= 40 {
                ends(&s, n, &tasks[n - 40].clone()).await;
            }
        }
        // Ends all open tasks.
        for _ in 0..60 {
            let open = s
                .tasks()
                .await
                .into_iter()
                .filter(|task| !task.status().is_terminal());
            let open: Vec<TaskId> = open.map(|task| task.id).collect();
            if open.is_empty() {
                break;
            }
            for (n, task) in open.iter().enumerate() {
                ends(&s, n, task).await;
            }
            s.advance(7000).await;
        }
        let limits = s.limits().await;
        assert_eq!(limits.in_use, 0, "{limits:?}");
        s.advance(1_300_000).await;
        assert!(s.tasks().await.is_empty(), "memory is empty");
        let limits = s.limits().await;
        assert!(limits.keys.is_empty(), "{limits:?}");
        let readiness = s.greenroom.readiness().await;
        assert!(readiness.ready && readiness.tasks == 0 && readiness.waiting == 0);
        // Every parent got every end exactly once in a final message, and no message is pending.
        for parent in &parents {
            let notifications = s.notifications_to(parent);
            let finals: Vec<&String> = notifications
                .iter()
                .filter(|line| line.contains(" final "))
                .collect();
            assert!(!finals.is_empty());
            let greenroom = s.greenroom.clone();
            let of = parent.as_str().into();
            let owed = s
                .resolve(async move { greenroom.notifications(&of).await })
                .await;
            let open = owed
                .iter()
                .filter(|notice| matches!(notice.fate.as_str(), "owed" | "sending"));
            assert_eq!(open.count(), 0, "{parent}: {owed:?}");
        }
        let mut named = std::collections::BTreeMap::<String, usize>::new();
        for call in s.server.calls(CallKind::Notify) {
            let crate::server::CallPayload::Notify(notice) = call.payload else {
                continue;
            };
            let is_final = notice.facts.kind == greenroom::domain::notice::NoticeKind::Final;
            for fact in notice.facts.tasks.iter().filter(|_| is_final) {
                *named.entry(fact.task.to_string()).or_default() += 1;
            }
        }
        assert_eq!(named.len(), 1000, "each is in a final");
        assert!(named.values().all(|count| *count == 1), "and in one only");
        let calls = s.server.log().len();
        s.advance(3_600_000).await;
        assert_eq!(s.server.log().len(), calls, "nothing ticks");
    });
}

/// Makes a call of this kind panic once, while one task runs from its launch to the wake of its parent.
/// Returns the ends of both tasks.
fn broken_once(on: CallKind) -> (String, Vec<String>, usize) {
    let (notifications, received) = std::sync::mpsc::channel();
    let panics = story_with_panics(
        |_| {},
        move |s| async move {
            s.server.set_next_outcome(on, CallOutcome::Panics);
            let a = s.launch(job("a")).await;
            s.advance_to(7000).await;
            if s.server.session_of(&a).is_some() {
                s.finish_turn(&a).await;
            }
            s.advance_to(60_000).await;
            let outcome = (s.state(&a).await, s.notifications_to("P"), s.in_use().await);
            notifications.send(outcome).expect("the test waits");
        },
    );
    assert_eq!(panics.len(), 1, "it did break: {panics:?}");
    received.recv().expect("the story sends its result")
}

#[test]
fn panic_in_call_does_not_prevent_end() {
    for on in [
        CallKind::Session,
        CallKind::Create,
        CallKind::Prompt,
        CallKind::Messages,
        CallKind::Todos,
        CallKind::Statuses,
    ] {
        let (state, notifications, in_use) = broken_once(on);
        assert_eq!(state, "completed", "{on:?}");
        assert_eq!(notifications.len(), 1, "{on:?}: {notifications:?}");
        assert_eq!(in_use, 0, "{on:?}");
    }
}

#[test]
fn panic_in_abort_delays_no_task() {
    let (state, notifications, in_use) = broken_once(CallKind::Abort);
    assert_eq!(
        (state.as_str(), notifications.len(), in_use),
        ("completed", 1, 0)
    );
    let panics = story_with_panics(
        |_| {},
        |s| async move {
            let a = s.launch(job("a")).await;
            s.advance_to(6000).await;
            s.server
                .set_next_outcome(CallKind::Abort, CallOutcome::Panics);
            assert!(s.cancel(&a).await);
            s.resume(&a).await;
            s.advance_to(10_000).await;
            assert_eq!(
                s.state(&a).await,
                "running",
                "a resume does not wait forever"
            );
        },
    );
    assert_eq!(panics.len(), 1);
}

#[test]
fn panic_in_notify_does_not_lose_wake() {
    let (state, notifications, _) = broken_once(CallKind::Notify);
    assert_eq!(state, "completed");
    assert_eq!(notifications.len(), 2, "{notifications:?}");
}

#[test]
fn panic_in_toast_or_health_changes_nothing() {
    let (state, notifications, in_use) = broken_once(CallKind::Toast);
    assert_eq!(
        (state.as_str(), notifications.len(), in_use),
        ("completed", 1, 0)
    );
    story_with_panics(
        |_| {},
        |s| async move {
            s.server.go_offline();
            s.launch(job("a")).await;
            s.advance_to(600).await;
            s.server.come_online();
            s.server
                .set_next_outcome(CallKind::Health, CallOutcome::Panics);
            s.advance_to(30_000).await;
            assert_eq!(s.names(TaskStatus::Running).await, ["a"]);
            assert!(s.greenroom.readiness().await.ready);
        },
    );
}

#[test]
fn panic_in_ask_rejection_leaves_run() {
    story_with_panics(
        |_| {},
        |s| async move {
            let a = s.launch(job("a")).await;
            let session = s.server.session_of(&a).expect("it runs");
            s.advance_to(6000).await;
            let request = json!({"type": "permission.asked", "properties": {"id": "per_1",
                "sessionID": session, "permission": "bash", "patterns": []}});
            s.event(request).await;
            s.server
                .set_next_outcome(CallKind::RejectAsk, CallOutcome::Panics);
            s.advance_to(610_000).await;
            assert!(s.times(CallKind::RejectAsk).len() > 1, "it is tried again");
            s.finish_turn(&a).await;
            assert!(s.state(&a).await.starts_with("completed"));
        },
    );
}

#[test]
fn panic_in_lookup_is_retried() {
    story_with_panics(
        |_| {},
        |s| async move {
            s.server
                .set_next_outcome(CallKind::Create, CallOutcome::Cut(cut_off()));
            s.server
                .set_next_outcome(CallKind::Below, CallOutcome::Panics);
            let a = s.launch(job("a")).await;
            s.advance_to(10_000).await;
            assert_eq!(s.state(&a).await, "running");
            assert_eq!(s.calls(CallKind::Create).len(), 1);
        },
    );
}
