//! A task completes, and its parent is notified once, soon, and under its own agent.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{EventTap, Scene, id_of, notice_of, session_of, until};

crate::stories![
    task_completes_and_wakes_its_parent_once,
    tool_calls_are_counted,
    task_without_a_parent_sends_no_message;
    alone parent_is_notified_soon_after_the_child_is_idle,
];

async fn task_completes_and_wakes_its_parent_once() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("plan").await;
    let id = scene
        .launch(
            Some(&parent),
            "Count the files. [[wait 2s]][[say There are seven.]]",
        )
        .await;
    let task = scene.service.reaches(&id, "completed").await;
    let text = scene.notified_once(&parent, &[&id]).await;
    assert!(text.contains("[ALL BACKGROUND TASKS COMPLETE]"), "{text}");
    assert!(text.contains(&id) && text.contains("a story"), "{text}");
    assert!(
        scene.notices(&parent, "individual").await.is_empty(),
        "a batch of one has only its final"
    );

    let by_id = scene.service.result(&id).await;
    assert_eq!(by_id["result"], "There are seven.");
    for name in [&id, &session_of(&task), &id] {
        assert_eq!(
            scene.service.result(name).await,
            by_id,
            "reading does not consume"
        );
    }
    assert_eq!(by_id["task"]["status"], "completed");
}

async fn tool_calls_are_counted() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("build").await;
    let prompt = "[[repeat 3 bash {\"command\": \"echo secret\", \"description\": \"echoes\"}]][[say All done.]]";
    let id = scene.launch(Some(&parent), prompt).await;
    let task = scene.service.reaches(&id, "completed").await;
    assert_eq!(task["progress"]["toolCalls"], 3);
    assert_eq!(task["progress"]["lastTool"], "bash");
    assert_eq!(scene.service.result(&id).await["result"], "All done.");
    scene.notified_once(&parent, &[&id]).await;
}

async fn task_without_a_parent_sends_no_message() {
    let scene = Scene::set(&[]).await;
    let id = scene.launch(None, "[[say Done alone.]]").await;
    let task = scene.service.reaches(&id, "completed").await;
    assert_eq!(scene.service.result(&id).await["result"], "Done alone.");
    let messages = scene.opencode().messages(&session_of(&task)).await;
    assert!(messages.iter().all(|message| notice_of(message).is_none()));
    scene.service.slots_are_free().await;
}

async fn parent_is_notified_soon_after_the_child_is_idle() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("plan").await;
    let mut delays = Vec::new();
    for _ in 0..5 {
        let tap = EventTap::start(scene.opencode(), scene.project.path()).await;
        let task = scene
            .service
            .launch(scene.task(Some(&parent), "[[wait 2s]][[say ok]]"))
            .await;
        let task = scene.service.reaches(&id_of(&task), "completed").await;
        let child = session_of(&task);
        let idle = until("the child was idle", async || {
            tap.first(|event| {
                event["type"] == "session.idle" && event["properties"]["sessionID"] == json!(child)
            })
        });
        let idle = idle.await;
        let notified = until("the parent has the final", async || {
            tap.first(|event| {
                let properties = &event["properties"];
                properties["sessionID"] == json!(parent.session)
                    && properties["part"]["metadata"]["greenroom"]["kind"] == "final"
            })
        });
        let notified: Instant = notified.await;
        delays.push(notified.saturating_duration_since(idle));
        until("the parent is idle again", async || {
            scene.is_idle(&parent.session).await.then_some(())
        })
        .await;
    }
    delays.sort_unstable();
    println!("child idle -> parent's message: {delays:?}");
    // The next poll comes up to 3 s later. On a busy machine some of the events are late too.
    assert!(
        delays[0] < Duration::from_secs(1),
        "no message of {delays:?} was sent for an event"
    );
    assert_eq!(scene.notices(&parent, "final").await.len(), 5);
}
