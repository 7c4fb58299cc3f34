//! opencode disposes an instance, by request or since its configuration was changed: it aborts the sessions of a directory
//! itself. That differs from the Esc of a user and from a failure: the tasks are continued, and the parent is woken.

use serde_json::json;

use crate::harness::{Parent, Scene, Stage, free_port, notice_of};

crate::stories![
    tasks_continue_after_a_dispose_seen_by_the_event_stream,
    tasks_continue_after_a_dispose_seen_by_the_bridge,
    tasks_continue_after_a_change_of_the_configuration,
    abort_by_the_user_silences_the_parent,
    early_abort_by_the_user_silences_the_parent,
];

async fn tasks_continue_after_a_dispose_seen_by_the_event_stream() {
    let scene = scene_without_plugin().await;
    let (parent, tasks) = busy_family(&scene).await;
    scene.opencode().dispose(scene.project.path()).await;
    scene.continued_once_and_completed(&parent, &tasks).await;
}

async fn tasks_continue_after_a_dispose_seen_by_the_bridge() {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let scene = Scene::plugged_alone(&["lifecycle.poll_interval=3s"], port, &url).await;
    let (parent, tasks) = busy_family(&scene).await;
    scene.opencode().dispose(scene.project.path()).await;
    // A directory has an instance, and its plugin a bridge, from the next request on.
    scene.opencode().sessions(scene.project.path()).await;
    scene.continued_once_and_completed(&parent, &tasks).await;
}

async fn tasks_continue_after_a_change_of_the_configuration() {
    let scene = scene_without_plugin().await;
    let (parent, tasks) = busy_family(&scene).await;
    let change = json!({"username": "another name"});
    scene
        .opencode()
        .patch_config(scene.project.path(), change)
        .await;
    scene.continued_once_and_completed(&parent, &tasks).await;
}

/// The control: a user causes the same error in an instance that keeps running.
async fn abort_by_the_user_silences_the_parent() {
    silent_after_an_abort(false).await;
}

/// Aborts as soon as the session is busy. opencode emits no `session.error` for an abort before the request to the model:
/// the error is in the message alone.
async fn early_abort_by_the_user_silences_the_parent() {
    silent_after_an_abort(true).await;
}

async fn silent_after_an_abort(early: bool) {
    let scene = scene_without_plugin().await;
    let parent = scene.parent("build").await;
    let id = scene
        .launch(Some(&parent), "[[wait 30s]][[say the result]]")
        .await;
    scene.service.reaches(&id, "running").await;
    if early {
        let opencode = scene.opencode();
        opencode
            .prompt(&parent.session, parent.agent, "large", "[[hang]]")
            .await;
        // Without a pause: the time before the request to the model is short.
        while scene.is_idle(&parent.session).await {}
    } else {
        scene.keep_parent_busy(&parent).await;
    }
    scene.opencode().abort(&parent.session).await;
    let task = scene.service.ended(&id).await;
    let sessions = [parent.session.as_str()];
    if task["status"] != "completed" {
        panic!("the task completes\n{}", scene.state(&sessions).await);
    }
    scene.notified(&parent, &[&id]).await;
    let messages = scene.opencode().messages(&parent.session).await;
    let is_last = messages.last().is_some_and(|it| notice_of(it).is_some());
    if !is_last || !scene.is_idle(&parent.session).await {
        panic!("the final is silent\n{}", scene.state(&sessions).await);
    }
}

async fn scene_without_plugin() -> Scene<Stage> {
    let stage = Stage::own().await;
    let url = stage.opencode.url();
    Scene::on(stage, &url, &[]).await
}

/// A parent whose turn goes on, and three tasks of it that work.
async fn busy_family(scene: &Scene<Stage>) -> (Parent, Vec<(String, String)>) {
    let parent = scene.parent("build").await;
    let tasks = scene.three_working_tasks(&parent).await;
    scene.keep_parent_busy(&parent).await;
    (parent, tasks)
}
