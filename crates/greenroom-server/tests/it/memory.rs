//! What the service keeps when everything is over, counted by the actors themselves: tasks of every kind come through the
//! HTTP API, and after each of many rounds nothing of them lives on.

use crate::support::Host;
use greenroom::Census;
use serde_json::{Value, json};

const ROUNDS: usize = 8;
const PARENTS: usize = 3;

/// Tasks of one round, by what becomes of them.
const LIVES: [&str; 6] = ["answers", "fails", "cancelled", "waits", "resumed", "asks"];

#[actix_rt::test]
async fn what_is_over_leaves_no_actor_and_no_entry() {
    let host = Host::start(&[
        ("limits.default", "2"),
        ("lifecycle.keep_ended", "10ms"),
        ("notifications.debounce", "0"),
    ])
    .await;
    let mut empty = Census::default();
    (empty.registries, empty.slot_managers) = (1, 1);
    (empty.pollers, empty.toasters) = (1, 1);
    // They are kept for good, one a parent: the same parents each time.
    empty.histories = PARENTS;
    for round in 0..ROUNDS {
        for (number, life) in LIVES.into_iter().enumerate() {
            live(&host, life, round * LIVES.len() + number).await;
        }
        host.until_kept(&empty).await;
    }
    host.stop().await;
}

/// One task from its launch to an end of that kind.
async fn live(host: &Host, life: &str, number: usize) {
    if life == "waits" {
        // Both slots of its agent are taken, so that the last one never starts.
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
    let reading = host.get_later(&format!("{of_task}/output?block=true&timeoutMs=20000"));
    match life {
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
        "{life}"
    );
    if life == "resumed" {
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
