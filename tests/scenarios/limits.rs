//! Slots: as many concurrent tasks as a limit allows, and a launch that does not wait for a slot.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Scene, Stage, id_of, is_finished_answer, until};

crate::stories![
    two_models_of_a_provider_share_its_limit,
    raised_limit_starts_a_waiting_task,
    zero_means_unlimited;
    alone twelve_tasks_share_five_slots,
];

async fn twelve_tasks_share_five_slots() {
    let scene = Scene::set(&["limits.default=5"]).await;
    let parent = scene.parent("build").await;
    let round = round_without_greenroom(&scene).await;
    scene.stage.rehearsal.reset();
    let begin = Instant::now();
    let (mut ids, mut answers) = (Vec::new(), Vec::new());
    for nth in 0..12 {
        let begin = Instant::now();
        ids.push(
            scene
                .launch(Some(&parent), &format!("[[wait 2s]][[say number {nth}]]"))
                .await,
        );
        answers.push(begin.elapsed());
    }
    for id in &ids {
        scene.service.reaches(id, "completed").await;
    }
    let took = begin.elapsed();
    answers.sort_unstable();
    println!(
        "twelve tasks of 2 s, five at once: {took:?} (ideal 6 s; the server alone takes {round:?} a round); \
         launches answered in {answers:?}"
    );
    let named: Vec<&str> = ids.iter().map(String::as_str).collect();
    let text = scene.notified_once(&parent, &named).await;
    assert!(
        ids.iter().all(|id| text.contains(id)),
        "the final lists all twelve: {text}"
    );
    assert_eq!(
        scene.stage.level(&scene.model).max,
        5,
        "five at once, and never more"
    );
    assert!(
        answers[11] < Duration::from_millis(500),
        "a launch does not wait for a slot: {answers:?}"
    );
    // One and a half times the ideal three rounds, or more if the server itself is slower.
    let most = Duration::from_secs(9).max(round * 3 * 5 / 4);
    assert!(took < most, "{took:?} is more than {most:?}");
}

/// Returns the time of five concurrent prompts of 2 s that are sent to the server directly.
async fn round_without_greenroom(scene: &Scene) -> Duration {
    let server = scene.opencode();
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(server.create_session(scene.project.path(), None).await);
    }
    let begin = Instant::now();
    for session in &sessions {
        server
            .prompt(session, "general", &scene.model, "[[wait 2s]][[say ok]]")
            .await;
    }
    for session in &sessions {
        until("the round is over", async || {
            server
                .messages(session)
                .await
                .iter()
                .any(is_finished_answer)
                .then_some(())
        })
        .await;
    }
    begin.elapsed()
}

async fn two_models_of_a_provider_share_its_limit() {
    let stage = Stage::own().await;
    let url = stage.opencode.url();
    let scene = Scene::on(stage, &url, &["limits.providers.rehearsal=2"]).await;
    let parent = scene.parent("build").await;
    scene.stage.rehearsal.reset();
    let mut ids = Vec::new();
    for nth in 0..6 {
        let mut task = scene.task(Some(&parent), "[[wait 1s]][[say ok]]");
        task["model"]["modelID"] = json!(format!("m{}", 40 + nth % 2));
        ids.push(id_of(&scene.service.launch(task).await));
    }
    for id in &ids {
        scene.service.reaches(id, "completed").await;
    }
    let stats = scene.stage.rehearsal.stats();
    assert_eq!(stats.in_flight.max, 2, "two of both together");
    assert!(
        stats.models["m40"].requests == 3 && stats.models["m41"].requests == 3,
        "both had their turns"
    );
    let named: Vec<&str> = ids.iter().map(String::as_str).collect();
    scene.notified_once(&parent, &named).await;
}

async fn raised_limit_starts_a_waiting_task() {
    let scene = Scene::set(&["limits.default=1"]).await;
    let parent = scene.parent("build").await;
    let first = scene.launch(Some(&parent), "[[wait 6s]][[say one]]").await;
    scene.service.reaches(&first, "running").await;
    let second = scene.launch(Some(&parent), "[[say two]]").await;
    let (_, limits) = scene.service.get("/v1/limits").await;
    let key = format!("rehearsal/{}", scene.model);
    let of_key = |limits: &Value| {
        limits["keys"]
            .as_array()
            .unwrap()
            .iter()
            .find(|it| it["key"] == key)
            .cloned()
            .unwrap()
    };
    let report = of_key(&limits);
    assert_eq!(
        (&report["limit"], &report["inUse"], &report["waiting"]),
        (&json!(1), &json!(1), &json!(1)),
        "{report}"
    );
    assert_eq!(scene.service.task(&second).await["status"], "pending");
    let (status, limits) = scene.service.put("/v1/limits", json!({"default": 2})).await;
    assert_eq!(
        (status, &of_key(&limits)["limit"]),
        (200, &json!(2)),
        "{limits}"
    );
    scene.service.reaches(&second, "completed").await;
    assert_eq!(
        scene.service.task(&first).await["status"],
        "running",
        "the second did not wait for the first"
    );
    scene.service.reaches(&first, "completed").await;
    scene.notified_once(&parent, &[&first, &second]).await;
}

async fn zero_means_unlimited() {
    let scene = Scene::set(&["limits.default=0"]).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(scene.launch(None, "[[hang]]").await);
    }
    scene.works(8).await;
    let (status, answer) = scene
        .service
        .post("/v1/tasks/cancel", json!({"all": true}))
        .await;
    assert_eq!(
        (status, answer["cancelled"].as_array().map(Vec::len)),
        (200, Some(8)),
        "{answer}"
    );
    until("all sessions are aborted", async || {
        (scene.stage.level(&scene.model).now == 0).then_some(())
    })
    .await;
    scene.service.slots_are_free().await;
}
