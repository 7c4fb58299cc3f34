//! The base of all other stories: the real agent server plays the scripts of the model.

use std::time::Duration;

use crate::harness::{Stage, is_finished_answer, text_of, until};

crate::stories![
    script_is_played,
    refusal_is_retried,
    abort_ends_the_request,
    restart_keeps_sessions
];

async fn answer(stage: &Stage, session: &str) -> String {
    until("the session has answered", async || {
        stage
            .opencode
            .messages(session)
            .await
            .iter()
            .rev()
            .find(|message| is_finished_answer(message))
            .map(text_of)
    })
    .await
}

async fn script_is_played() {
    let stage = Stage::shared().await;
    let project = stage.project();
    let session = stage.opencode.create_session(project.path(), None).await;
    let text = "[[call bash {\"command\": \"echo hi > greeting\", \"description\": \"writes hi\"}]][[say it is written]]";
    stage
        .opencode
        .prompt(&session, "build", "large", text)
        .await;
    assert_eq!(answer(&stage, &session).await, "it is written");
    assert_eq!(
        std::fs::read_to_string(project.path().join("greeting")).unwrap(),
        "hi\n"
    );
}

async fn refusal_is_retried() {
    let stage = Stage::shared().await;
    let project = stage.project();
    let session = stage.opencode.create_session(project.path(), None).await;
    stage
        .opencode
        .prompt(
            &session,
            "build",
            "large",
            "[[fail 503 x1]][[retry-after 1s]][[say at last]]",
        )
        .await;
    assert_eq!(answer(&stage, &session).await, "at last");
    let counted = stage.rehearsal.stats().sessions[&session];
    assert_eq!((counted.requests, counted.faults), (2, 1));
}

async fn abort_ends_the_request() {
    let stage = Stage::own().await;
    let project = stage.project();
    let session = stage.opencode.create_session(project.path(), None).await;
    stage
        .opencode
        .prompt(&session, "build", "m1", "[[hang]]")
        .await;
    until("the model has a request", async || {
        (stage.level("m1").now == 1).then_some(())
    })
    .await;
    stage.opencode.abort(&session).await;
    until("the request has ended", async || {
        (stage.level("m1").now == 0).then_some(())
    })
    .await;
}

async fn restart_keeps_sessions() {
    let mut stage = Stage::own().await;
    let project = stage.project();
    let session = stage.opencode.create_session(project.path(), None).await;
    stage
        .opencode
        .prompt(&session, "build", "small", "[[say before]]")
        .await;
    assert_eq!(answer(&stage, &session).await, "before");
    stage
        .opencode
        .kill_and_restart(Duration::from_millis(200))
        .await;
    assert_eq!(answer(&stage, &session).await, "before");
}
