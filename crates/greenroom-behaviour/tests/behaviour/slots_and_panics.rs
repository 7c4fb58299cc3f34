//! Slots come back on every path and memory is empty at the end, also after a thousand tasks of every kind, and after
//! our own code has broken in the middle of a call.

use greenroom::Config;
use greenroom::domain::ids::TaskId;
use greenroom::domain::task::{Launch, TaskStatus};
use serde_json::json;

use crate::harness::{Stage, broken_story, job, job_of, story_with};
use crate::server::{Fate, On, cut_off, status, unreachable};

/// How the n-th task of the mixed run ends.
async fn ends(s: &Stage, n: usize, task: &TaskId) {
    if s.find(task.as_str())
        .await
        .is_none_or(|found| found.task.status() != TaskStatus::Running)
    {
        // It waits, or its start went wrong.
        if n.is_multiple_of(3) {
            s.cancel(task).await;
        }
        return;
    }
    match n % 7 {
        0 => s.fail(task, "boom").await,
        1 => s.aborted(task).await,
        2 => {
            s.cancel(task).await;
        }
        3 => s.delete(task).await,
        4 => s.quietly_idle(task),
        _ => s.finish(task).await,
    }
}

#[test]
fn a_mixed_run_of_a_thousand_tasks_leaves_nothing() {
    let knobs = |config: &mut Config| {
        config.limits.default = 20;
        config.limits.max = 50;
        config.limits.providers.insert("acme".to_owned(), 7);
    };
    story_with(knobs, |s| async move {
        let parents: Vec<String> = (0..10).map(|n| format!("parent {n}")).collect();
        for parent in &parents {
            s.server.has(parent, None);
        }
        let mut tasks = Vec::new();
        for n in 0..1000_usize {
            if n % 11 == 0 {
                s.server.next(On::Create, Fate::Late(1500));
            }
            if n % 31 == 0 {
                s.server.next(On::Create, Fate::Fails(status(500)));
            }
            if n % 37 == 0 {
                s.server.next(On::Prompt, Fate::Fails(cut_off()));
            }
            if n % 41 == 0 {
                s.server.next(On::Notify, Fate::Cut(cut_off()));
            }
            if n % 43 == 0 {
                s.server.next(On::Create, Fate::Fails(unreachable()));
            }
            if n % 47 == 0 {
                s.server.next(On::Abort, Fate::Ignored);
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
            s.pass(50).await;
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
        // All that is left is brought to its end.
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
            s.pass(7000).await;
        }
        let limits = s.limits().await;
        assert_eq!(limits.in_use, 0, "{limits:?}");
        s.pass(1_300_000).await;
        assert!(s.tasks().await.is_empty(), "memory is empty");
        let limits = s.limits().await;
        assert!(limits.keys.is_empty(), "{limits:?}");
        let readiness = s.greenroom.readiness().await;
        assert!(readiness.ready && readiness.tasks == 0 && readiness.waiting == 0);
        // Every parent was told of every end exactly once in a final, and nothing is owed.
        for parent in &parents {
            let told = s.told(parent);
            let finals: Vec<&String> = told
                .iter()
                .filter(|line| line.contains(" final "))
                .collect();
            assert!(!finals.is_empty());
            let greenroom = s.greenroom.clone();
            let of = parent.as_str().into();
            let owed = s
                .answered(async move { greenroom.notifications(&of).await })
                .await;
            let open = owed
                .iter()
                .filter(|notice| matches!(notice.fate.as_str(), "owed" | "sending"));
            assert_eq!(open.count(), 0, "{parent}: {owed:?}");
        }
        let mut named = std::collections::BTreeMap::<String, usize>::new();
        for call in s.server.calls(On::Notify) {
            let crate::server::What::Notify(notice) = call.what else {
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
        s.pass(3_600_000).await;
        assert_eq!(s.server.log().len(), calls, "nothing ticks");
    });
}

/// A call of this kind panics once, while one task runs from its launch to its parent's wake. Tells how both ended.
fn broken_once(on: On) -> (String, Vec<String>, usize) {
    let (told, hears) = std::sync::mpsc::channel();
    let panics = broken_story(
        |_| {},
        move |s| async move {
            s.server.next(on, Fate::Panics);
            let a = s.launch(job("a")).await;
            s.at(7000).await;
            if s.server.session_of(&a).is_some() {
                s.finish(&a).await;
            }
            s.at(60_000).await;
            let outcome = (s.state(&a).await, s.told("P"), s.in_use().await);
            told.send(outcome).expect("the test waits");
        },
    );
    assert_eq!(panics.len(), 1, "it did break: {panics:?}");
    hears.recv().expect("the story tells")
}

#[test]
fn a_panic_in_any_call_of_a_run_does_not_keep_it_from_its_end() {
    for on in [
        On::Session,
        On::Create,
        On::Prompt,
        On::Messages,
        On::Todos,
        On::Statuses,
    ] {
        let (state, told, in_use) = broken_once(on);
        assert_eq!(state, "completed", "{on:?}");
        assert_eq!(told.len(), 1, "{on:?}: {told:?}");
        assert_eq!(in_use, 0, "{on:?}");
    }
}

#[test]
fn a_panic_in_an_abort_holds_up_nobody() {
    let (state, told, in_use) = broken_once(On::Abort);
    assert_eq!((state.as_str(), told.len(), in_use), ("completed", 1, 0));
    let panics = broken_story(
        |_| {},
        |s| async move {
            let a = s.launch(job("a")).await;
            s.at(6000).await;
            s.server.next(On::Abort, Fate::Panics);
            assert!(s.cancel(&a).await);
            s.resume(&a).await;
            s.at(10_000).await;
            assert_eq!(
                s.state(&a).await,
                "running",
                "a resume does not wait for ever"
            );
        },
    );
    assert_eq!(panics.len(), 1);
}

#[test]
fn a_panic_while_a_parent_is_told_does_not_lose_the_wake() {
    let (state, told, _) = broken_once(On::Notify);
    assert_eq!(state, "completed");
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn a_panic_in_a_toast_or_a_health_call_changes_nothing() {
    let (state, told, in_use) = broken_once(On::Toast);
    assert_eq!((state.as_str(), told.len(), in_use), ("completed", 1, 0));
    broken_story(
        |_| {},
        |s| async move {
            s.server.down();
            s.launch(job("a")).await;
            s.at(600).await;
            s.server.up();
            s.server.next(On::Health, Fate::Panics);
            s.at(30_000).await;
            assert_eq!(s.names(TaskStatus::Running).await, ["a"]);
            assert!(s.greenroom.readiness().await.ready);
        },
    );
}

#[test]
fn a_panic_in_the_rejection_of_an_ask_leaves_the_run() {
    broken_story(
        |_| {},
        |s| async move {
            let a = s.launch(job("a")).await;
            let session = s.server.session_of(&a).expect("it runs");
            s.at(6000).await;
            let asked = json!({"type": "permission.asked", "properties": {"id": "per_1",
                "sessionID": session, "permission": "bash", "patterns": []}});
            s.event(asked).await;
            s.server.next(On::RejectAsk, Fate::Panics);
            s.at(610_000).await;
            assert!(s.times(On::RejectAsk).len() > 1, "it is tried again");
            s.finish(&a).await;
            assert!(s.state(&a).await.starts_with("completed"));
        },
    );
}

#[test]
fn a_panic_in_a_look_up_is_not_the_end_of_looking() {
    broken_story(
        |_| {},
        |s| async move {
            s.server.next(On::Create, Fate::Cut(cut_off()));
            s.server.next(On::Below, Fate::Panics);
            let a = s.launch(job("a")).await;
            s.at(10_000).await;
            assert_eq!(s.state(&a).await, "running");
            assert_eq!(s.calls(On::Create).len(), 1);
        },
    );
}
