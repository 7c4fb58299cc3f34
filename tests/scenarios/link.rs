//! The wire to the agent server is cut while a task comes to its end.

use std::sync::Arc;

use crate::harness::{Parent, Proxy, Scene, Stage, id_of, is_finished_answer, session_of, until};

crate::stories![
    an_end_missed_while_events_are_cut_is_found_by_the_poll,
    an_end_missed_while_all_is_cut_is_found_after_it,
];

async fn behind_a_proxy(settings: &[&str]) -> (Proxy, Scene<Arc<Stage>>, Parent) {
    let stage = Stage::shared().await;
    let proxy = Proxy::start(stage.opencode.port()).await;
    let scene = Scene::on(stage, &proxy.url(), settings).await;
    let parent = scene.parent("build").await;
    (proxy, scene, parent)
}

/// Waits, past the service, until the child has answered and is idle.
async fn child_is_done(scene: &Scene, child: &str) {
    until("the child has come to its end", async || {
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

async fn an_end_missed_while_events_are_cut_is_found_by_the_poll() {
    let (proxy, scene, parent) = behind_a_proxy(&[]).await;
    let task = scene
        .launch_and_see_it_work(&parent, "[[wait 3s]][[say unheard]]")
        .await;
    proxy.cut_events();
    child_is_done(&scene, &session_of(&task)).await;
    let id = id_of(&task);
    scene.service.reaches(&id, "completed").await;
    proxy.mend();
    scene.told_once(&parent, &[&id]).await;
}

async fn an_end_missed_while_all_is_cut_is_found_after_it() {
    // The poll is as good as off: what finds the end is the look at everything after the reconnect.
    let (proxy, scene, parent) = behind_a_proxy(&["lifecycle.poll_interval=1h"]).await;
    let task = scene
        .launch_and_see_it_work(&parent, "[[wait 6s]][[say unheard]]")
        .await;
    proxy.cut();
    let id = id_of(&task);
    child_is_done(&scene, &session_of(&task)).await;
    assert_eq!(
        scene.service.task(&id).await["status"],
        "running",
        "nobody could know"
    );
    proxy.mend();
    scene.service.reaches(&id, "completed").await;
    assert_eq!(scene.service.result(&id).await["result"], "unheard");
    scene.told_once(&parent, &[&id]).await;
}
