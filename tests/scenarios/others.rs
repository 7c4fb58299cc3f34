//! Foreign actions on sessions of tasks and parents: an abort, a deletion, a user's Esc.

use crate::harness::{Scene, id_of, is_finished_answer, notice_of, session_of, text_of, until};

crate::stories![
    aborted_child_is_interrupted,
    deleted_child_is_cancelled,
    deleted_parent_cancels_its_tasks,
    parent_stopped_by_its_user_is_notified_silently,
];

async fn aborted_child_is_interrupted() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("plan").await;
    let task = scene.launch_until_working(&parent, "[[wait 60s]]").await;
    scene.opencode().abort(&session_of(&task)).await;
    let id = id_of(&task);
    let task = scene.service.reaches(&id, "interrupt").await;
    assert!(
        task["error"]
            .as_str()
            .is_some_and(|reason| reason.to_lowercase().contains("abort")),
        "{task}"
    );
    let text = scene.notified_once(&parent, &[&id]).await;
    assert!(text.contains("1 FAILED"), "{text}");
}

async fn deleted_child_is_cancelled() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("build").await;
    let task = scene.launch_until_working(&parent, "[[wait 10s]]").await;
    let id = id_of(&task);
    let session = session_of(&task);
    let (ended, ()) = tokio::join!(
        scene.service.ended(&id),
        scene.opencode().delete_later(&session)
    );
    assert_eq!(
        (&ended["status"], &ended["error"]),
        (&"cancelled".into(), &"Session deleted".into()),
        "{ended}"
    );
    let text = scene.notified_once(&parent, &[&id]).await;
    assert!(text.contains("Session deleted"), "{text}");
}

async fn deleted_parent_cancels_its_tasks() {
    let scene = Scene::set(&["limits.default=1"]).await;
    let parent = scene.parent("build").await;
    let bystander = scene.parent("build").await;
    let running = scene.launch_until_working(&parent, "[[wait 10s]]").await;
    let waiting = scene.launch(Some(&parent), "[[say never]]").await;
    let other = scene.launch(Some(&bystander), "[[say still here]]").await;
    let (first, second, ()) = tokio::join!(
        scene.service.ended(running["id"].as_str().unwrap()),
        scene.service.ended(&waiting),
        scene.opencode().delete_later(&parent.session),
    );
    for ended in [first, second] {
        assert_eq!(
            (&ended["status"], &ended["error"]),
            (&"cancelled".into(), &"Session deleted".into()),
            "{ended}"
        );
    }
    scene.service.reaches(&other, "completed").await;
    scene.notified_once(&bystander, &[&other]).await;
}

async fn parent_stopped_by_its_user_is_notified_silently() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("plan").await;
    let id = scene
        .launch(Some(&parent), "[[wait 6s]][[say finished]]")
        .await;
    scene.works(1).await;
    scene
        .opencode()
        .prompt(&parent.session, parent.agent, &scene.model, "[[wait 60s]]")
        .await;
    scene.works(2).await;
    scene.opencode().abort(&parent.session).await;
    scene.service.reaches(&id, "completed").await;
    let text = scene.notified(&parent, &[&id]).await;
    assert!(text.contains(&id), "{text}");

    // The user sends a prompt; the final has no answer before it.
    scene
        .opencode()
        .prompt(&parent.session, parent.agent, "small", "[[say I am back]]")
        .await;
    let messages = until("the user is answered", async || {
        let messages = scene.opencode().messages(&parent.session).await;
        messages
            .iter()
            .any(|it| is_finished_answer(it) && text_of(it).contains("I am back"))
            .then_some(messages)
    });
    let messages = messages.await;
    let notice = messages
        .iter()
        .position(|it| notice_of(it).is_some())
        .unwrap();
    assert_eq!(
        messages[notice + 1]["info"]["role"],
        "user",
        "the final woke no agent"
    );
    assert!(
        !messages.iter().any(|it| text_of(it).starts_with("Noted:")),
        "the final has no answer"
    );

    // The next final wakes it again.
    let next = scene.launch(Some(&parent), "[[say and again]]").await;
    scene.service.reaches(&next, "completed").await;
    until("the parent is woken and answers", async || {
        let messages = scene.opencode().messages(&parent.session).await;
        let last = messages.last()?;
        (is_finished_answer(last) && text_of(last).starts_with("Noted:")).then_some(())
    })
    .await;
}
