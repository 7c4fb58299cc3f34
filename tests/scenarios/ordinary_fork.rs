//! A fork of a session has the messages of its original. Its agent may read the results of the tasks that the messages
//! name. It may not change the tasks.

use serde_json::json;

use crate::harness::ordinary::{finals, reading};
use crate::harness::{Parent, Scene, id_of, launching, outputs, session_of};

crate::stories![fork_reads_but_does_not_control_tasks];

async fn fork_reads_but_does_not_control_tasks() {
    let scene = Scene::with_plugin(&[]).await;
    let parent = scene.parent("build").await;
    let launches = [
        launching("ends", &scene.model, "[[say the result of the first]]"),
        launching("goes on", &scene.model, "[[hang]]"),
    ];
    let launches = format!("{}[[say launched]]", launches.concat());
    scene.turn(&parent, &launches).await;
    let tasks = scene.tasks_of(&parent.session).await;
    let [ended, running] = [id_of(&tasks[0]), id_of(&tasks[1])];
    let first = scene.service.reaches(&ended, "completed").await;
    let second = scene.service.reaches(&running, "running").await;

    let fork = scene.opencode().fork(&parent.session).await;
    let fork = Parent {
        session: fork,
        agent: "build",
    };
    let sessions = [parent.session.as_str(), &fork.session];
    let messages = scene.turn(&fork, &reading(&ended)).await;
    let read = outputs(&messages, "background_output");
    assert!(
        read[0].contains("the result of the first"),
        "the fork reads the result: {read:?}\n{}",
        scene.state(&sessions).await
    );

    // Its calls to cancel, send and resume are refused.
    let cancel = json!({"taskId": running});
    let send = json!({"task_id": running, "prompt": "go elsewhere"});
    let resume = json!({
        "description": "again", "prompt": "[[say again]]", "agent": "general",
        "session_id": session_of(&first),
    });
    for (tool, args) in [
        ("background_cancel", cancel),
        ("background_send", send),
        ("background_task", resume),
    ] {
        scene
            .turn(&fork, &format!("[[call {tool} {args}]][[say called]]"))
            .await;
    }
    let (first, second) = (
        scene.opencode().messages(&session_of(&first)).await,
        scene.opencode().messages(&session_of(&second)).await,
    );
    let (ended_now, running_now) = (
        scene.service.task(&ended).await,
        scene.service.task(&running).await,
    );
    let unchanged = ended_now["run"] == 1
        && ended_now["status"] == "completed"
        && running_now["status"] == "running"
        && first.len() == 2
        && second.len() == 2;
    assert!(
        unchanged,
        "the fork changes no task\n{}",
        scene.state(&sessions).await
    );

    // A session without a message about a task cannot read it.
    let stranger = scene.parent("build").await;
    let messages = scene.turn(&stranger, &reading(&ended)).await;
    let read = outputs(&messages, "background_output");
    assert!(
        !read[0].contains("the result of the first"),
        "another session does not read it: {read:?}"
    );
    // Its own failed call, which names the task, does not change that.
    let messages = scene.turn(&stranger, &reading(&ended)).await;
    let read = outputs(&messages, "background_output");
    assert!(
        !read[0].contains("the result of the first"),
        "a second call does not read it: {read:?}"
    );

    // Messages go to the original.
    let path = format!("/v1/tasks/{running}/cancel");
    let (status, answer) = scene.service.post(&path, json!({})).await;
    assert_eq!(status, 200, "{answer}");
    scene.one_answered_final(&parent, &[&ended, &running]).await;
    let of_fork = scene.opencode().messages(&fork.session).await;
    assert!(
        finals(&of_fork).is_empty(),
        "{}",
        scene.state(&sessions).await
    );
}
