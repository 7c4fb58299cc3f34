//! Memory of the service: tasks of every kind run over the HTTP API, and the actors' own counts return to their initial
//! values after each round.

use crate::support::Host;
use greenroom::ResourceCounts;
use serde_json::{Value, json};

const ROUNDS: usize = 8;
const PARENTS: usize = 3;

/// The tasks of one round, by scenario.
const SCENARIOS: [&str; 6] = ["answers", "fails", "cancelled", "waits", "resumed", "asks"];

#[actix_rt::test]
async fn ended_tasks_leave_no_actors_or_entries() {
    let host = Host::start(&[
        ("limits.default", "2"),
        ("lifecycle.keep_ended", "10ms"),
        ("notifications.debounce", "0"),
    ])
    .await;
    let mut empty = ResourceCounts::default();
    (empty.registries, empty.slot_managers) = (1, 1);
    (empty.pollers, empty.toasters) = (1, 1);
    // Histories are kept per parent; the parents are the same in each round.
    empty.histories = PARENTS;
    for round in 0..ROUNDS {
        for (number, scenario) in SCENARIOS.into_iter().enumerate() {
            run_scenario(&host, scenario, round * SCENARIOS.len() + number).await;
        }
        host.wait_for_counts(&empty).await;
    }
    host.stop().await;
}

/// Runs one task from its launch to the end of its scenario.
async fn run_scenario(host: &Host, scenario: &str, number: usize) {
    if scenario == "waits" {
        // Both slots of the agent are taken, so the last task never starts.
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(launch(host, number).await);
        }
        for id in ids.iter().rev() {
            cancel(host, id).await;
        }
        return;
    }
    let id = launch(host, number).await;
    let of_task = format!("/v1/tasks/{id}");
    let session = host.running(&id).await;
    let reading = host.spawn_get(&format!("{of_task}/output?block=true&timeoutMs=20000"));
    match scenario {
        "fails" => {
            let error = json!({"name": "APIError", "data": {"message": "no"}});
            let properties = json!({"sessionID": session, "error": error});
            host.event(json!({"type": "session.error", "properties": properties}))
                .await;
        }
        "cancelled" => cancel(host, &id).await,
        "asks" => {
            let properties = json!({"id": format!("per_{number}"), "sessionID": session,
                "permission": "bash", "patterns": ["rm *"]});
            host.event(json!({"type": "permission.asked", "properties": properties}))
                .await;
            cancel(host, &id).await;
        }
        _ => host.finish(&session).await,
    }
    let (status, output) = reading.await.unwrap();
    assert_eq!(
        (status, output["timedOut"].as_bool()),
        (200, None),
        "{scenario}"
    );
    if scenario == "resumed" {
        let again = json!({"prompt": "again", "parentSessionID": parent(number + 1)});
        let resume = format!("/v1/sessions/{session}/resume");
        let (status, task) = host.post(&resume, again).await;
        assert_eq!((status, &task["run"]), (202, &json!(2)));
        host.running(&id).await;
        host.finish(&session).await;
        host.ended(&id).await;
    }
}

async fn launch(host: &Host, number: usize) -> String {
    let body = json!({"description": "a task", "prompt": "do it", "agent": "general",
        "parentSessionID": parent(number)});
    let (status, task): (u16, Value) = host.post("/v1/tasks", body).await;
    assert_eq!(status, 201, "{task}");
    task["id"].as_str().unwrap().to_owned()
}

async fn cancel(host: &Host, id: &str) {
    let (status, task) = host
        .post(&format!("/v1/tasks/{id}/cancel"), json!({}))
        .await;
    assert_eq!(status, 200, "{task}");
}

fn parent(number: usize) -> String {
    format!("ses_parent{}", number % PARENTS)
}
