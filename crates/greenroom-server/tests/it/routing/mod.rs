//! Several opencode processes behind bridges, with and without one at a URL: each session is served by its owner.

mod plugin;

use std::time::Duration;

use greenroom_server::agents::Timeouts;
use serde_json::{Value, json};

use crate::command::{greenroom, run_command};
use crate::support::Host;
use plugin::{Plugin, Storage, wait_until};

async fn bridge_only_host() -> Host {
    Host::on_bridges(false, Timeouts::default(), &[]).await
}

async fn launch(host: &Host, parent: Option<&str>, directory: Option<&str>) -> String {
    let mut body = json!({"description": "look", "prompt": "look around", "agent": "explore"});
    if let Some(parent) = parent {
        body["parentSessionID"] = json!(parent);
    }
    if let Some(directory) = directory {
        body["directory"] = json!(directory);
    }
    let (status, task) = host.post("/v1/tasks", body).await;
    assert_eq!(status, 201, "{task}");
    task["id"].as_str().unwrap().to_owned()
}

/// Launches a task of `ses_p`, and waits until its session has its prompt at the process. Returns the task, its session and the
/// call of the prompt.
async fn working_task(host: &Host, plugin: &mut Plugin) -> (String, String, String) {
    let task = launch(host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    let prompt = format!("POST /session/{session}/prompt_async");
    wait_until("it works", || plugin.request_count(&prompt) == 1).await;
    plugin.sync().await;
    (task, session, prompt)
}

/// Returns the messages that wake a parent.
async fn wake_messages(storage: &Storage, parent: &str) -> Vec<String> {
    let wakes = || {
        let user_messages = storage.user_messages(parent).into_iter();
        user_messages
            .filter_map(|(text, wakes)| wakes.then_some(text))
            .collect::<Vec<_>>()
    };
    wait_until("the parent is woken", || !wakes().is_empty()).await;
    wakes()
}

#[actix_rt::test]
async fn task_runs_over_a_bridge_only() {
    let (host, storage) = (bridge_only_host().await, Storage::default());
    storage.open("ses_p", "/project");
    let mut plugin = Plugin::connect_new(&host, &storage, 1, "/project").await;
    plugin.name_session("ses_p");
    let task = launch(&host, Some("ses_p"), None).await;
    let ended = host.ended(&task).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    let child = ended["sessionID"].as_str().unwrap().to_owned();
    let created = plugin.next().await;
    let wanted = json!({"type": "sessionCreated", "sessionID": child, "parentID": "ses_p",
        "title": "look (@explore subagent)"});
    assert_eq!(created, wanted);
    let wakes = wake_messages(&storage, "ses_p").await;
    assert_eq!(wakes.len(), 1, "{wakes:?}");
    assert!(
        wakes[0].contains("ALL BACKGROUND TASKS COMPLETE"),
        "{wakes:?}"
    );
    let (_, output) = host.get(&format!("/v1/tasks/{task}/output")).await;
    assert_eq!(output["result"], format!("answer of {child}"), "{output}");
    let made = plugin.request_bodies("POST /session");
    assert_eq!(made[0]["parentID"], "ses_p");
    host.stop().await;
}

#[actix_rt::test]
async fn tasks_wait_for_the_first_bridge() {
    let (host, storage) = (bridge_only_host().await, Storage::default());
    let (status, ready) = host.get("/readyz").await;
    assert_eq!(status, 503, "{ready}");
    let problems = ready["problems"].to_string();
    assert!(problems.contains("no bridge is connected"), "{problems}");
    let task = launch(&host, None, Some("/project")).await;
    let (_, waiting) = host.get(&format!("/v1/tasks/{task}")).await;
    assert_eq!(waiting["status"], "pending");
    let _plugin = Plugin::connect_new(&host, &storage, 1, "/project").await;
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(host.get("/readyz").await.0, 200);
    host.stop().await;
}

#[actix_rt::test]
async fn processes_in_one_directory_have_separate_sessions() {
    let (host, storage) = (bridge_only_host().await, Storage::default());
    let mut plugins = Vec::new();
    for pid in [1, 2] {
        let parent = format!("ses_p{pid}");
        storage.open(&parent, "/project");
        let mut plugin = Plugin::connect_new(&host, &storage, pid, "/project").await;
        plugin.pause_answers();
        plugin.name_and_sync(&parent).await;
        plugins.push(plugin);
    }
    let mut tasks = Vec::new();
    for pid in [1, 2] {
        let task = launch(&host, Some(&format!("ses_p{pid}")), None).await;
        let session = host.running(&task).await;
        wait_until("it has its prompt", || {
            plugins[pid - 1].request_count(&format!("POST /session/{session}/prompt_async")) == 1
        })
        .await;
        tasks.push((task, session));
    }
    // Each process is polled for its own sessions only, so both tasks continue.
    let polls = plugins
        .iter()
        .map(|plugin| plugin.request_count("GET /session/status"))
        .max()
        .unwrap();
    wait_until("both are polled", || {
        plugins
            .iter()
            .all(|plugin| plugin.request_count("GET /session/status") > polls + 5)
    })
    .await;
    for ((task, session), plugin) in tasks.iter().zip(&mut plugins) {
        assert_eq!(
            host.get(&format!("/v1/tasks/{task}")).await.1["status"],
            "running"
        );
        plugin.finish(session);
        assert_eq!(host.ended(task).await["status"], "completed");
    }
    for (pid, plugin) in [1, 2].into_iter().zip(&plugins) {
        let wakes = wake_messages(&storage, &format!("ses_p{pid}")).await;
        assert_eq!(wakes.len(), 1);
        assert_eq!(
            plugin.request_bodies("POST /session").len(),
            1,
            "its own child"
        );
        assert_eq!(
            plugin.request_count(&format!("POST /session/ses_p{pid}/prompt_async")),
            1,
            "its own parent"
        );
    }
    host.stop().await;
}

#[actix_rt::test]
async fn sessions_are_found_again_after_a_reconnect() {
    let (host, storage) = (bridge_only_host().await, Storage::default());
    storage.open("ses_p", "/project");
    let mut disconnect = Plugin::connect_new(&host, &storage, 1, "/project").await;
    let mut other = Plugin::connect_new(&host, &storage, 2, "/project").await;
    disconnect.pause_answers();
    disconnect.name_and_sync("ses_p").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    wait_until("it works", || {
        disconnect.request_count(&format!("POST /session/{session}/prompt_async")) == 1
    })
    .await;
    disconnect.name_and_sync("ses_p").await;
    disconnect.disconnect(&host).await;
    let waiting = launch(&host, Some("ses_p"), None).await;
    // Another process of the directory is served in the meantime and does not answer for the disconnected one.
    other.name_and_sync("ses_q").await;
    storage.open("ses_q", "/project");
    for _ in 0..3 {
        let task = launch(&host, Some("ses_q"), None).await;
        assert_eq!(host.ended(&task).await["status"], "completed");
    }
    assert_eq!(
        host.get(&format!("/v1/tasks/{task}")).await.1["status"],
        "running"
    );
    assert_eq!(
        host.get(&format!("/v1/tasks/{waiting}")).await.1["status"],
        "pending"
    );
    disconnect.finish_silently(&session);
    disconnect.resume_answers();
    disconnect.connect(&host).await;
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(host.ended(&waiting).await["status"], "completed");
    let wakes = wake_messages(&storage, "ses_p").await;
    assert!(
        wakes
            .iter()
            .any(|text| text.contains("ALL BACKGROUND TASKS")),
        "{wakes:?}"
    );
    assert_eq!(other.request_count("POST /session/ses_p/"), 0);
    assert_eq!(storage.user_messages(&session).len(), 1, "prompted once");
    host.stop().await;
}

#[actix_rt::test]
async fn message_waits_for_the_parents_bridge() {
    let (host, storage) = (bridge_only_host().await, Storage::default());
    storage.open("ses_p", "/project");
    let mut parent_bridge = Plugin::connect_new(&host, &storage, 1, "/project").await;
    let mut child_bridge = Plugin::connect_new(&host, &storage, 2, "/project").await;
    parent_bridge.pause_answers();
    parent_bridge.name_and_sync("ses_p").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    wait_until("it works", || {
        parent_bridge.request_count(&format!("POST /session/{session}/prompt_async")) == 1
    })
    .await;
    // The user has opened the child in another process.
    child_bridge.name_and_sync(&session).await;
    parent_bridge.disconnect(&host).await;
    child_bridge.finish(&session);
    assert_eq!(host.ended(&task).await["status"], "completed");
    let path = "/v1/sessions/ses_p/notifications";
    let owed = host.get(path).await.1;
    assert_ne!(owed["notifications"][0]["fate"], "dropped", "{owed}");
    assert!(storage.user_messages("ses_p").is_empty());
    parent_bridge.connect(&host).await;
    assert_eq!(wake_messages(&storage, "ses_p").await.len(), 1);
    assert_eq!(child_bridge.request_count("POST /session/ses_p/"), 0);
    host.stop().await;
}

/// Launches a task of `ses_p` and asserts that this process, and no other, creates the child and wakes the parent.
async fn assert_owner(host: &Host, owner: &Plugin, other: &Plugin) {
    let counts = |plugin: &Plugin| {
        let wakes = plugin.request_count("POST /session/ses_p/prompt_async");
        (plugin.request_bodies("POST /session").len(), wakes)
    };
    let (before, others) = (counts(owner), counts(other));
    let task = launch(host, Some("ses_p"), None).await;
    assert_eq!(host.ended(&task).await["status"], "completed");
    wait_until("its parent is woken", || {
        counts(owner) == (before.0 + 1, before.1 + 1)
    })
    .await;
    assert_eq!(counts(other), others);
}

#[actix_rt::test]
async fn session_stays_with_its_first_process_until_its_bridge_is_gone() {
    let (host, storage) = (bridge_only_host().await, Storage::default());
    storage.open("ses_p", "/project");
    let mut first = Plugin::connect_new(&host, &storage, 1, "/project").await;
    let mut second = Plugin::connect_new(&host, &storage, 2, "/project").await;
    first.name_and_sync("ses_p").await;
    second.name_and_sync("ses_p").await;
    assert_owner(&host, &first, &second).await;
    first.disconnect(&host).await;
    second.name_and_sync("ses_p").await;
    assert_owner(&host, &second, &first).await;
    host.stop().await;
}

#[actix_rt::test]
async fn session_moves_with_a_tool_call_that_its_owner_shows() {
    let (host, storage) = (bridge_only_host().await, Storage::default());
    storage.open("ses_p", "/project");
    let mut first = Plugin::connect_new(&host, &storage, 1, "/project").await;
    let mut second = Plugin::connect_new(&host, &storage, 2, "/project").await;
    first.name_and_sync("ses_p").await;
    storage.open_call("ses_p", "msg_a", "call_1");
    // Neither the message nor the call alone is proof.
    second.call_tool("ses_p", "msg_a", "call_2").await;
    second.call_tool("ses_p", "msg_b", "call_1").await;
    assert_owner(&host, &first, &second).await;
    storage.open_call("ses_p", "msg_c", "call_3");
    second.call_tool("ses_p", "msg_c", "call_3").await;
    assert_owner(&host, &second, &first).await;
    host.stop().await;
}

#[actix_rt::test]
async fn sessions_of_a_dead_process_are_taken_over() {
    let timeouts = Timeouts {
        orphaned_after: Duration::from_millis(200),
        ..Timeouts::default()
    };
    let (host, storage) = (
        Host::on_bridges(false, timeouts, &[]).await,
        Storage::default(),
    );
    storage.open("ses_p", "/project");
    let mut killed = Plugin::connect_new(&host, &storage, 1, "/project").await;
    let _elsewhere = Plugin::connect_new(&host, &storage, 3, "/elsewhere").await;
    killed.pause_answers();
    killed.name_and_sync("ses_p").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    wait_until("it works", || {
        killed.request_count(&format!("POST /session/{session}/prompt_async")) == 1
    })
    .await;
    killed.sync().await;
    killed.disconnect(&host).await;
    killed.finish_silently(&session);
    let started_again = Plugin::connect_new(&host, &storage, 2, "/project").await;
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(wake_messages(&storage, "ses_p").await.len(), 1);
    assert_eq!(
        started_again.request_count("POST /session/ses_p/prompt_async"),
        1
    );
    host.stop().await;
}

/// Returns the id of a process that does not exist any more.
fn ended_process() -> u32 {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[actix_rt::test]
async fn task_of_a_dead_process_waits_for_the_next() {
    let timeouts = Timeouts {
        dead_after: Duration::from_millis(200),
        ..Timeouts::default()
    };
    let (host, storage) = (
        Host::on_bridges(false, timeouts, &[]).await,
        Storage::default(),
    );
    storage.open("ses_p", "/project");
    let mut killed = Plugin::connect_new(&host, &storage, ended_process(), "/project").await;
    let _elsewhere = Plugin::connect_new(&host, &storage, 3, "/elsewhere").await;
    killed.pause_answers();
    killed.name_and_sync("ses_p").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    wait_until("it works", || {
        killed.request_count(&format!("POST /session/{session}/prompt_async")) == 1
    })
    .await;
    killed.sync().await;
    killed.disconnect(&host).await;
    let waits = |task: &Value| task["waitsFor"]["text"] == "an opencode in /project";
    let waiting = host.until(&task, waits).await;
    assert_eq!(waiting["status"], "pending", "{waiting}");
    killed.finish_silently(&session);
    let _next = Plugin::connect_new(&host, &storage, 2, "/project").await;
    assert_eq!(host.ended(&task).await["status"], "completed");
    host.stop().await;
}

#[actix_rt::test]
async fn unknown_session_of_a_dead_process_is_not_found() {
    let timeouts = Timeouts {
        orphaned_after: Duration::from_millis(200),
        ..Timeouts::default()
    };
    let (host, storage) = (
        Host::on_bridges(false, timeouts, &[]).await,
        Storage::default(),
    );
    storage.open("ses_p", "/project");
    let mut killed = Plugin::connect_new(&host, &storage, 1, "/project").await;
    killed.pause_answers();
    killed.name_and_sync("ses_p").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    wait_until("it works", || {
        killed.request_count(&format!("POST /session/{session}/prompt_async")) == 1
    })
    .await;
    killed.sync().await;
    killed.disconnect(&host).await;
    // A process of another user in the same directory.
    let _other = Plugin::connect_new(&host, &Storage::default(), 2, "/project").await;
    let ended = host.ended(&task).await;
    assert_eq!(ended["status"], "error", "{ended}");
    let served = launch(&host, None, Some("/project")).await;
    assert_eq!(host.ended(&served).await["status"], "completed");
    host.stop().await;
}

#[actix_rt::test]
async fn url_serves_sessions_without_a_bridge() {
    let host = Host::on_bridges(true, Timeouts::default(), &[]).await;
    let storage = Storage::default();
    storage.open("ses_p", "/project");
    let mut plugin = Plugin::connect_new(&host, &storage, 1, "/project").await;
    wait_until("it has shown that it answers", || {
        plugin.request_count("GET /session/status") > 0
    })
    .await;
    plugin.name_and_sync("ses_p").await;
    let over_the_bridge = launch(&host, Some("ses_p"), None).await;
    assert_eq!(host.ended(&over_the_bridge).await["status"], "completed");
    assert_eq!(host.fake.session_count(), 0);
    let by_url = launch(&host, Some("ses_u"), Some("/elsewhere")).await;
    let session = host.running(&by_url).await;
    host.finish(&session).await;
    assert_eq!(host.ended(&by_url).await["status"], "completed");
    assert_eq!(host.fake.session_count(), 1);
    assert_eq!(plugin.request_bodies("POST /session").len(), 1);
    host.stop().await;
}

#[actix_rt::test]
async fn event_only_bridge_gets_no_requests() {
    let timeouts = Timeouts {
        first_answer: Duration::from_millis(100),
        ..Timeouts::default()
    };
    let host = Host::on_bridges(true, timeouts, &[]).await;
    let storage = Storage::default();
    let mut plugin = Plugin::new(&storage, 1, "/project");
    plugin.events_only();
    plugin.connect(&host).await;
    plugin.name_and_sync("ses_p").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    plugin.name_and_sync(&session).await;
    host.finish(&session).await;
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(host.fake.session_count(), 1);
    assert_eq!(
        plugin.request_count(""),
        1,
        "one request checked whether it answers"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn unknown_parent_is_searched_on_all_bridges() {
    let (host, storage) = (bridge_only_host().await, Storage::default());
    storage.open("ses_p", "/two");
    let one = Plugin::connect_new(&host, &storage, 1, "/one").await;
    let two = Plugin::connect_new(&host, &storage, 2, "/two").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let ended = host.ended(&task).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(
        (
            one.request_bodies("POST /session").len(),
            two.request_bodies("POST /session").len()
        ),
        (0, 1)
    );
    let lost = launch(&host, Some("ses_never_seen"), None).await;
    let ended: Value = host.ended(&lost).await;
    assert_ne!(ended["status"], "pending", "{ended}");
    host.stop().await;
}

#[actix_rt::test]
async fn restarted_service_resumes_tasks_after_reconnects() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db").display().to_string();
    let timeouts = Timeouts {
        settle: Duration::from_millis(300),
        ..Timeouts::default()
    };
    let keys = [("journal", journal.as_str())];
    let storage = Storage::default();
    storage.open("ses_p", "/project");
    let host = Host::on_bridges(false, timeouts, &keys).await;
    let mut plugin = Plugin::connect_new(&host, &storage, 1, "/project").await;
    plugin.pause_answers();
    plugin.name_and_sync("ses_p").await;
    let (task, session, prompt) = working_task(&host, &mut plugin).await;
    plugin.disconnect(&host).await;
    host.stop().await;

    let host = Host::on_bridges(false, timeouts, &keys).await;
    assert_eq!(host.get("/readyz").await.0, 503);
    let status = async || host.get(&format!("/v1/tasks/{task}")).await.1["status"].clone();
    assert_eq!(status().await, "running");
    plugin.connect(&host).await;
    let polls = plugin.request_count("GET /session/status");
    wait_until("it is looked at again", || {
        plugin.request_count("GET /session/status") > polls + 5
    })
    .await;
    assert_eq!(status().await, "running");
    plugin.finish(&session);
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(wake_messages(&storage, "ses_p").await.len(), 1);
    assert_eq!(plugin.request_count(&prompt), 1, "prompted once");
    host.stop().await;
}

#[actix_rt::test]
async fn owner_of_a_session_is_kept_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db").display().to_string();
    let timeouts = Timeouts {
        settle: Duration::from_millis(300),
        ..Timeouts::default()
    };
    let keys = [("journal", journal.as_str())];
    // Two processes of one directory share their sessions. Both are alive.
    let storage = Storage::default();
    storage.open("ses_p", "/project");
    let host = Host::on_bridges(false, timeouts, &keys).await;
    let mut owner = Plugin::connect_new(&host, &storage, std::process::id(), "/project").await;
    let mut second = Plugin::connect_new(&host, &storage, 1, "/project").await;
    owner.pause_answers();
    owner.name_and_sync("ses_p").await;
    let (task, session, _) = working_task(&host, &mut owner).await;
    owner.disconnect(&host).await;
    second.disconnect(&host).await;
    host.stop().await;

    let host = Host::on_bridges(false, timeouts, &keys).await;
    second.connect(&host).await;
    // Names them, as a terminal that shows them does.
    second.name_and_sync("ses_p").await;
    second.name_and_sync(&session).await;
    tokio::time::sleep(timeouts.settle * 2).await;
    for method in ["GET", "POST"] {
        let calls = second.request_count(&format!("{method} /session/{session}"));
        assert_eq!(calls, 0, "the second process is called for a session");
    }
    owner.connect(&host).await;
    owner.finish(&session);
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(wake_messages(&storage, "ses_p").await.len(), 1);
    let wakes = |plugin: &Plugin| plugin.request_count("POST /session/ses_p/prompt_async");
    assert_eq!((wakes(&owner), wakes(&second)), (1, 0));
    host.stop().await;
}

#[actix_rt::test]
async fn doctor_names_the_second_process_of_a_directory() {
    let (host, storage) = (bridge_only_host().await, Storage::default());
    let folder = tempfile::tempdir().unwrap();
    let report = async || {
        let mut command = greenroom(&["doctor", "--url", &host.url("")]);
        command
            .env("HOME", folder.path())
            .current_dir(folder.path());
        run_command(command).await.stdout
    };
    let _one = Plugin::connect_new(&host, &storage, 1, "/project").await;
    let _other = Plugin::connect_new(&host, &storage, 3, "/elsewhere").await;
    assert!(!report().await.contains("also in"));
    let _two = Plugin::connect_new(&host, &storage, 2, "/project").await;
    let report = report().await;
    assert!(
        report.contains("/project is open in process 1 and also in 2"),
        "{report}"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn reverted_session_is_not_prompted() {
    let (host, storage) = (bridge_only_host().await, Storage::default());
    storage.open("ses_p", "/project");
    let mut plugin = Plugin::connect_new(&host, &storage, 1, "/project").await;
    plugin.pause_answers();
    plugin.name_and_sync("ses_p").await;
    let (task, session, prompt) = working_task(&host, &mut plugin).await;
    storage.revert(&session);
    let more = json!({"prompt": "and the tests"});
    let (status, refused) = host.post(&format!("/v1/tasks/{task}/send"), more).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (409, &json!("session_reverted")),
        "{refused}"
    );
    plugin.finish(&session);
    host.ended(&task).await;
    let resume = format!("/v1/sessions/{session}/resume");
    let (status, refused) = host.post(&resume, json!({"prompt": "go on"})).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (409, &json!("session_reverted")),
        "{refused}"
    );
    assert_eq!(plugin.request_count(&prompt), 1);
    host.stop().await;
}

#[actix_rt::test]
async fn run_that_was_cut_off_continues_in_the_next_process() {
    let (host, storage) = (bridge_only_host().await, Storage::default());
    storage.open("ses_p", "/project");
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let mut first = Plugin::connect_new(&host, &storage, ended.id(), "/project").await;
    first.pause_answers();
    first.name_and_sync("ses_p").await;
    let (task, session, prompt) = working_task(&host, &mut first).await;
    first.dispose_with(&session).await;
    let read = async || host.get(&format!("/v1/tasks/{task}")).await.1;
    let waiting = read().await;
    assert_eq!(waiting["status"], "pending", "{waiting}");
    let waits_for = waiting["waitsFor"].to_string();
    assert!(waits_for.contains("/project"), "{waits_for}");
    first.disconnect(&host).await;
    // A process of another directory does not serve it.
    let _elsewhere = Plugin::connect_new(&host, &Storage::default(), 3, "/elsewhere").await;
    assert_eq!(read().await["status"], "pending");
    let second = Plugin::connect_new(&host, &storage, 1, "/project").await;
    let ended = host.ended(&task).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(ended["sessionID"], json!(session));
    assert_eq!(
        (first.request_count(&prompt), second.request_count(&prompt)),
        (1, 1)
    );
    assert_eq!(wake_messages(&storage, "ses_p").await.len(), 1);
    host.stop().await;
}

#[actix_rt::test]
async fn events_and_calls_of_another_process_are_refused() {
    let (host, storage) = (bridge_only_host().await, Storage::default());
    for session in ["ses_p", "ses_q"] {
        storage.open(session, "/project");
    }
    let mut owner = Plugin::connect_new(&host, &storage, 1, "/project").await;
    let mut other = Plugin::connect_new(&host, &storage, 2, "/project").await;
    owner.pause_answers();
    owner.name_and_sync("ses_p").await;
    other.name_and_sync("ses_q").await;
    let (task, session, _) = working_task(&host, &mut owner).await;
    // An error, an end and a deletion of another process's sessions.
    let error = json!({"name": "APIError", "data": {"message": "forged"}});
    for (kind, properties) in [
        (
            "session.error",
            json!({"sessionID": session, "error": error}),
        ),
        ("session.idle", json!({"sessionID": session})),
        ("session.deleted", json!({"info": {"id": session}})),
        ("session.deleted", json!({"info": {"id": "ses_p"}})),
    ] {
        other.send_event(json!({"type": kind, "properties": properties}));
    }
    other.sync().await;
    // A call for another process's session, with a message and a call that its owner does not show.
    let refused = other
        .call_tool_with("ses_p", "background_cancel", json!({"all": true}))
        .await;
    assert!(refused.contains("another opencode process"), "{refused}");
    let (_, running) = host.get(&format!("/v1/tasks/{task}")).await;
    assert_eq!(running["status"], "running", "{running}");
    // Its own session does not reach the task either.
    other
        .call_tool_with("ses_q", "background_cancel", json!({"taskId": task}))
        .await;
    owner.finish(&session);
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(wake_messages(&storage, "ses_p").await.len(), 1);
    assert_eq!(other.request_count("POST /session/ses_p/"), 0);
    host.stop().await;
}

#[actix_rt::test]
async fn mute_bridge_holds_no_task_up() {
    let timeouts = Timeouts {
        first_answer: Duration::from_millis(200),
        lookup: Duration::from_millis(500),
        ..Timeouts::default()
    };
    let host = Host::on_bridges(false, timeouts, &[]).await;
    let storage = Storage::default();
    storage.open("ses_p", "/project");
    let mut plugin = Plugin::connect_new(&host, &storage, 1, "/project").await;
    plugin.name_and_sync("ses_p").await;
    let first = launch(&host, Some("ses_p"), None).await;
    assert_eq!(host.ended(&first).await["status"], "completed");
    // A bridge of the same directory that sends a hello and nothing more.
    let mut mute = Plugin::new(&Storage::default(), 2, "/project");
    mute.events_only();
    mute.connect(&host).await;
    plugin.pause_answers();
    let (task, session, _) = working_task(&host, &mut plugin).await;
    // Only a poll shows its end.
    plugin.finish_silently(&session);
    assert_eq!(host.ended(&task).await["status"], "completed");
    // A parent that no event has named is found at the other bridge.
    plugin.resume_answers();
    storage.open("ses_unknown", "/project");
    let task = launch(&host, Some("ses_unknown"), Some("/project")).await;
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(wake_messages(&storage, "ses_unknown").await.len(), 1);
    host.stop().await;
}
