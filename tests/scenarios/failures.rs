//! Failures in the session of a task. Each story checks the state, a readable reason, one message to the parent, and that no
//! slot stays in use.

use serde_json::{Value, json};

use crate::harness::{Scene, id_of};

crate::stories![
    unknown_agent_is_named,
    unknown_model_is_named,
    refused_key_is_an_error_at_once,
    answer_after_two_failures_completes,
    permanent_failure_ends_after_the_retry_timeout,
    connection_cut_once_is_retried,
    hanging_model_ends_after_its_timeout,
    unreadable_script_is_an_error_with_its_text,
    failure_among_three_is_listed_separately,
];

/// Launches a task, and checks that it ends as an error whose reason and message contain all these words.
async fn ends_in_error(
    scene: &Scene,
    change: impl FnOnce(&mut Value),
    prompt: &str,
    reasons: &[&str],
) {
    let parent = scene.parent("build").await;
    let mut launch = scene.task(Some(&parent), prompt);
    change(&mut launch);
    let id = id_of(&scene.service.launch(launch).await);
    let task = scene.service.reaches(&id, "error").await;
    let reason = task["error"].as_str().unwrap_or_default();
    let text = scene.notified_once(&parent, &[&id]).await;
    assert!(text.contains("1 FAILED"), "{text}");
    for word in reasons {
        assert!(reason.contains(word), "no {word:?} in the reason: {task}");
        assert!(
            text.contains(word),
            "no {word:?} in the message to the parent: {text}"
        );
    }
}

async fn unknown_agent_is_named() {
    let scene = Scene::set(&[]).await;
    ends_in_error(
        &scene,
        |launch| launch["agent"] = json!("phantom-agent"),
        "Hello",
        &["phantom-agent", "general"],
    )
    .await;
}

async fn unknown_model_is_named() {
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

async fn refused_key_is_an_error_at_once() {
    let scene = Scene::set(&[]).await;
    ends_in_error(&scene, |_| (), "[[fail 401]]", &["rehearsed failure 401"]).await;
}

async fn answer_after_two_failures_completes() {
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
    scene.notified_once(&parent, &[&id]).await;
}

async fn permanent_failure_ends_after_the_retry_timeout() {
    let scene = Scene::set(&["lifecycle.retry_timeout=4s"]).await;
    ends_in_error(&scene, |_| (), "[[fail 500]]", &["rehearsed failure 500"]).await;
}

async fn connection_cut_once_is_retried() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("build").await;
    let id = scene
        .launch(Some(&parent), "[[drop x1]][[say whole]]")
        .await;
    scene.service.reaches(&id, "completed").await;
    assert_eq!(scene.service.result(&id).await["result"], "whole");
    scene.notified_once(&parent, &[&id]).await;
}

async fn hanging_model_ends_after_its_timeout() {
    let scene = Scene::set(&["lifecycle.task_ttl=5s", "lifecycle.stale_timeout=5s"]).await;
    ends_in_error(&scene, |_| (), "[[hang]]", &["no activity"]).await;
    assert_eq!(
        scene.stage.level(&scene.model).now,
        0,
        "its session was aborted"
    );
}

async fn unreadable_script_is_an_error_with_its_text() {
    let scene = Scene::set(&[]).await;
    ends_in_error(&scene, |_| (), "[[wait soon]]", &["a time is expected"]).await;
}

async fn failure_among_three_is_listed_separately() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("build").await;
    let failed = scene.launch(Some(&parent), "[[fail 401]]").await;
    let good = scene.launch(Some(&parent), "[[wait 3s]][[say good]]").await;
    let slow = scene.launch(Some(&parent), "[[wait 4s]][[say slow]]").await;
    scene.service.reaches(&failed, "error").await;
    scene.service.reaches(&good, "completed").await;
    scene.service.reaches(&slow, "completed").await;
    let text = scene.notified_once(&parent, &[&failed, &good, &slow]).await;
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
        "the failure is sent at once"
    );
}
