//! Agents use the service through opencode's plugin: tools, wakes, compaction; and the loss of the service, the server or
//! the connection.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{
    Proxy, Scene, TIMEOUT, free_port, id_of, launching, notice_of, outputs, session_of, text_of,
    tool_parts, until,
};

crate::stories![
    agent_is_woken_once_and_reads,
    failure_wakes_the_agent_but_its_own_cancel_does_not,
    compaction_keeps_the_delegated_sessions,
    restarted_service_repeats_no_call,
    killed_server_reconnects_its_plugin,
    long_cut_of_the_bridge_loses_no_end,
];

async fn agent_is_woken_once_and_reads() {
    let scene = Scene::with_plugin(&[]).await;
    let parent = scene.parent("build").await;
    let launches: String = (1..=3)
        .map(|nth| {
            // Longer than the agent takes to launch all, however busy the machine.
            let prompt = format!("[[wait 1{nth}s]][[say result number {nth}]]");
            launching(&format!("task {nth}"), &scene.model, &prompt)
        })
        .collect();
    let messages = scene
        .turn(&parent, &format!("{launches}[[say launched]]"))
        .await;
    let tasks = scene.tasks_of(&parent.session).await;
    let ids: Vec<String> = tasks.iter().map(id_of).collect();
    let launched = outputs(&messages, "background_task");
    assert_eq!((ids.len(), launched.len()), (3, 3));
    for (id, output) in ids.iter().zip(&launched) {
        assert!(output.contains(id), "{output}");
    }
    let named: Vec<&str> = ids.iter().map(String::as_str).collect();
    scene.notified_once(&parent, &named).await;

    for (nth, task) in (1..).zip(&tasks) {
        let id = id_of(task);
        let args = json!({"task_id": id});
        let messages = scene
            .turn(
                &parent,
                &format!("[[call background_output {args}]][[say read]]"),
            )
            .await;
        let state = tool_parts(&messages, "background_output").remove(0);
        let output = state["output"].as_str().unwrap();
        assert!(output.contains(&format!("result number {nth}")), "{output}");
        // The key with which opencode opens the child.
        let child = session_of(&scene.service.task(&id).await);
        assert_eq!(state["metadata"]["sessionId"], child, "{state}");
        assert_eq!(
            scene.opencode().session(&child).await["parentID"],
            parent.session
        );
    }
    assert_eq!(scene.notices(&parent, "final").await.len(), 1);
}

async fn failure_wakes_the_agent_but_its_own_cancel_does_not() {
    let scene = Scene::with_plugin(&[]).await;
    let parent = scene.parent("plan").await;
    let launch = launching("to be cancelled", &scene.model, "[[wait 60s]]");
    scene
        .turn(&parent, &format!("{launch}[[say launched]]"))
        .await;
    let cancelled = id_of(&scene.tasks_of(&parent.session).await[0]);
    scene.service.reaches(&cancelled, "running").await;
    let args = json!({"taskId": cancelled});
    let messages = scene
        .turn(
            &parent,
            &format!("[[call background_cancel {args}]][[say cancelled]]"),
        )
        .await;
    assert!(outputs(&messages, "background_cancel")[0].contains(&cancelled));
    scene.service.reaches(&cancelled, "cancelled").await;
    scene.service.slots_are_free().await;

    let launch = launching("to fail", &scene.model, "[[wait 1s]][[fail 401]]");
    scene
        .turn(&parent, &format!("{launch}[[say launched]]"))
        .await;
    let tasks = scene.tasks_of(&parent.session).await;
    let failed = id_of(
        tasks
            .iter()
            .find(|task| task["description"] == "to fail")
            .unwrap(),
    );
    // The first message; it does not name the task that the agent has cancelled itself.
    let text = scene.notified_once(&parent, &[&failed]).await;
    assert!(
        text.contains("FAILED") && !text.contains(&cancelled),
        "{text}"
    );
}

async fn compaction_keeps_the_delegated_sessions() {
    let scene = Scene::with_plugin(&[]).await;
    let parent = scene.parent("build").await;
    let launch = launching("look into it", &scene.model, "[[say looked]]");
    scene
        .turn(&parent, &format!("{launch}[[say launched]]"))
        .await;
    let id = id_of(&scene.tasks_of(&parent.session).await[0]);
    scene.notified_once(&parent, &[&id]).await;
    let child = session_of(&scene.service.ended(&id).await);
    scene.opencode().compact(&parent.session, "small").await;
    let prompts = scene.stage.rehearsal.stats().last_user_texts;
    // The plugin's list is at the end of the prompt, after the conversation.
    let carried = prompts.iter().filter(|text| {
        let listed = text
            .rsplit_once("## Background tasks")
            .map(|(_, listed)| listed);
        listed.is_some_and(|listed| listed.contains(&child) && listed.contains("look into it"))
    });
    assert_eq!(carried.count(), 1, "{prompts:#?}");
}

async fn restarted_service_repeats_no_call() {
    let folder = tempfile::tempdir().unwrap();
    let journal = format!("journal={}", folder.path().join("journal.db").display());
    let mut scene = Scene::with_plugin(&[&journal]).await;
    let parent = scene.parent("build").await;
    let launch = launching(
        "over the restart",
        &scene.model,
        "[[wait 8s]][[say it lasted]]",
    );
    scene
        .turn(&parent, &format!("{launch}[[say launched]]"))
        .await;
    let first = id_of(&scene.tasks_of(&parent.session).await[0]);
    scene.service.reaches(&first, "running").await;

    // Another agent launches while there is no service.
    let other = scene.parent("build").await;
    scene.service.process.signal(Signal::SIGTERM);
    scene.service.process.wait(TIMEOUT).await;
    let launch = launching("while it is gone", &scene.model, "[[say launched once]]");
    let text = format!("{launch}[[say launched]]");
    scene
        .opencode()
        .prompt(&other.session, "build", "small", &text)
        .await;
    until("the call waits", async || {
        let messages = scene.opencode().messages(&other.session).await;
        let calls = tool_parts(&messages, "background_task");
        (calls.first()?["status"] == "running").then_some(())
    })
    .await;
    scene.service.restart();
    scene.service.wait_until_ready().await;
    scene.bridges(1).await;
    scene.notified_once(&parent, &[&first]).await;
    let tasks = until("the task is launched", async || {
        Some(scene.tasks_of(&other.session).await).filter(|tasks| !tasks.is_empty())
    })
    .await;
    assert_eq!(tasks.len(), 1);
    scene.notified_once(&other, &[&id_of(&tasks[0])]).await;
}

async fn killed_server_reconnects_its_plugin() {
    let mut scene = Scene::with_plugin(&["lifecycle.poll_interval=1s"]).await;
    let parent = scene.parent("build").await;
    let launches: String = (1..=2)
        .map(|nth| {
            launching(
                &format!("task {nth}"),
                &scene.model,
                // Longer than the agent takes to launch both, however busy the machine.
                "[[wait 20s]][[say finished]]",
            )
        })
        .collect();
    scene
        .turn(&parent, &format!("{launches}[[say launched]]"))
        .await;
    scene.works(2).await;
    scene
        .stage
        .opencode
        .kill_and_restart(Duration::from_secs(2))
        .await;
    scene.opencode().sessions(scene.project.path()).await;
    scene.bridges(1).await;
    let ids: Vec<String> = scene
        .tasks_of(&parent.session)
        .await
        .iter()
        .map(id_of)
        .collect();
    assert_eq!(ids.len(), 2);
    let named: Vec<&str> = ids.iter().map(String::as_str).collect();
    scene.notified_once(&parent, &named).await;
    for id in &ids {
        assert_eq!(scene.service.ended(id).await["status"], "completed");
    }
}

async fn long_cut_of_the_bridge_loses_no_end() {
    let port = free_port();
    let proxy = Proxy::start(port).await;
    let scene = Scene::plugged(&["safety.repeated_tool_calls=1000"], port, &proxy.url()).await;
    let parent = scene.parent("build").await;
    let talk = "[[slow 15s]][[say one two three four five six seven eight nine ten]]";
    let steps = "[[repeat 60 bash {\"command\": \"true\"}]]";
    let launches: String = [
        launching("talks", &scene.model, talk),
        launching("works", &scene.model, &format!("{steps}[[say worked]]")),
        launching("fails", &scene.model, "[[wait 3s]][[fail 401]]"),
        launching("goes on", &scene.model, "[[wait 26s]][[say later]]"),
    ]
    .concat();
    scene
        .turn(&parent, &format!("{launches}[[say launched]]"))
        .await;
    scene.bridges(1).await;
    proxy.cut();
    scene.bridges(0).await;
    // This story is about the time without a bridge.
    tokio::time::sleep(Duration::from_secs(20)).await;
    proxy.restore();
    scene.bridges(1).await;
    let tasks = scene.tasks_of(&parent.session).await;
    let ids: Vec<String> = tasks.iter().map(id_of).collect();
    assert_eq!(ids.len(), 4);
    for (task, wanted) in tasks
        .iter()
        .zip(["completed", "completed", "error", "completed"])
    {
        assert_eq!(
            scene.service.ended(&id_of(task)).await["status"],
            wanted,
            "{task}"
        );
    }
    let named: Vec<&str> = ids.iter().map(String::as_str).collect();
    let message = until("one final names them all", async || {
        let finals = scene.notices(&parent, "final").await;
        let last = finals.last()?.clone();
        scene.is_idle(&parent.session).await.then_some(last)
    })
    .await;
    assert!(text_of(&message).contains("FAILED"));
    let mut of_final: Vec<String> = notice_of(&message).unwrap()["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|id| id.as_str().map(str::to_owned))
        .collect();
    of_final.sort_unstable();
    let mut named: Vec<String> = named.into_iter().map(str::to_owned).collect();
    named.sort_unstable();
    assert_eq!(of_final, named);
    assert_eq!(scene.notices(&parent, "final").await.len(), 1);
}
