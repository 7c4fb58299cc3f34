//! Several opencode processes behind bridges, with and without one at a URL: each session is served by its own.

mod plugin;

use std::time::Duration;

use greenroom_server::agents::Patience;
use serde_json::{Value, json};

use crate::support::Host;
use plugin::{Plugin, Storage, until};

async fn alone() -> Host {
    Host::on_bridges(false, Patience::default(), &[]).await
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

/// What the parent was told that wakes it.
async fn woken(storage: &Storage, parent: &str) -> Vec<String> {
    let wakes = || {
        let told = storage.told(parent).into_iter();
        told.filter_map(|(text, wakes)| wakes.then_some(text))
            .collect::<Vec<_>>()
    };
    until("the parent is woken", || !wakes().is_empty()).await;
    wakes()
}

#[actix_rt::test]
async fn a_task_runs_from_launch_to_wake_over_a_bridge_alone() {
    let (host, storage) = (alone().await, Storage::default());
    storage.open("ses_p", "/project");
    let mut plugin = Plugin::connected(&host, &storage, 1, "/project").await;
    plugin.names("ses_p");
    let task = launch(&host, Some("ses_p"), None).await;
    let ended = host.ended(&task).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    let child = ended["sessionID"].as_str().unwrap().to_owned();
    let created = plugin.next().await;
    let wanted = json!({"type": "sessionCreated", "sessionID": child, "parentID": "ses_p",
        "title": "look (@explore subagent)"});
    assert_eq!(created, wanted);
    let wakes = woken(&storage, "ses_p").await;
    assert_eq!(wakes.len(), 1, "{wakes:?}");
    assert!(
        wakes[0].contains("ALL BACKGROUND TASKS COMPLETE"),
        "{wakes:?}"
    );
    let (_, output) = host.get(&format!("/v1/tasks/{task}/output")).await;
    assert_eq!(output["result"], format!("answer of {child}"), "{output}");
    let made = plugin.bodies("POST /session");
    assert_eq!(made[0]["parentID"], "ses_p");
    host.stop().await;
}

#[actix_rt::test]
async fn until_a_bridge_comes_tasks_wait_and_readyz_says_why() {
    let (host, storage) = (alone().await, Storage::default());
    let (status, ready) = host.get("/readyz").await;
    assert_eq!(status, 503, "{ready}");
    let problems = ready["problems"].to_string();
    assert!(problems.contains("no bridge is connected"), "{problems}");
    let task = launch(&host, None, Some("/project")).await;
    let (_, waiting) = host.get(&format!("/v1/tasks/{task}")).await;
    assert_eq!(waiting["status"], "pending");
    let _plugin = Plugin::connected(&host, &storage, 1, "/project").await;
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(host.get("/readyz").await.0, 200);
    host.stop().await;
}

#[actix_rt::test]
async fn two_processes_in_one_directory_have_each_its_own_sessions() {
    let (host, storage) = (alone().await, Storage::default());
    let mut plugins = Vec::new();
    for pid in [1, 2] {
        let parent = format!("ses_p{pid}");
        storage.open(&parent, "/project");
        let mut plugin = Plugin::connected(&host, &storage, pid, "/project").await;
        plugin.hold();
        plugin.names_heard(&parent).await;
        plugins.push(plugin);
    }
    let mut tasks = Vec::new();
    for pid in [1, 2] {
        let task = launch(&host, Some(&format!("ses_p{pid}")), None).await;
        let session = host.running(&task).await;
        until("it has its prompt", || {
            plugins[pid - 1].asked(&format!("POST /session/{session}/prompt_async")) == 1
        })
        .await;
        tasks.push((task, session));
    }
    // Each is asked what its sessions do, and neither speaks for the other: both run on, whoever is asked.
    let polls = plugins
        .iter()
        .map(|plugin| plugin.asked("GET /session/status"))
        .max()
        .unwrap();
    until("both are polled", || {
        plugins
            .iter()
            .all(|plugin| plugin.asked("GET /session/status") > polls + 5)
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
        let wakes = woken(&storage, &format!("ses_p{pid}")).await;
        assert_eq!(wakes.len(), 1);
        assert_eq!(plugin.bodies("POST /session").len(), 1, "its own child");
        assert_eq!(
            plugin.asked(&format!("POST /session/ses_p{pid}/prompt_async")),
            1,
            "its own parent"
        );
    }
    host.stop().await;
}

#[actix_rt::test]
async fn what_a_bridge_had_is_unknown_while_it_is_gone_and_found_when_it_is_back() {
    let (host, storage) = (alone().await, Storage::default());
    storage.open("ses_p", "/project");
    let mut cut = Plugin::connected(&host, &storage, 1, "/project").await;
    let mut other = Plugin::connected(&host, &storage, 2, "/project").await;
    cut.hold();
    cut.names_heard("ses_p").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    until("it works", || {
        cut.asked(&format!("POST /session/{session}/prompt_async")) == 1
    })
    .await;
    cut.names_heard("ses_p").await;
    cut.cut(&host).await;
    let waiting = launch(&host, Some("ses_p"), None).await;
    // Another process of the same directory is served meanwhile, and does not speak for the one that is gone.
    other.names_heard("ses_q").await;
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
    cut.finish_unheard(&session);
    cut.process_goes_on();
    cut.connect(&host).await;
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(host.ended(&waiting).await["status"], "completed");
    let wakes = woken(&storage, "ses_p").await;
    assert!(
        wakes
            .iter()
            .any(|text| text.contains("ALL BACKGROUND TASKS")),
        "{wakes:?}"
    );
    assert_eq!(other.asked("POST /session/ses_p/"), 0);
    assert_eq!(storage.told(&session).len(), 1, "prompted once");
    host.stop().await;
}

#[actix_rt::test]
async fn a_parent_whose_bridge_is_gone_is_told_once_it_is_back() {
    let (host, storage) = (alone().await, Storage::default());
    storage.open("ses_p", "/project");
    let mut parents = Plugin::connected(&host, &storage, 1, "/project").await;
    let mut childs = Plugin::connected(&host, &storage, 2, "/project").await;
    parents.hold();
    parents.names_heard("ses_p").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    until("it works", || {
        parents.asked(&format!("POST /session/{session}/prompt_async")) == 1
    })
    .await;
    // Its user has opened the child in another process.
    childs.names_heard(&session).await;
    parents.cut(&host).await;
    childs.finish(&session);
    assert_eq!(host.ended(&task).await["status"], "completed");
    let path = "/v1/sessions/ses_p/notifications";
    let owed = host.get(path).await.1;
    assert_ne!(owed["notifications"][0]["fate"], "dropped", "{owed}");
    assert!(storage.told("ses_p").is_empty());
    parents.connect(&host).await;
    assert_eq!(woken(&storage, "ses_p").await.len(), 1);
    assert_eq!(childs.asked("POST /session/ses_p/"), 0);
    host.stop().await;
}

#[actix_rt::test]
async fn a_session_moves_to_the_process_that_names_it_next() {
    let (host, storage) = (alone().await, Storage::default());
    storage.open("ses_p", "/project");
    let mut first = Plugin::connected(&host, &storage, 1, "/project").await;
    let mut second = Plugin::connected(&host, &storage, 2, "/project").await;
    for (number, plugin) in [&mut first, &mut second].into_iter().enumerate() {
        plugin.names_heard("ses_p").await;
        let task = launch(&host, Some("ses_p"), None).await;
        assert_eq!(host.ended(&task).await["status"], "completed");
        until("its parent is told", || {
            plugin.asked("POST /session/ses_p/prompt_async") == 1
        })
        .await;
        assert_eq!(plugin.bodies("POST /session").len(), 1, "{number}");
        // The parent's own turn is heard of too, and must not come after the other has named it.
        plugin.heard().await;
    }
    host.stop().await;
}

#[actix_rt::test]
async fn the_sessions_of_a_process_that_does_not_come_back_are_taken_over_in_its_directory() {
    let patience = Patience {
        orphaned: Duration::from_millis(200),
        ..Patience::default()
    };
    let (host, storage) = (
        Host::on_bridges(false, patience, &[]).await,
        Storage::default(),
    );
    storage.open("ses_p", "/project");
    let mut killed = Plugin::connected(&host, &storage, 1, "/project").await;
    let _elsewhere = Plugin::connected(&host, &storage, 3, "/elsewhere").await;
    killed.hold();
    killed.names_heard("ses_p").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    until("it works", || {
        killed.asked(&format!("POST /session/{session}/prompt_async")) == 1
    })
    .await;
    killed.heard().await;
    killed.cut(&host).await;
    killed.finish_unheard(&session);
    let started_again = Plugin::connected(&host, &storage, 2, "/project").await;
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(woken(&storage, "ses_p").await.len(), 1);
    assert_eq!(started_again.asked("POST /session/ses_p/prompt_async"), 1);
    host.stop().await;
}

#[actix_rt::test]
async fn a_session_that_nobody_knows_once_its_process_is_gone_for_good_is_gone() {
    let patience = Patience {
        orphaned: Duration::from_millis(200),
        ..Patience::default()
    };
    let (host, storage) = (
        Host::on_bridges(false, patience, &[]).await,
        Storage::default(),
    );
    storage.open("ses_p", "/project");
    let mut killed = Plugin::connected(&host, &storage, 1, "/project").await;
    killed.hold();
    killed.names_heard("ses_p").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    until("it works", || {
        killed.asked(&format!("POST /session/{session}/prompt_async")) == 1
    })
    .await;
    killed.heard().await;
    killed.cut(&host).await;
    // Another user's, who happens to work in the same directory.
    let _other = Plugin::connected(&host, &Storage::default(), 2, "/project").await;
    let ended = host.ended(&task).await;
    assert_eq!(ended["status"], "error", "{ended}");
    let served = launch(&host, None, Some("/project")).await;
    assert_eq!(host.ended(&served).await["status"], "completed");
    host.stop().await;
}

#[actix_rt::test]
async fn the_url_serves_what_no_bridge_holds() {
    let host = Host::on_bridges(true, Patience::default(), &[]).await;
    let storage = Storage::default();
    storage.open("ses_p", "/project");
    let mut plugin = Plugin::connected(&host, &storage, 1, "/project").await;
    until("it has shown that it answers", || {
        plugin.asked("GET /session/status") > 0
    })
    .await;
    plugin.names_heard("ses_p").await;
    let over_the_bridge = launch(&host, Some("ses_p"), None).await;
    assert_eq!(host.ended(&over_the_bridge).await["status"], "completed");
    assert_eq!(host.fake.made(), 0);
    let by_url = launch(&host, Some("ses_u"), Some("/elsewhere")).await;
    let session = host.running(&by_url).await;
    host.finish(&session).await;
    assert_eq!(host.ended(&by_url).await["status"], "completed");
    assert_eq!(host.fake.made(), 1);
    assert_eq!(plugin.bodies("POST /session").len(), 1);
    host.stop().await;
}

#[actix_rt::test]
async fn beside_a_url_a_bridge_that_only_brings_events_is_asked_nothing_more() {
    let patience = Patience {
        shows: Duration::from_millis(100),
        ..Patience::default()
    };
    let host = Host::on_bridges(true, patience, &[]).await;
    let storage = Storage::default();
    let mut plugin = Plugin::new(&storage, 1, "/project");
    plugin.only_events();
    plugin.connect(&host).await;
    plugin.names_heard("ses_p").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    plugin.names_heard(&session).await;
    host.finish(&session).await;
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(host.fake.made(), 1);
    assert_eq!(plugin.asked(""), 1, "it was asked once whether it answers");
    host.stop().await;
}

#[actix_rt::test]
async fn a_parent_that_nobody_has_named_is_looked_for_among_the_bridges() {
    let (host, storage) = (alone().await, Storage::default());
    storage.open("ses_p", "/two");
    let one = Plugin::connected(&host, &storage, 1, "/one").await;
    let two = Plugin::connected(&host, &storage, 2, "/two").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let ended = host.ended(&task).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(
        (
            one.bodies("POST /session").len(),
            two.bodies("POST /session").len()
        ),
        (0, 1)
    );
    let lost = launch(&host, Some("ses_unheard_of"), None).await;
    let ended: Value = host.ended(&lost).await;
    assert_ne!(ended["status"], "pending", "{ended}");
    host.stop().await;
}

#[actix_rt::test]
async fn a_service_that_is_started_again_finds_what_ran_when_bridges_are_back() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db").display().to_string();
    let patience = Patience {
        settle: Duration::from_millis(300),
        ..Patience::default()
    };
    let keys = [("journal", journal.as_str())];
    let storage = Storage::default();
    storage.open("ses_p", "/project");
    let host = Host::on_bridges(false, patience, &keys).await;
    let mut plugin = Plugin::connected(&host, &storage, 1, "/project").await;
    plugin.hold();
    plugin.names_heard("ses_p").await;
    let task = launch(&host, Some("ses_p"), None).await;
    let session = host.running(&task).await;
    let prompt = format!("POST /session/{session}/prompt_async");
    until("it works", || plugin.asked(&prompt) == 1).await;
    plugin.heard().await;
    plugin.cut(&host).await;
    host.stop().await;

    let host = Host::on_bridges(false, patience, &keys).await;
    assert_eq!(host.get("/readyz").await.0, 503);
    let status = async || host.get(&format!("/v1/tasks/{task}")).await.1["status"].clone();
    assert_eq!(status().await, "running");
    plugin.connect(&host).await;
    let polls = plugin.asked("GET /session/status");
    until("it is looked at again", || {
        plugin.asked("GET /session/status") > polls + 5
    })
    .await;
    assert_eq!(status().await, "running");
    plugin.finish(&session);
    assert_eq!(host.ended(&task).await["status"], "completed");
    assert_eq!(woken(&storage, "ses_p").await.len(), 1);
    assert_eq!(plugin.asked(&prompt), 1, "prompted once");
    host.stop().await;
}
