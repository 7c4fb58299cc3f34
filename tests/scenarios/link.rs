//! The connection to the agent server is cut while a task ends.

use std::sync::Arc;

use crate::harness::{Parent, Proxy, Scene, Stage, id_of, is_finished_answer, session_of, until};

crate::stories![poll_finds_an_end_without_events, reconnect_finds_an_end,];

async fn behind_a_proxy(settings: &[&str]) -> (Proxy, Scene<Arc<Stage>>, Parent) {
    let stage = Stage::shared().await;
    let proxy = Proxy::start(stage.opencode.port()).await;
    let scene = Scene::on(stage, &proxy.url(), settings).await;
    let parent = scene.parent("build").await;
    (proxy, scene, parent)
}

/// Waits until the child has answered and is idle, as the agent server reports it.
async fn child_is_done(scene: &Scene, child: &str) {
    until("the child has ended", async || {
        let answered = scene
            .opencode()
            .messages(child)
            .await
            .iter()
            .any(is_finished_answer);
        (answered && scene.is_idle(child).await).then_some(())
    })
    .await;
}

async fn poll_finds_an_end_without_events() {
    let (proxy, scene, parent) = behind_a_proxy(&[]).await;
    let task = scene
        .launch_until_working(&parent, "[[wait 3s]][[say missed]]")
        .await;
    proxy.cut_events();
    child_is_done(&scene, &session_of(&task)).await;
    let id = id_of(&task);
    scene.service.reaches(&id, "completed").await;
    proxy.restore();
    scene.notified_once(&parent, &[&id]).await;
}

async fn reconnect_finds_an_end() {
    // The poll is practically off: the check after the reconnect finds the end.
    let (proxy, scene, parent) = behind_a_proxy(&["lifecycle.poll_interval=1h"]).await;
    let task = scene
        .launch_until_working(&parent, "[[wait 6s]][[say missed]]")
        .await;
    proxy.cut();
    let id = id_of(&task);
    child_is_done(&scene, &session_of(&task)).await;
    assert_eq!(
        scene.service.task(&id).await["status"],
        "running",
        "the end is not known yet"
    );
    proxy.restore();
    scene.service.reaches(&id, "completed").await;
    assert_eq!(scene.service.result(&id).await["result"], "missed");
    scene.notified_once(&parent, &[&id]).await;
}
