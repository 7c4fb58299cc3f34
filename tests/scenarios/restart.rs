//! The agent server is killed and restarted.

use std::time::Duration;

use crate::harness::{Scene, Stage, until};

crate::stories![
    tasks_continue_after_a_killed_server,
    tasks_wait_for_the_next_server,
    launch_waits_for_an_absent_server
];

async fn tasks_continue_after_a_killed_server() {
    let stage = Stage::own().await;
    let url = stage.opencode.url();
    let mut scene = Scene::on(stage, &url, &["limits.default=3"]).await;
    let parent = scene.parent("plan").await;
    let mut ids = Vec::new();
    for nth in 0..13 {
        ids.push(
            scene
                .launch(Some(&parent), &format!("[[wait 4s]][[say number {nth}]]"))
                .await,
        );
    }
    scene.works(3).await;
    for id in &ids[..3] {
        scene.service.reaches(id, "running").await;
    }
    scene
        .stage
        .opencode
        .kill_and_restart(Duration::from_secs(2))
        .await;
    for id in &ids {
        let task = scene.service.reaches(id, "completed").await;
        assert_eq!(task["run"], 1, "continued, not started again: {task}");
    }
    let named: Vec<&str> = ids.iter().map(String::as_str).collect();
    scene.notified_once(&parent, &named).await;
    for (nth, id) in ids.iter().enumerate().skip(3) {
        assert_eq!(
            scene.service.result(id).await["result"],
            format!("number {nth}")
        );
    }
    assert_eq!(scene.stage.level(&scene.model).max, 3);
    let sessions = scene.stage.rehearsal.stats().sessions.len();
    assert_eq!(sessions, 14, "the parent's session and one for each task");
}

async fn tasks_wait_for_the_next_server() {
    let stage = Stage::own().await;
    let url = stage.opencode.url();
    let mut scene = Scene::on(stage, &url, &[]).await;
    let parent = scene.parent("plan").await;
    let id = scene
        .launch(Some(&parent), "[[wait 40s]][[say it is done]]")
        .await;
    scene.works(1).await;
    scene.service.reaches(&id, "running").await;
    scene.stage.opencode.kill();
    scene.service.reaches(&id, "pending").await;
    let (_, detail) = scene.service.get(&format!("/v1/tasks/{id}")).await;
    let waits_for = detail["waitsFor"]["text"].as_str().unwrap_or_default();
    assert!(waits_for.starts_with("an opencode in /"), "{detail}");
    let (_, limits) = scene.service.get("/v1/limits").await;
    assert_eq!(limits["inUse"], 0, "{limits}");
    scene.stage.opencode.kill_and_restart(Duration::ZERO).await;
    scene.service.reaches(&id, "completed").await;
    scene.notified_once(&parent, &[&id]).await;
}

async fn launch_waits_for_an_absent_server() {
    let stage = Stage::own().await;
    let url = stage.opencode.url();
    let mut scene = Scene::on(stage, &url, &[]).await;
    let parent = scene.parent("build").await;
    scene.stage.opencode.kill();
    let id = scene.launch(Some(&parent), "[[say there you are]]").await;
    let (status, limits) = scene.service.get("/v1/limits").await;
    assert_eq!(status, 200, "{limits}");
    assert_eq!(scene.service.task(&id).await["status"], "pending");
    until("the service is not ready", async || {
        let (status, _) = scene.service.get("/readyz").await;
        (status == 503).then_some(())
    })
    .await;
    scene.stage.opencode.kill_and_restart(Duration::ZERO).await;
    scene.service.reaches(&id, "completed").await;
    scene.notified_once(&parent, &[&id]).await;
}
