//! Concurrency: the limit of a key, the order of starts, and the return of slots.

mod waiting;

use std::collections::BTreeMap;

use greenroom::domain::task::{Launch, TaskStatus};
use greenroom::{Config, LimitsChange};

use crate::harness::{Harness, job, job_on, story, story_with};

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

/// `acme` may run two tasks, but its model `big` has its own entry.
fn acme(config: &mut Config) {
    config.limits.providers = BTreeMap::from([("acme".to_owned(), 2)]);
    config.limits.models = BTreeMap::from([("acme/big".to_owned(), 1)]);
}

async fn set(s: &Harness, change: LimitsChange) {
    let greenroom = s.greenroom.clone();
    s.resolve(async move { greenroom.set_limits(change).await })
        .await
        .expect("they are set");
}

#[test]
fn sixth_task_of_key_waits() {
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
fn models_share_provider_limit_unless_configured() {
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
fn agent_named_like_provider_has_own_slots() {
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
fn agent_named_like_model_shares_its_key() {
    story_with(acme, |s| async move {
        s.launch(job_on("acme/big", "model")).await;
        s.launch(by_agent("acme/big", "agent")).await;
        assert_eq!(s.names(RUNNING).await, ["model"]);
        assert_eq!(s.slots().await, ["acme/big 1/1 +1"]);
    });
}

#[test]
fn zero_is_unlimited() {
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
fn provider_of_key_ends_at_first_slash() {
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
fn global_limit_starts_oldest_first() {
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
fn provider_limit_starts_oldest_first() {
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
fn full_key_does_not_block_other_keys() {
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
fn raised_limit_starts_waiting_tasks() {
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
fn lowered_limit_stops_no_task() {
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
