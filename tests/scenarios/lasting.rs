//! State that a journal keeps over the end of a service, by kill or by signal: tasks, pending messages, keys, ids, changes,
//! and the lock of the journal itself.

use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Caller, Follower, Process, Scene, greenroom, id_of, is_finished_answer, run, session_of, until,
};

crate::stories![
    next_service_continues_tasks,
    next_service_sends_pending_messages,
    failure_without_a_service_is_found,
    cancel_interrupted_by_a_kill_is_carried_out,
    second_interrupt_stops_at_once,
    repeated_launch_after_a_kill_is_the_same_task,
    ids_and_output_are_kept,
    changes_continue_after_the_last_id,
    why_includes_events_before_the_kill,
    second_service_on_the_journal_is_refused,
];

/// The longest time of a stop: the service waits five seconds for messages in flight.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// Starts a scene with a journal on disk, and returns it with the folder of the journal.
async fn scene_with_journal(settings: &[&str]) -> (Scene, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let journal = format!("journal={}", folder.path().join("journal.db").display());
    let settings = [&[journal.as_str()], settings].concat();
    (Scene::set(&settings).await, folder)
}

async fn kill_and_restart(scene: &mut Scene) {
    scene.service.process.kill();
    scene.service.restart();
    scene.service.wait_until_ready().await;
}

/// Stops the service by a signal, and returns its output.
async fn stop(scene: &mut Scene, signal: Signal) -> String {
    scene.service.process.signal(signal);
    let status = scene.service.process.wait(ENDS_WITHIN).await;
    let output = scene.service.process.output();
    assert_eq!(Process::code(status), 0, "{output}");
    output
}

async fn next_service_continues_tasks() {
    let (mut scene, _folder) = scene_with_journal(&["limits.default=1"]).await;
    let parent = scene.parent("plan").await;
    let first = scene
        .launch_until_working(&parent, "[[wait 4s]][[say first]]")
        .await;
    let second = scene.launch(Some(&parent), "[[say second]]").await;
    let output = stop(&mut scene, Signal::SIGTERM).await;
    let expected = "2 tasks stay open; what runs goes on, and the next start picks all up";
    assert!(output.lines().any(|line| line == expected), "{output}");
    assert_eq!(
        scene.stage.level(&scene.model).now,
        1,
        "its session goes on"
    );

    scene.service.restart();
    scene.service.wait_until_ready().await;
    let first_id = id_of(&first);
    let task = scene.service.reaches(&first_id, "completed").await;
    assert_eq!(
        (session_of(&task), &task["run"]),
        (session_of(&first), &json!(1)),
        "{task}"
    );
    scene.service.reaches(&second, "completed").await;
    assert_eq!(scene.service.result(&first_id).await["result"], "first");
    assert_eq!(scene.service.result(&second).await["result"], "second");
    scene.notified_once(&parent, &[&first_id, &second]).await;
    let stats = scene.stage.rehearsal.stats();
    assert_eq!(stats.models[&scene.model].requests, 2, "one turn each");
}

async fn next_service_sends_pending_messages() {
    let (mut scene, _folder) = scene_with_journal(&[]).await;
    let parent = scene.parent("build").await;
    let id = id_of(
        &scene
            .launch_until_working(&parent, "[[wait 2s]][[say meanwhile]]")
            .await,
    );
    let session = session_of(&scene.service.task(&id).await);
    stop(&mut scene, Signal::SIGTERM).await;
    until("the session has answered without a service", async || {
        let messages = scene.opencode().messages(&session).await;
        messages.iter().any(is_finished_answer).then_some(())
    })
    .await;
    scene.service.restart();
    scene.service.wait_until_ready().await;
    scene.service.reaches(&id, "completed").await;
    assert_eq!(scene.service.result(&id).await["result"], "meanwhile");
    scene.notified_once(&parent, &[&id]).await;
}

async fn failure_without_a_service_is_found() {
    let (mut scene, _folder) = scene_with_journal(&[]).await;
    let parent = scene.parent("build").await;
    let prompt = "[[wait 1s]][[fail 401]]";
    let task = scene.launch_until_working(&parent, prompt).await;
    let (id, session) = (id_of(&task), session_of(&task));
    scene.service.process.kill();
    until("the session has failed without a service", async || {
        let messages = scene.opencode().messages(&session).await;
        let failed = |message: &Value| message["info"]["error"].is_object();
        messages.iter().any(failed).then_some(())
    })
    .await;
    scene.service.restart();
    scene.service.wait_until_ready().await;
    let task = scene.service.reaches(&id, "error").await;
    let error = task["error"].as_str().unwrap_or_default();
    assert!(error.contains("rehearsed failure 401"), "{task}");
    scene.notified_once(&parent, &[&id]).await;
}

async fn cancel_interrupted_by_a_kill_is_carried_out() {
    let (mut scene, _folder) = scene_with_journal(&[]).await;
    let parent = scene.parent("build").await;
    let id = id_of(&scene.launch_until_working(&parent, "[[wait 60s]]").await);
    let path = format!("/v1/tasks/{id}/cancel");
    let cancel = scene.service.request(Method::POST, &path).json(&json!({}));
    let request = tokio::spawn(cancel.send());
    // After the request has arrived, and usually before it is answered.
    tokio::time::sleep(Duration::from_millis(4)).await;
    scene.service.process.kill();
    let answered = request.await.is_ok_and(|answer| answer.is_ok());
    scene.service.restart();
    scene.service.wait_until_ready().await;
    if scene.service.task(&id).await["status"] == "running" {
        assert!(!answered, "an answered cancel is kept");
        let (status, task) = scene.service.post(&path, json!({})).await;
        assert_eq!(status, 200, "{task}");
    }
    scene.service.reaches(&id, "cancelled").await;
    until("the session is aborted", async || {
        (scene.stage.level(&scene.model).now == 0).then_some(())
    })
    .await;
    scene.notified_once(&parent, &[&id]).await;
}

async fn second_interrupt_stops_at_once() {
    let (mut scene, _folder) = scene_with_journal(&[]).await;
    let parent = scene.parent("build").await;
    let id = id_of(
        &scene
            .launch_until_working(&parent, "[[wait 3s]][[say still there]]")
            .await,
    );
    let output = stop(&mut scene, Signal::SIGINT).await;
    assert!(output.contains("1 task stays open; "), "{output}");
    scene.service.restart();
    scene.service.wait_until_ready().await;
    // Both signals are pending before the process runs: the second does not wait for the shutdown that the first began.
    for signal in [
        Signal::SIGSTOP,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGCONT,
    ] {
        scene.service.process.signal(signal);
    }
    let status = scene.service.process.wait(ENDS_WITHIN).await;
    assert_eq!(
        Process::code(status),
        130,
        "{}",
        scene.service.process.output()
    );
    scene.service.restart();
    scene.service.wait_until_ready().await;
    scene.service.reaches(&id, "completed").await;
    scene.notified_once(&parent, &[&id]).await;
}

async fn repeated_launch_after_a_kill_is_the_same_task() {
    let (mut scene, _folder) = scene_with_journal(&[]).await;
    let caller = Caller::new(scene.service.url());
    let launch = scene.task(None, "[[wait 2s]][[say once]]");
    let launched = caller.launch("k1", &launch).await;
    let id = id_of(&launched.body);
    assert_eq!(launched.status, 201, "{launched:?}");
    for _ in 0..2 {
        kill_and_restart(&mut scene).await;
        caller.set_url(scene.service.url());
        let again = caller.launch("k1", &launch).await;
        let found = (again.status, id_of(&again.body));
        assert_eq!(found, (200, id.clone()), "{again:?}");
    }
    scene.service.reaches(&id, "completed").await;
    let (_, listed) = scene.service.get("/v1/tasks").await;
    assert_eq!(
        listed["tasks"].as_array().map(Vec::len),
        Some(1),
        "{listed}"
    );
    assert_eq!(
        scene.stage.rehearsal.stats().models[&scene.model].requests,
        1
    );
}

async fn ids_and_output_are_kept() {
    let (mut scene, _folder) = scene_with_journal(&["lifecycle.keep_ended=100ms"]).await;
    let parent = scene.parent("build").await;
    let id = scene.launch(Some(&parent), "[[say still known]]").await;
    let session = session_of(&scene.service.ended(&id).await);
    scene.notified_once(&parent, &[&id]).await;
    until("it has left memory", async || {
        let (_, page) = scene.service.get("/v1/tasks").await;
        page["tasks"].as_array()?.is_empty().then_some(())
    })
    .await;
    for _ in 0..2 {
        for name in [&id, &session] {
            let task = scene.service.task(name).await;
            assert_eq!(
                (id_of(&task), &task["status"]),
                (id.clone(), &json!("completed"))
            );
            assert_eq!(scene.service.result(name).await["result"], "still known");
        }
        let printed = scene.service.command(&["output", &id[..9]]).await;
        assert_eq!(
            (printed.code, printed.out.as_str()),
            (0, "still known\n"),
            "{}",
            printed.err
        );
        kill_and_restart(&mut scene).await;
    }
    let path = format!("/v1/sessions/{session}/resume");
    let resume = json!({"prompt": "[[say and goes on]]"});
    let (status, resumed) = scene.service.post(&path, resume).await;
    assert_eq!(
        (status, &resumed["run"], id_of(&resumed)),
        (202, &json!(2), id.clone())
    );
    scene.service.ended(&id).await;
    assert_eq!(scene.service.result(&id).await["result"], "and goes on");
}

async fn changes_continue_after_the_last_id() {
    let (mut scene, _folder) = scene_with_journal(&[]).await;
    let caller = Caller::new(scene.service.url());
    let follower = Follower::start(caller.clone());
    let before = scene.launch(None, "[[say before]]").await;
    scene.service.reaches(&before, "completed").await;
    let across = scene.launch(None, "[[wait 2s]][[say across]]").await;
    scene.service.reaches(&across, "running").await;
    until("the reader has seen it run", async || {
        (follower.newest().get(&across)? == "running").then_some(())
    })
    .await;
    kill_and_restart(&mut scene).await;
    // The reader also gets the changes from before it reconnects.
    let after = scene.launch(None, "[[say after]]").await;
    scene.service.reaches(&across, "completed").await;
    scene.service.reaches(&after, "completed").await;
    caller.set_url(scene.service.url());
    until("the reader has seen all of it", async || {
        let newest = follower.newest();
        let mut states = [&before, &across, &after]
            .map(|id| newest.get(id))
            .into_iter();
        states
            .all(|state| state.is_some_and(|state| state == "completed"))
            .then_some(())
    })
    .await;
    assert_eq!(follower.assert_complete(), 9, "{:?}", follower.seen());
}

async fn why_includes_events_before_the_kill() {
    let (mut scene, _folder) = scene_with_journal(&["limits.default=1"]).await;
    let parent = scene.parent("build").await;
    let first = id_of(
        &scene
            .launch_until_working(&parent, "[[wait 3s]][[say first]]")
            .await,
    );
    let second = scene.launch(Some(&parent), "[[say second]]").await;
    kill_and_restart(&mut scene).await;
    let waits = scene.service.command(&["why", &second]).await;
    assert_eq!(waits.code, 0, "{}", waits.err);
    let last = waits.out.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("waits: "), "{}", waits.out);
    scene.service.reaches(&second, "completed").await;
    scene.notified_once(&parent, &[&first, &second]).await;
    kill_and_restart(&mut scene).await;
    for id in [&first, &second] {
        let (status, why) = scene.service.get(&format!("/v1/tasks/{id}/why")).await;
        assert_eq!(status, 200, "{why}");
        let events = why["events"].as_array().into_iter().flatten();
        let what: Vec<&str> = events.filter_map(|event| event["what"].as_str()).collect();
        let wanted = [
            "accepted",
            "slot granted",
            "running",
            "prompt accepted",
            "completed",
            "notifying the parent",
            "parent notified",
        ];
        // The parent may have two messages about the first: a note, unless it was too busy, and the final.
        let mut rest = what.iter();
        for step in wanted {
            assert!(rest.any(|it| *it == step), "{step} in its place: {why}");
        }
        let count = |step: &str| what.iter().filter(|it| **it == step).count();
        assert_eq!((count("running"), count("completed")), (1, 1), "{why}");
    }
    let why = scene.service.command(&["why", &second]).await;
    assert!(why.out.ends_with("ended: completed\n"), "{}", why.out);
}

async fn second_service_on_the_journal_is_refused() {
    let (mut scene, folder) = scene_with_journal(&[]).await;
    let journal = folder.path().join("journal.db");
    let second = async || {
        let mut command = greenroom(folder.path());
        command.args(["serve", "--listen", "127.0.0.1:0", "--opencode"]);
        command
            .arg(scene.opencode().url())
            .arg("--journal")
            .arg(&journal);
        run(command).await
    };
    let refused = second().await;
    assert_eq!(
        (refused.code, refused.out.as_str()),
        (1, ""),
        "{}",
        refused.err
    );
    let holder = format!("in use by the process {}", scene.service.process.id());
    for words in [&*holder, &*journal.to_string_lossy(), "hint: "] {
        assert!(refused.err.contains(words), "{words}: {}", refused.err);
    }
    // The first service is not disturbed, and its successor after a kill is not refused because of a stale lock.
    let id = scene.launch(None, "[[say undisturbed]]").await;
    scene.service.reaches(&id, "completed").await;
    kill_and_restart(&mut scene).await;
    let task: Value = scene.service.task(&id).await;
    assert_eq!(task["status"], "completed", "{task}");
}
