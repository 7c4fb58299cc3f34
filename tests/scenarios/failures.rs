//! What goes wrong in the session itself. Every time: the right state, a reason a person understands, the parent told
//! once, no slot left in use.

use serde_json::{Value, json};

use crate::harness::{Scene, id_of};

crate::stories![
    an_unknown_agent_is_named,
    an_unknown_model_is_named,
    a_refused_key_is_an_error_at_once,
    two_failures_then_an_answer_is_a_completed_task,
    a_server_that_fails_for_ever_is_given_up,
    a_connection_cut_once_is_no_failure,
    a_model_that_hangs_is_given_up,
    a_script_nobody_can_read_is_an_error_with_its_text,
    one_failure_among_three_is_listed_apart,
];

/// Launches that task and sees it end as an error that says all of this; the parent reads the same.
async fn ends_in_error(
    scene: &Scene,
    change: impl FnOnce(&mut Value),
    prompt: &str,
    says: &[&str],
) {
    let parent = scene.parent("build").await;
    let mut launch = scene.task(Some(&parent), prompt);
    change(&mut launch);
    let id = id_of(&scene.service.launch(launch).await);
    let task = scene.service.reaches(&id, "error").await;
    let reason = task["error"].as_str().unwrap_or_default();
    let text = scene.told_once(&parent, &[&id]).await;
    assert!(text.contains("1 FAILED"), "{text}");
    for word in says {
        assert!(reason.contains(word), "no {word:?} in the reason: {task}");
        assert!(
            text.contains(word),
            "no {word:?} in what the parent is told: {text}"
        );
    }
}

async fn an_unknown_agent_is_named() {
    let scene = Scene::set(&[]).await;
    ends_in_error(
        &scene,
        |launch| launch["agent"] = json!("nobody"),
        "Hello",
        &["nobody", "general"],
    )
    .await;
}

async fn an_unknown_model_is_named() {
    let scene = Scene::set(&[]).await;
    let change = |launch: &mut Value| launch["model"]["modelID"] = json!("phantom");
    ends_in_error(
        &scene,
        change,
        "Hello",
        &["rehearsal/phantom", "Available models: rehearsal/large"],
    )
    .await;
}

async fn a_refused_key_is_an_error_at_once() {
    let scene = Scene::set(&[]).await;
    ends_in_error(&scene, |_| (), "[[fail 401]]", &["rehearsed failure 401"]).await;
}

async fn two_failures_then_an_answer_is_a_completed_task() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("build").await;
    let id = scene
        .launch(Some(&parent), "[[fail 500 x2]][[say third time lucky]]")
        .await;
    scene.service.reaches(&id, "completed").await;
    assert_eq!(
        scene.service.result(&id).await["result"],
        "third time lucky"
    );
    scene.told_once(&parent, &[&id]).await;
}

async fn a_server_that_fails_for_ever_is_given_up() {
    let scene = Scene::set(&["lifecycle.retry_timeout=4s"]).await;
    ends_in_error(&scene, |_| (), "[[fail 500]]", &["rehearsed failure 500"]).await;
}

async fn a_connection_cut_once_is_no_failure() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("build").await;
    let id = scene
        .launch(Some(&parent), "[[drop x1]][[say whole]]")
        .await;
    scene.service.reaches(&id, "completed").await;
    assert_eq!(scene.service.result(&id).await["result"], "whole");
    scene.told_once(&parent, &[&id]).await;
}

async fn a_model_that_hangs_is_given_up() {
    let scene = Scene::set(&["lifecycle.task_ttl=5s", "lifecycle.stale_timeout=5s"]).await;
    ends_in_error(&scene, |_| (), "[[hang]]", &["no activity"]).await;
    assert_eq!(
        scene.stage.level(&scene.model).now,
        0,
        "its session was aborted"
    );
}

async fn a_script_nobody_can_read_is_an_error_with_its_text() {
    let scene = Scene::set(&[]).await;
    ends_in_error(&scene, |_| (), "[[wait soon]]", &["a time is expected"]).await;
}

async fn one_failure_among_three_is_listed_apart() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("build").await;
    let failed = scene.launch(Some(&parent), "[[fail 401]]").await;
    let good = scene.launch(Some(&parent), "[[wait 3s]][[say good]]").await;
    let slow = scene.launch(Some(&parent), "[[wait 4s]][[say slow]]").await;
    scene.service.reaches(&failed, "error").await;
    scene.service.reaches(&good, "completed").await;
    scene.service.reaches(&slow, "completed").await;
    let text = scene.told_once(&parent, &[&failed, &good, &slow]).await;
    assert!(
        text.contains("[ALL BACKGROUND TASKS COMPLETE - 1 FAILED]"),
        "{text}"
    );
    let early = scene.notices(&parent, "individual").await;
    let named = |notice: &Value| crate::harness::notice_of(notice).unwrap()["tasks"].to_string();
    assert_eq!(
        early
            .iter()
            .filter(|notice| named(notice).contains(&failed))
            .count(),
        1,
        "the failure is told at once"
    );
}
