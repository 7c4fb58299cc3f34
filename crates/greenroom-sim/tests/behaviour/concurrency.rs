//! Concurrency: which limit a key counts against, whose turn it is, why a task waits, and slots that come back.

use std::collections::BTreeMap;

use greenroom::domain::task::{Launch, TaskStatus};
use greenroom::{Config, LaunchError, LimitsChange};

use crate::server::{Fate, On};
use crate::stage::{Stage, job, job_of, job_on, story, story_with};

const RUNNING: TaskStatus = TaskStatus::Running;

fn by_agent(agent: &str, name: &str) -> Launch {
    Launch {
        agent: agent.to_owned(),
        ..job(name)
    }
}

fn one_at_a_time(config: &mut Config) {
    config.limits.default = 1;
}

/// `acme` may run two, but its model `big` has an entry of its own.
fn acme(config: &mut Config) {
    config.limits.providers = BTreeMap::from([("acme".to_owned(), 2)]);
    config.limits.models = BTreeMap::from([("acme/big".to_owned(), 1)]);
}

async fn set(s: &Stage, change: LimitsChange) {
    let greenroom = s.greenroom.clone();
    s.answered(async move { greenroom.set_limits(change).await })
        .await;
}

#[test]
fn five_of_a_key_run_and_the_sixth_waits() {
    story(|s| async move {
        for name in ["a", "b", "c", "d", "e", "f"] {
            s.launch(job(name)).await;
        }
        s.launch(by_agent("other", "o")).await;
        assert_eq!(s.names(RUNNING).await, ["a", "b", "c", "d", "e", "o"]);
        assert_eq!(s.slots().await, ["other 1/5", "worker 5/5 +1"]);
    });
}

#[test]
fn models_of_a_provider_share_its_limit_but_an_entry_of_their_own() {
    story_with(acme, |s| async move {
        s.launch(job_on("acme/small", "small")).await;
        s.launch(job_on("acme/tiny:high", "tiny")).await;
        s.launch(job_on("acme/small", "waits")).await;
        s.launch(job_on("acme/big", "big")).await;
        s.launch(job_on("acme/big", "waits too")).await;
        assert_eq!(s.names(RUNNING).await, ["small", "tiny", "big"]);
        assert_eq!(
            s.slots().await,
            ["acme/big 1/1 +1", "acme/small 1/2 +1", "acme/tiny 1/2"]
        );
    });
}

#[test]
fn an_agent_called_like_a_provider_does_not_share_its_slots() {
    story_with(acme, |s| async move {
        s.launch(job_on("acme/small", "small")).await;
        s.launch(job_on("acme/tiny", "tiny")).await;
        for name in ["agent 1", "agent 2", "agent 3"] {
            s.launch(by_agent("acme", name)).await;
        }
        assert_eq!(
            s.names(RUNNING).await,
            ["small", "tiny", "agent 1", "agent 2"],
            "the entry is looked up by the agent's name, the slots are its own"
        );
    });
}

#[test]
fn an_agent_called_like_a_model_shares_that_models_key() {
    story_with(acme, |s| async move {
        s.launch(job_on("acme/big", "model")).await;
        s.launch(by_agent("acme/big", "agent")).await;
        assert_eq!(s.names(RUNNING).await, ["model"]);
        assert_eq!(s.slots().await, ["acme/big 1/1 +1"]);
    });
}

#[test]
fn zero_is_unlimited_for_each_kind_of_rule() {
    story_with(
        |config| {
            config.limits.default = 0;
            config.limits.providers = BTreeMap::from([("acme".to_owned(), 0)]);
            config.limits.models = BTreeMap::from([("nova/x".to_owned(), 0)]);
        },
        |s| async move {
            for count in 0..7 {
                s.launch(job(&format!("default {count}"))).await;
                s.launch(job_on("acme/a", &format!("provider {count}")))
                    .await;
                s.launch(job_on("nova/x", &format!("model {count}"))).await;
            }
            assert_eq!(s.names(RUNNING).await.len(), 21);
        },
    );
}

#[test]
fn any_string_is_a_key_and_its_provider_stands_before_the_first_slash() {
    story_with(acme, |s| async move {
        s.launch(by_agent("__proto__", "odd")).await;
        s.launch(by_agent("acme/x/y", "slashes")).await;
        s.launch(by_agent("acme/", "ends")).await;
        s.launch(job_on("acme/z", "waits")).await;
        assert_eq!(s.names(RUNNING).await, ["odd", "slashes", "ends"]);
        assert_eq!(s.slots().await[..2], ["__proto__ 1/5", "acme/ 1/2"]);
    });
}

#[test]
fn max_caps_all_keys_together_and_the_oldest_goes_first() {
    story_with(
        |config| config.limits.max = 2,
        |s| async move {
            let a = s.launch(by_agent("x", "a")).await;
            let b = s.launch(by_agent("y", "b")).await;
            s.launch(by_agent("z", "c")).await;
            s.launch(by_agent("a", "d")).await;
            s.launch(by_agent("x", "e")).await;
            assert_eq!(s.names(RUNNING).await, ["a", "b"]);
            assert!(s.cancel(&a).await);
            assert_eq!(s.names(RUNNING).await, ["b", "c"]);
            assert!(s.cancel(&b).await);
            assert_eq!(s.names(RUNNING).await, ["c", "d"]);
        },
    );
}

#[test]
fn among_models_of_a_provider_the_oldest_waiting_start_goes_first() {
    story_with(acme, |s| async move {
        let a = s.launch(job_on("acme/m", "a")).await;
        let b = s.launch(job_on("acme/m", "b")).await;
        s.launch(job_on("acme/z", "c")).await;
        s.launch(job_on("acme/a", "d")).await;
        s.launch(job_on("acme/m", "e")).await;
        assert!(s.cancel(&b).await);
        assert_eq!(s.names(RUNNING).await, ["a", "c"]);
        assert!(s.cancel(&a).await);
        assert_eq!(s.names(RUNNING).await, ["c", "d"]);
    });
}

#[test]
fn a_key_that_waits_for_its_own_limit_does_not_hold_up_another() {
    story_with(
        |config| {
            config.limits.max = 3;
            config.limits.models = BTreeMap::from([("acme/one".to_owned(), 1)]);
        },
        |s| async move {
            s.launch(job_on("acme/one", "a")).await;
            s.launch(job_on("acme/one", "waits")).await;
            s.launch(job("b")).await;
            s.launch(job("c")).await;
            assert_eq!(s.names(RUNNING).await, ["a", "b", "c"]);
        },
    );
}

#[test]
fn starts_of_a_key_are_first_in_first_out() {
    story_with(one_at_a_time, |s| async move {
        for name in ["a", "b", "c", "d"] {
            s.launch(job(name)).await;
        }
        for (second, name) in [(6, "a"), (12, "b"), (18, "c"), (24, "d")] {
            s.at(second * 1000).await;
            assert_eq!(s.names(RUNNING).await, [name]);
            let running = s.tasks().await;
            let task = running.iter().find(|task| task.description == name);
            s.finish(&task.expect("it runs").id).await;
        }
        assert_eq!(s.calls(On::Create), ["0 a", "6000 b", "12000 c", "18000 d"]);
    });
}

#[test]
fn a_hung_create_delays_only_itself() {
    story_with(
        |config| config.limits.default = 2,
        |s| async move {
            s.server.next(On::Create, Fate::Hangs);
            let hung = s.launch(job("hung")).await;
            let b = s.launch(job("b")).await;
            s.launch(job("c")).await;
            assert_eq!(s.names(RUNNING).await, ["b"]);
            s.at(6000).await;
            s.finish(&b).await;
            assert_eq!(s.names(RUNNING).await, ["c"]);
            assert_eq!(s.state(&hung).await, "pending");
            assert_eq!(s.in_use().await, 2, "a start in flight holds its slot");
        },
    );
}

#[test]
fn a_resume_waits_in_the_same_line_as_launches() {
    story_with(one_at_a_time, |s| async move {
        let a = s.launch(job("a")).await;
        let b = s.launch(job("b")).await;
        s.at(6000).await;
        s.finish(&a).await;
        s.launch(job("c")).await;
        s.resume(&a).await;
        s.launch(job("d")).await;
        assert_eq!(s.slots().await, ["worker 1/1 +3"]);
        let why = s.find(a.as_str()).await.and_then(|found| found.waits_for);
        assert_eq!(why.map(|why| why.position), Some(2));
        let mut order = Vec::new();
        for second in [12, 18, 24, 30] {
            s.at(second * 1000).await;
            let running = s.tasks().await;
            let running = running.iter().find(|task| task.status() == RUNNING);
            let running = running.expect("one runs");
            order.push(running.description.clone());
            s.finish(&running.id).await;
        }
        assert_eq!(order, ["b", "c", "a", "d"]);
        assert_eq!(s.state(&b).await, "completed");
    });
}

#[test]
fn a_waiting_task_knows_why_it_waits() {
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
fn a_wait_for_the_cap_of_all_keys_is_told_as_such() {
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
fn raising_a_limit_starts_what_waits_at_once() {
    story_with(one_at_a_time, |s| async move {
        for name in ["a", "b", "c", "d"] {
            s.launch(job(name)).await;
        }
        set(
            &s,
            LimitsChange {
                default: Some(Some(3)),
                ..LimitsChange::default()
            },
        )
        .await;
        assert_eq!(s.names(RUNNING).await, ["a", "b", "c"]);
        set(
            &s,
            LimitsChange {
                default: Some(Some(0)),
                ..LimitsChange::default()
            },
        )
        .await;
        assert_eq!(s.names(RUNNING).await, ["a", "b", "c", "d"]);
    });
}

#[test]
fn lowering_a_limit_stops_nothing_that_runs() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let b = s.launch(job("b")).await;
        s.launch(job("c")).await;
        set(
            &s,
            LimitsChange {
                models: BTreeMap::from([("worker".to_owned(), Some(1))]),
                ..LimitsChange::default()
            },
        )
        .await;
        assert_eq!(s.names(RUNNING).await, ["a", "b", "c"]);
        s.launch(job("d")).await;
        assert!(s.cancel(&a).await && s.cancel(&b).await);
        assert_eq!(
            s.names(RUNNING).await,
            ["c"],
            "the limit holds for new starts"
        );
        set(
            &s,
            LimitsChange {
                models: BTreeMap::from([("worker".to_owned(), None)]),
                ..LimitsChange::default()
            },
        )
        .await;
        assert_eq!(s.names(RUNNING).await, ["c", "d"], "the entry is removed");
    });
}

#[test]
fn a_full_queue_refuses_one_more() {
    story_with(
        |config| {
            config.limits.default = 1;
            config.limits.max_waiting = 2;
        },
        |s| async move {
            let a = s.launch(job("a")).await;
            s.launch(job("b")).await;
            s.at(6000).await;
            s.finish(&a).await;
            s.launch(job("c")).await;
            s.launch(job("d")).await;
            let refused = s.try_launch(job("e")).await;
            assert_eq!(refused, Err(LaunchError::QueueFull { waiting: 2 }));
            let refused = s.try_resume(s.resumption(&a, "go on")).await;
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
fn a_parent_that_waits_for_its_tasks_holds_no_slot_meanwhile() {
    story_with(one_at_a_time, |s| async move {
        let parent = s.launch(job("parent")).await;
        let session = s.server.session_of(&parent).expect("it runs");
        s.at(1000).await;
        let child = s.launch(job_of(session.as_str(), "child")).await;
        assert_eq!(s.state(&child).await, "pending");
        s.at(6000).await;
        s.finish(&parent).await;
        assert_eq!(s.state(&parent).await, "running", "it waits for its child");
        assert_eq!(s.state(&child).await, "running");
        assert_eq!(s.slots().await, ["worker 1/1"]);
        assert_eq!(s.task(&parent).await.concurrency_key, None);
        // With its next sign of life it counts again, above the limit.
        s.at(8000).await;
        s.work(&parent).await;
        assert_eq!(s.slots().await, ["worker 2/1"]);
        let key = s.task(&parent).await.concurrency_key;
        assert_eq!(key.as_ref().map(|key| key.as_str()), Some("worker"));
        let waits = s.launch(job("waits")).await;
        s.at(9000).await;
        s.finish(&child).await;
        assert_eq!(s.state(&waits).await, "pending", "the parent counts");
        // It is woken, answers, and is done.
        s.at(15_000).await;
        s.finish(&parent).await;
        assert_eq!(s.state(&parent).await, "completed");
        assert_eq!(s.state(&waits).await, "running");
    });
}

#[test]
fn a_parent_that_is_idle_before_its_child_is_there_lets_go_too() {
    story_with(one_at_a_time, |s| async move {
        let parent = s.launch(job("parent")).await;
        let session = s.server.session_of(&parent).expect("it runs");
        s.at(6000).await;
        // Its check is still being answered when its child is launched.
        s.server
            .next_for(On::Messages, session.as_str(), Fate::Late(500));
        s.finish(&parent).await;
        let child = s.launch(job_of(session.as_str(), "child")).await;
        s.at(6500).await;
        assert_eq!(s.state(&parent).await, "running");
        assert_eq!(s.state(&child).await, "running");
        assert_eq!(s.slots().await, ["worker 1/1"]);
    });
}

#[test]
fn a_queued_head_that_is_cancelled_leaves_the_next_its_place() {
    story_with(one_at_a_time, |s| async move {
        let a = s.launch(job("a")).await;
        let b = s.launch(job("b")).await;
        s.launch(job("c")).await;
        assert!(s.cancel(&b).await);
        assert!(s.cancel(&a).await);
        assert_eq!(s.names(RUNNING).await, ["c"]);
    });
}
