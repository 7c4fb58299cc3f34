//! What outlives a service that ends, by kill or by signal, with its journal: tasks, what is owed, keys, ids, changes, and the
//! right to the journal itself.

use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Caller, Follower, Process, Scene, greenroom, id_of, is_finished_answer, run, session_of, until,
};

crate::stories![
    a_stopped_service_leaves_its_tasks_to_the_next,
    what_a_stopped_service_owed_is_told_by_the_next,
    a_failure_while_nobody_watched_is_a_failure,
    a_cancel_cut_off_by_a_kill_is_carried_out,
    an_interrupt_stops_it_the_same_way_and_a_second_at_once,
    a_launch_repeated_with_its_key_after_a_kill_is_the_same_task,
    ids_and_output_outlive_memory_and_the_process,
    changes_go_on_where_a_reader_stopped,
    why_tells_of_before_the_kill,
    a_second_service_on_the_journal_is_refused,
];

/// How long the service takes at most to end: messages in flight are awaited for five seconds.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// A scene whose service keeps its tasks, and where.
async fn lasting(settings: &[&str]) -> (Scene, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let journal = format!("journal={}", folder.path().join("journal.db").display());
    let settings = [&[journal.as_str()], settings].concat();
    (Scene::set(&settings).await, folder)
}

async fn kill_and_restart(scene: &mut Scene) {
    scene.service.process.kill();
    scene.service.begin_again();
    scene.service.is_back().await;
}

/// Ends it by a signal; what it said.
async fn end(scene: &mut Scene, signal: Signal) -> String {
    scene.service.process.signal(signal);
    let status = scene.service.process.wait(ENDS_WITHIN).await;
    let said = scene.service.process.said();
    assert_eq!(Process::code(status), 0, "{said}");
    said
}

async fn a_stopped_service_leaves_its_tasks_to_the_next() {
    let (mut scene, _folder) = lasting(&["limits.default=1"]).await;
    let parent = scene.parent("plan").await;
    let first = scene
        .launch_and_see_it_work(&parent, "[[wait 4s]][[say first]]")
        .await;
    let second = scene.launch(Some(&parent), "[[say second]]").await;
    let said = end(&mut scene, Signal::SIGTERM).await;
    let words = "2 tasks stay open; what runs goes on, and the next start picks all up";
    assert!(said.lines().any(|line| line == words), "{said}");
    assert_eq!(
        scene.stage.level(&scene.model).now,
        1,
        "its session goes on"
    );

    scene.service.begin_again();
    scene.service.is_back().await;
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
    scene.told_once(&parent, &[&first_id, &second]).await;
    let stats = scene.stage.rehearsal.stats();
    assert_eq!(stats.models[&scene.model].requests, 2, "one turn each");
}

async fn what_a_stopped_service_owed_is_told_by_the_next() {
    let (mut scene, _folder) = lasting(&[]).await;
    let parent = scene.parent("build").await;
    let id = id_of(
        &scene
            .launch_and_see_it_work(&parent, "[[wait 2s]][[say meanwhile]]")
            .await,
    );
    let session = session_of(&scene.service.task(&id).await);
    end(&mut scene, Signal::SIGTERM).await;
    until(
        "the session has answered while nobody watched",
        async || {
            let messages = scene.opencode().messages(&session).await;
            messages.iter().any(is_finished_answer).then_some(())
        },
    )
    .await;
    scene.service.begin_again();
    scene.service.is_back().await;
    scene.service.reaches(&id, "completed").await;
    assert_eq!(scene.service.result(&id).await["result"], "meanwhile");
    scene.told_once(&parent, &[&id]).await;
}

async fn a_failure_while_nobody_watched_is_a_failure() {
    let (mut scene, _folder) = lasting(&[]).await;
    let parent = scene.parent("build").await;
    let prompt = "[[wait 1s]][[fail 401]]";
    let task = scene.launch_and_see_it_work(&parent, prompt).await;
    let (id, session) = (id_of(&task), session_of(&task));
    scene.service.process.kill();
    until("the session has failed while nobody watched", async || {
        let messages = scene.opencode().messages(&session).await;
        let failed = |message: &Value| message["info"]["error"].is_object();
        messages.iter().any(failed).then_some(())
    })
    .await;
    scene.service.begin_again();
    scene.service.is_back().await;
    let task = scene.service.reaches(&id, "error").await;
    let error = task["error"].as_str().unwrap_or_default();
    assert!(error.contains("rehearsed failure 401"), "{task}");
    scene.told_once(&parent, &[&id]).await;
}

async fn a_cancel_cut_off_by_a_kill_is_carried_out() {
    let (mut scene, _folder) = lasting(&[]).await;
    let parent = scene.parent("build").await;
    let id = id_of(&scene.launch_and_see_it_work(&parent, "[[wait 60s]]").await);
    let path = format!("/v1/tasks/{id}/cancel");
    let cancel = scene.service.request(Method::POST, &path).json(&json!({}));
    let asked = tokio::spawn(cancel.send());
    // Not before it has arrived, and most often before it is answered.
    tokio::time::sleep(Duration::from_millis(4)).await;
    scene.service.process.kill();
    let answered = asked.await.is_ok_and(|answer| answer.is_ok());
    scene.service.begin_again();
    scene.service.is_back().await;
    if scene.service.task(&id).await["status"] == "running" {
        assert!(!answered, "what was answered is kept");
        let (status, task) = scene.service.post(&path, json!({})).await;
        assert_eq!(status, 200, "{task}");
    }
    scene.service.reaches(&id, "cancelled").await;
    until("the session is aborted", async || {
        (scene.stage.level(&scene.model).now == 0).then_some(())
    })
    .await;
    scene.told_once(&parent, &[&id]).await;
}

async fn an_interrupt_stops_it_the_same_way_and_a_second_at_once() {
    let (mut scene, _folder) = lasting(&[]).await;
    let parent = scene.parent("build").await;
    let id = id_of(
        &scene
            .launch_and_see_it_work(&parent, "[[wait 3s]][[say still there]]")
            .await,
    );
    let said = end(&mut scene, Signal::SIGINT).await;
    assert!(said.contains("1 task stays open; "), "{said}");
    scene.service.begin_again();
    scene.service.is_back().await;
    // Both are there before it can look: the second does not wait for what the first began.
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
        scene.service.process.said()
    );
    scene.service.begin_again();
    scene.service.is_back().await;
    scene.service.reaches(&id, "completed").await;
    scene.told_once(&parent, &[&id]).await;
}

async fn a_launch_repeated_with_its_key_after_a_kill_is_the_same_task() {
    let (mut scene, _folder) = lasting(&[]).await;
    let caller = Caller::new(scene.service.url());
    let launch = scene.task(None, "[[wait 2s]][[say once]]");
    let (status, task, _) = caller.launch("k1", &launch).await;
    assert_eq!(status, 201, "{task}");
    for _ in 0..2 {
        kill_and_restart(&mut scene).await;
        caller.moved(scene.service.url());
        let (status, again, _) = caller.launch("k1", &launch).await;
        assert_eq!((status, id_of(&again)), (200, id_of(&task)), "{again}");
    }
    scene.service.reaches(&id_of(&task), "completed").await;
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

async fn ids_and_output_outlive_memory_and_the_process() {
    let (mut scene, _folder) = lasting(&["lifecycle.keep_ended=100ms"]).await;
    let parent = scene.parent("build").await;
    let id = scene.launch(Some(&parent), "[[say still known]]").await;
    let session = session_of(&scene.service.ended(&id).await);
    scene.told_once(&parent, &[&id]).await;
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
        let shown = scene.service.command(&["output", &id[..9]]).await;
        assert_eq!(
            (shown.code, shown.out.as_str()),
            (0, "still known\n"),
            "{}",
            shown.err
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

async fn changes_go_on_where_a_reader_stopped() {
    let (mut scene, _folder) = lasting(&[]).await;
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
    // What happens before the reader is back is not lost to it.
    let after = scene.launch(None, "[[say after]]").await;
    scene.service.reaches(&across, "completed").await;
    scene.service.reaches(&after, "completed").await;
    caller.moved(scene.service.url());
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
    assert_eq!(follower.is_whole(), 9, "{:?}", follower.seen());
}

async fn why_tells_of_before_the_kill() {
    let (mut scene, _folder) = lasting(&["limits.default=1"]).await;
    let parent = scene.parent("build").await;
    let first = id_of(
        &scene
            .launch_and_see_it_work(&parent, "[[wait 3s]][[say first]]")
            .await,
    );
    let second = scene.launch(Some(&parent), "[[say second]]").await;
    kill_and_restart(&mut scene).await;
    let waits = scene.service.command(&["why", &second]).await;
    assert_eq!(waits.code, 0, "{}", waits.err);
    let last = waits.out.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("waits: "), "{}", waits.out);
    scene.service.reaches(&second, "completed").await;
    scene.told_once(&parent, &[&first, &second]).await;
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
            "telling the parent",
            "parent told",
        ];
        // The first is told of twice: by a note, which its parent may be too busy for, and by the final.
        let mut rest = what.iter();
        for step in wanted {
            assert!(rest.any(|it| *it == step), "{step} in its place: {why}");
        }
        let count = |step: &str| what.iter().filter(|it| **it == step).count();
        assert_eq!((count("running"), count("completed")), (1, 1), "{why}");
    }
    let told = scene.service.command(&["why", &second]).await;
    assert!(told.out.ends_with("ended: completed\n"), "{}", told.out);
}

async fn a_second_service_on_the_journal_is_refused() {
    let (mut scene, folder) = lasting(&[]).await;
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
    // The one that has it did not notice, and who comes after its death is not refused for a file that was left.
    let id = scene.launch(None, "[[say undisturbed]]").await;
    scene.service.reaches(&id, "completed").await;
    kill_and_restart(&mut scene).await;
    let task: Value = scene.service.task(&id).await;
    assert_eq!(task["status"], "completed", "{task}");
}
