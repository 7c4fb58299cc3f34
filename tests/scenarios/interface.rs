//! The HTTP API at its edges: refused requests and their errors.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Scene, id_of};

crate::stories![
    invalid_requests_are_refused_by_name,
    repeated_launch_with_its_key_is_the_same_task,
    foreign_page_is_refused,
    lists_are_newest_first_and_paged,
    events_are_accepted_over_http,
];

async fn invalid_requests_are_refused_by_name() {
    let scene = Scene::set(&[]).await;
    let mut misspelt = scene.task(None, "hello");
    misspelt["promt"] = json!("hello");
    let mut blank = scene.task(None, "hello");
    blank["agent"] = json!("  ");
    let mut half_a_model = scene.task(None, "hello");
    half_a_model["model"] = json!({"providerID": "rehearsal"});
    for (launch, word) in [
        (misspelt, "promt"),
        (blank, "agent"),
        (half_a_model, "modelID"),
    ] {
        let (status, refused) = scene.service.post("/v1/tasks", launch).await;
        assert!(matches!(status, 400 | 422), "{status} {refused}");
        let error = &refused["error"];
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| message.contains(word)),
            "{refused}"
        );
        assert!(error["code"].is_string(), "{refused}");
    }
    let (status, refused) = scene.service.get("/v1/tasks/bg_ffffffff").await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (404, &"task_not_found".into()),
        "{refused}"
    );
    let huge =
        json!({"description": "d", "agent": "general", "prompt": "x".repeat(2 * 1024 * 1024)});
    let (status, refused) = scene.service.post("/v1/tasks", huge).await;
    assert_eq!(status, 413, "{refused}");
    let (_, listed) = scene.service.get("/v1/tasks").await;
    assert_eq!(listed["tasks"], json!([]), "nothing refused was launched");
}

async fn repeated_launch_with_its_key_is_the_same_task() {
    let scene = Scene::set(&[]).await;
    let launch = scene.task(None, "[[say once]]");
    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = scene
            .service
            .request(Method::POST, "/v1/tasks")
            .header("idempotency-key", "k1")
            .json(&launch);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        answers.push((status, id_of(&answer.json::<Value>().await.unwrap())));
    }
    assert_eq!((answers[0].0, answers[1].0), (201, 200));
    assert_eq!(answers[0].1, answers[1].1);
    scene.service.reaches(&answers[0].1, "completed").await;
    assert_eq!(
        scene.service.get("/v1/tasks").await.1["tasks"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}

async fn foreign_page_is_refused() {
    let scene = Scene::set(&[]).await;
    for (header, value) in [
        ("origin", "https://elsewhere.example"),
        ("host", "elsewhere.example"),
    ] {
        let answer = scene
            .service
            .request(Method::GET, "/v1/tasks")
            .header(header, value)
            .send()
            .await
            .unwrap();
        assert!(
            matches!(answer.status().as_u16(), 400 | 401 | 403),
            "{header}: {}",
            answer.status()
        );
    }
    assert_eq!(scene.service.get("/healthz").await.0, 200);
    assert_eq!(scene.service.get("/readyz").await.0, 200);
}

async fn lists_are_newest_first_and_paged() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("build").await;
    let mut ids = Vec::new();
    for nth in 0..5 {
        ids.insert(
            0,
            scene
                .launch((nth % 2 == 0).then_some(&parent), "[[say ok]]")
                .await,
        );
    }
    let ids_of = |page: &Value| {
        page["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(id_of)
            .collect::<Vec<_>>()
    };
    let (_, first) = scene.service.get("/v1/tasks?limit=3").await;
    assert_eq!(ids_of(&first), ids[..3]);
    let cursor = first["nextCursor"].as_str().expect("there is more");
    let (_, second) = scene
        .service
        .get(&format!("/v1/tasks?limit=3&cursor={cursor}"))
        .await;
    assert_eq!(ids_of(&second), ids[3..]);
    assert!(second.get("nextCursor").is_none_or(Value::is_null));
    let (_, of_parent) = scene
        .service
        .get(&format!("/v1/tasks?parentSessionID={}", parent.session))
        .await;
    assert_eq!(of_parent["tasks"].as_array().map(Vec::len), Some(3));
    let (_, below) = scene
        .service
        .get(&format!(
            "/v1/sessions/{}/tasks?descendants=true",
            parent.session
        ))
        .await;
    assert_eq!(below["tasks"].as_array().map(Vec::len), Some(3));
    for id in &ids {
        scene.service.reaches(id, "completed").await;
    }
    let (_, done) = scene.service.get("/v1/tasks?status=completed").await;
    assert_eq!(ids_of(&done), ids);
}

async fn events_are_accepted_over_http() {
    let scene = Scene::set(&["opencode.events=bridge", "lifecycle.poll_interval=1h"]).await;
    let parent = scene.parent("build").await;
    let task = scene.launch_until_working(&parent, "[[wait 60s]]").await;
    let error = json!({"name": "ProviderAuthError", "data": {"message": "sent over HTTP"}});
    let event = json!({"type": "session.error", "properties": {"sessionID": task["sessionID"], "error": error}});
    let (status, answer) = scene
        .service
        .post("/v1/session-events", json!({"events": [event]}))
        .await;
    assert_eq!(status, 202, "{answer}");
    let ended = scene.service.reaches(&id_of(&task), "error").await;
    assert_eq!(ended["error"], "sent over HTTP");
    scene.notified_once(&parent, &[&id_of(&task)]).await;
}
