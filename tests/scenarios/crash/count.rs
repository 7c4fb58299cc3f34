//! Counts the results of one wave of tasks at the agent server: each task has one session, one prompt, one final.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Accepted, ExpectedEnd};
use crate::harness::{Parent, Scene, id_of, notice_of, until};

/// The numbers counted at the agent server.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Accepted tasks.
    pub tasks: usize,
    /// Sessions of these tasks.
    pub sessions: usize,
    /// Prompts sent to these sessions.
    pub prompts: usize,
    /// Messages that closed a batch.
    pub finals: usize,
    /// Other messages to parents.
    pub notes: usize,
}

impl Counted {
    /// Adds other numbers.
    pub fn add(&mut self, others: &Self) {
        self.tasks += others.tasks;
        self.sessions += others.sessions;
        self.prompts += others.prompts;
        self.finals += others.finals;
        self.notes += others.notes;
    }
}

/// Waits until every task has ended, every parent was notified and has answered, and no slot is held.
pub async fn wait_until_settled(scene: &Scene, accepted: &[Accepted]) {
    for task in accepted {
        scene
            .service
            .reaches(&task.id, task.expected.status())
            .await;
    }
    let parent = |task: &Accepted| task.launch["parentSessionID"].as_str().map(str::to_owned);
    for session in accepted
        .iter()
        .filter_map(parent)
        .collect::<BTreeSet<String>>()
    {
        let condition = format!("{session} has all its messages and has answered");
        until(&condition, async || {
            let path = format!("/v1/sessions/{session}/notifications");
            let (_, answer) = scene.service.get(&path).await;
            let mut notifications = answer["notifications"].as_array()?.iter();
            let finals = finals(scene, &session).await;
            let named = |task: &Accepted| finals.iter().any(|it| names(it).any(|id| id == task.id));
            let mut tasks = accepted
                .iter()
                .filter(|it| parent(it).as_ref() == Some(&session));
            let settled = tasks.all(named)
                && notifications.all(|notice| notice["fate"] == "delivered")
                && scene.is_idle(&session).await;
            settled.then_some(())
        })
        .await;
    }
    scene.service.slots_are_free().await;
}

/// Returns the tasks that a notice names.
fn names(notice: &Value) -> impl Iterator<Item = &str> {
    let tasks = notice["tasks"].as_array().into_iter().flatten();
    tasks.filter_map(Value::as_str)
}

/// Returns the metadata of Greenroom's messages to that session.
async fn notices(scene: &Scene, session: &str) -> Vec<Value> {
    let messages = scene.opencode().messages(session).await;
    messages.iter().filter_map(notice_of).cloned().collect()
}

async fn finals(scene: &Scene, session: &str) -> Vec<Value> {
    let mut notices = notices(scene, session).await;
    notices.retain(|notice| notice["kind"] == "final");
    notices
}

/// Counts the results of these tasks at the agent server, and fails if anything is missing or duplicated.
pub async fn count(scene: &Scene, parents: &[Parent], accepted: &[Accepted]) -> Counted {
    let mut counted = Counted {
        tasks: accepted.len(),
        ..Counted::default()
    };
    let ids: BTreeSet<&str> = accepted.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(ids.len(), accepted.len(), "each launch is a separate task");

    let mut made: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for session in scene.opencode().sessions(scene.project.path()).await {
        let metadata = &session["metadata"]["greenroom"];
        if let Some(task) = metadata["task"].as_str().filter(|task| ids.contains(task)) {
            assert_eq!(
                (&metadata["run"], &metadata["attempt"]),
                (&json!(1), &json!(1)),
                "{session}"
            );
            made.entry(task.to_owned())
                .or_default()
                .push(id_of(&session));
        }
    }
    for task in accepted {
        let sessions = made.get(&task.id).map_or(&[][..], Vec::as_slice);
        let (sessions, prompts) = one_of_each(scene, task, sessions, accepted).await;
        counted.sessions += sessions;
        counted.prompts += prompts;
    }

    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    let mut sessions: BTreeSet<String> = parents.iter().map(|it| it.session.clone()).collect();
    sessions.extend(made.into_values().flatten());
    for session in sessions {
        let notices = notices(scene, &session).await;
        let distinct: BTreeSet<String> = notices.iter().map(id_of).collect();
        assert_eq!(
            distinct.len(),
            notices.len(),
            "a message to {session} is duplicated"
        );
        for notice in notices {
            if notice["kind"] != "final" {
                counted.notes += 1;
                continue;
            }
            counted.finals += 1;
            for task in names(&notice) {
                let of = accepted
                    .iter()
                    .find(|it| it.id == task)
                    .expect("a task of this wave");
                assert_eq!(
                    of.launch["parentSessionID"],
                    session.as_str(),
                    "the final of its own parent"
                );
                *named.entry(task.to_owned()).or_default() += 1;
            }
        }
    }
    for task in accepted {
        let times = named.get(&task.id).copied().unwrap_or_default();
        assert_eq!(times, 1, "finals that name {}", task.id);
    }
    counted
}

/// Compares a task with the sessions that were created for it. Returns the number of sessions and of prompts.
async fn one_of_each(
    scene: &Scene,
    task: &Accepted,
    made: &[String],
    accepted: &[Accepted],
) -> (usize, usize) {
    let record = scene.service.task(&task.id).await;
    let wanted = (&json!(task.expected.status()), &json!(1));
    assert_eq!((&record["status"], &record["run"]), wanted, "{record}");
    assert!(made.len() <= 1, "sessions {made:?}: {record}");
    if let Some(session) = record["sessionID"].as_str() {
        assert_eq!(made, [session], "{record}");
    }
    let mut prompts = 0;
    for session in made {
        let messages = scene.opencode().messages(session).await;
        let of_it = |message: &&Value| is_prompt_of(message, &task.id);
        prompts += messages.iter().filter(of_it).count();
        assert!(
            scene.is_idle(session).await,
            "its session is idle: {record}"
        );
    }
    let expected = match task.expected {
        // It may have been cancelled before its prompt.
        ExpectedEnd::CancelledAfter(_) => 0..=1,
        ExpectedEnd::Completed(_) | ExpectedEnd::Failed => 1..=1,
    };
    assert!(expected.contains(&prompts), "{prompts} prompts: {record}");
    let is_parent = |it: &Accepted| it.launch["parentSessionID"] == record["sessionID"];
    let turns = made.first().map_or(0, |session| {
        let sessions = scene.stage.rehearsal.stats().sessions;
        sessions.get(session).map_or(0, |counted| counted.requests)
    });
    if !accepted.iter().any(is_parent) {
        assert!(turns <= 1, "{turns} turns: {record}");
        if let ExpectedEnd::Completed(text) = &task.expected {
            let answer = scene.service.result(&task.id).await;
            assert_eq!(answer["result"], text.as_str(), "{answer}");
        }
    }
    (made.len(), prompts)
}

/// Returns whether a message is the prompt of that task.
fn is_prompt_of(message: &Value, task: &str) -> bool {
    let parts = message["parts"].as_array().into_iter().flatten();
    let mut metadata = parts.map(|part| &part["metadata"]["greenroom"]);
    metadata.any(|metadata| metadata["task"] == task)
}
