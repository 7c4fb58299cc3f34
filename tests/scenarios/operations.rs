//! The operations on a task: cancel, resume, send, track.

use serde_json::json;

use crate::harness::{Scene, id_of, session_of, until};

crate::stories![
    cancel_aborts_the_session,
    cancelled_waiting_task_never_starts,
    silent_cancel_sends_no_message,
    tasks_of_a_parent_are_cancelled_together,
    ended_task_is_resumed_in_its_session,
    prompt_steers_a_running_task,
    foreign_session_is_tracked,
];

async fn cancel_aborts_the_session() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("build").await;
    let id = id_of(&scene.launch_until_working(&parent, "[[wait 60s]]").await);
    let path = format!("/v1/tasks/{id}/cancel");
    let (status, task) = scene
        .service
        .post(&path, json!({"reason": "no longer needed"}))
        .await;
    assert_eq!(
        (status, &task["status"]),
        (200, &"cancelled".into()),
        "{task}"
    );
    let text = scene.notified_once(&parent, &[&id]).await;
    assert!(text.contains("no longer needed"), "{text}");
    until("the session is aborted", async || {
        (scene.stage.level(&scene.model).now == 0).then_some(())
    })
    .await;
    let (status, refused) = scene.service.post(&path, json!({})).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (409, &"not_cancellable".into()),
        "{refused}"
    );
    assert!(
        refused["error"].to_string().contains("cancelled"),
        "the error names the state: {refused}"
    );
}

async fn cancelled_waiting_task_never_starts() {
    let scene = Scene::set(&["limits.default=1"]).await;
    let parent = scene.parent("build").await;
    let first = id_of(
        &scene
            .launch_until_working(&parent, "[[wait 4s]][[say first]]")
            .await,
    );
    let second = scene.launch(Some(&parent), "[[say second]]").await;
    let third = scene.launch(Some(&parent), "[[say third]]").await;
    let (status, task) = scene
        .service
        .post(&format!("/v1/tasks/{second}/cancel"), json!({}))
        .await;
    assert_eq!(
        (status, &task["status"]),
        (200, &"cancelled".into()),
        "{task}"
    );
    scene.service.reaches(&first, "completed").await;
    scene.service.reaches(&third, "completed").await;
    scene
        .notified_once(&parent, &[&first, &second, &third])
        .await;
    let task = scene.service.task(&second).await;
    assert_eq!(
        (&task["status"], task.get("sessionID")),
        (&"cancelled".into(), None),
        "no session was made for it"
    );
}

async fn silent_cancel_sends_no_message() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("build").await;
    let quiet = id_of(&scene.launch_until_working(&parent, "[[wait 60s]]").await);
    let path = format!("/v1/tasks/{quiet}/cancel");
    let (status, task) = scene
        .service
        .post(&path, json!({"skipNotification": true}))
        .await;
    assert_eq!(status, 200, "{task}");
    scene.service.slots_are_free().await;
    // The next final does not name it, so its message was not merely delayed.
    let next = scene.launch(Some(&parent), "[[say next]]").await;
    scene.service.reaches(&next, "completed").await;
    let text = scene.notified_once(&parent, &[&next]).await;
    assert!(!text.contains(&quiet), "{text}");
}

async fn tasks_of_a_parent_are_cancelled_together() {
    let scene = Scene::set(&["limits.default=2"]).await;
    let parent = scene.parent("build").await;
    let bystander = scene.launch(None, "[[wait 4s]][[say mine]]").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(scene.launch(Some(&parent), "[[wait 60s]]").await);
    }
    scene.works(2).await;
    let (status, answer) = scene
        .service
        .post(
            "/v1/tasks/cancel",
            json!({"parentSessionID": parent.session}),
        )
        .await;
    assert_eq!(
        (status, answer["cancelled"].as_array().map(Vec::len)),
        (200, Some(3)),
        "{answer}"
    );
    scene.service.reaches(&bystander, "completed").await;
    let named: Vec<&str> = ids.iter().map(String::as_str).collect();
    scene.notified_once(&parent, &named).await;
}

async fn ended_task_is_resumed_in_its_session() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("plan").await;
    let id = scene.launch(Some(&parent), "[[say first]]").await;
    let task = scene.service.reaches(&id, "completed").await;
    scene.notified_once(&parent, &[&id]).await;
    let session = session_of(&task);
    let path = format!("/v1/sessions/{session}/resume");
    let (status, resumed) = scene
        .service
        .post(&path, json!({"prompt": "[[wait 2s]][[say second]]"}))
        .await;
    assert_eq!((status, &resumed["run"]), (202, &json!(2)), "{resumed}");
    let (status, refused) = scene.service.post(&path, json!({"prompt": "again"})).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (409, &"already_running".into()),
        "{refused}"
    );
    let task = scene.service.reaches(&id, "completed").await;
    assert_eq!((session_of(&task), &task["run"]), (session, &json!(2)));
    assert_eq!(scene.service.result(&id).await["result"], "second");
    until("a second final is there", async || {
        (scene.notices(&parent, "final").await.len() == 2).then_some(())
    })
    .await;
    scene.service.slots_are_free().await;
    let (status, refused) = scene
        .service
        .post(
            "/v1/sessions/ses_unknown/resume",
            json!({"prompt": "hello"}),
        )
        .await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (404, &"session_not_found".into()),
        "{refused}"
    );
}

async fn prompt_steers_a_running_task() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("build").await;
    let id = id_of(
        &scene
            .launch_until_working(&parent, "[[wait 3s]][[say first prompt]]")
            .await,
    );
    let path = format!("/v1/tasks/{id}/send");
    let (status, task) = scene
        .service
        .post(&path, json!({"prompt": "[[wait 1s]][[say second prompt]]"}))
        .await;
    assert_eq!((status, &task["run"]), (202, &json!(1)), "{task}");
    scene.service.reaches(&id, "completed").await;
    assert_eq!(scene.service.result(&id).await["result"], "second prompt");
    scene.notified_once(&parent, &[&id]).await;
    let (status, refused) = scene
        .service
        .post(&path, json!({"prompt": "too late"}))
        .await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (409, &"not_running".into()),
        "{refused}"
    );
}

async fn foreign_session_is_tracked() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("build").await;
    let session = scene
        .opencode()
        .create_session(scene.project.path(), Some(&parent.session))
        .await;
    scene
        .opencode()
        .prompt(
            &session,
            "general",
            &scene.model,
            "[[wait 3s]][[say from elsewhere]]",
        )
        .await;
    scene.works(1).await;
    let key = format!("rehearsal/{}", scene.model);
    let track = json!({
        "taskID": "bg_0000abcd", "sessionID": session, "parentSessionID": parent.session,
        "description": "a guest", "agent": "general", "concurrencyKey": key,
    });
    let (status, task) = scene.service.post("/v1/tasks/track", track).await;
    assert_eq!(
        (status, &task["status"], &task["concurrencyKey"]),
        (200, &"running".into(), &json!(key)),
        "{task}"
    );
    scene.service.reaches("bg_0000abcd", "completed").await;
    assert_eq!(
        scene.service.result(&session).await["result"],
        "from elsewhere"
    );
    scene.notified_once(&parent, &["bg_0000abcd"]).await;
}
