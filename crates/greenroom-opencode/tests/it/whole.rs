//! The actor system on the real opencode, by its client and event stream alone. Run with `GREENROOM_E2E=1`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::model;
use crate::support::opencode::{RealOpencode, e2e_enabled, model_ref};
use greenroom::domain::task::{Launch, TaskStatus};
use greenroom::ports::agent_server::AgentServer as _;
use greenroom::ports::journal::MemoryJournal;
use greenroom::{Config, Greenroom, ShutdownMode, WaitFor};
use greenroom_opencode::{EventStream, StreamTuning};

#[actix_rt::test]
async fn tasks_complete_and_wake_their_parent_once() {
    if !e2e_enabled() {
        return;
    }
    let model = model::start().await;
    let opencode = RealOpencode::open(&format!("{}/v1", model.url), None).await;
    let config = Config {
        directory: opencode.directory().into(),
        ..Config::default()
    };
    let server = Arc::new(opencode.server.clone());
    let greenroom = Greenroom::builder(config)
        .server(server)
        .journal(Arc::new(MemoryJournal::default()))
        .start();
    let stream = EventStream::start(
        opencode.server.clone(),
        greenroom.clone(),
        StreamTuning::default(),
    );

    let parent = opencode.create(None, Vec::new()).await;
    opencode.prompt(&parent, "plan", "hello").await;
    until("the parent has answered", async || {
        opencode
            .server
            .messages(&parent, None)
            .await
            .unwrap()
            .iter()
            .any(|message| message.is_finished_turn())
    })
    .await;

    let begin = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..3 {
        let launch = Launch {
            description: format!("task {number}"),
            prompt: "do it".to_owned(),
            agent: "build".to_owned(),
            parent_session: Some(parent.clone()),
            model: Some(model_ref("model")),
            ..Launch::default()
        };
        tasks.push(greenroom.launch(launch).await.unwrap());
    }
    for task in tasks {
        let wait = greenroom.wait(&task.id, task.run, WaitFor::Ended);
        let ended = tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (ended.status(), ended.error()),
            (TaskStatus::Completed, None)
        );
    }
    println!("three tasks ended after {:?}", begin.elapsed());

    let answered = async || {
        let messages = opencode.server.messages(&parent, None).await.unwrap();
        let notice = messages
            .iter()
            .position(|message| message.parts.iter().any(|part| part.notice_id().is_some()));
        notice.is_some_and(|notice| {
            messages[notice..]
                .iter()
                .any(|message| message.is_finished_turn())
        })
    };
    until("the parent has answered the final message", answered).await;
    println!("the parent had answered after {:?}", begin.elapsed());
    let messages = opencode.server.messages(&parent, None).await.unwrap();
    let finals = messages
        .iter()
        .flat_map(|message| &message.parts)
        .filter(|part| {
            part.metadata
                .as_ref()
                .is_some_and(|metadata| metadata["greenroom"]["kind"] == "final")
        });
    assert_eq!(finals.count(), 1);
    assert_eq!(
        messages.last().unwrap().agent.as_deref(),
        Some("plan"),
        "under the parent's own agent"
    );

    stream.stop().await;
    let begin = Instant::now();
    let report = greenroom.shutdown(ShutdownMode::Abort).await;
    assert!(
        report.cancelled.is_empty() && report.unnotified.is_empty(),
        "{report:?}"
    );
    println!("the system was shut down after {:?}", begin.elapsed());
    opencode.child.stop().await;
    println!("and opencode ended after {:?}", begin.elapsed());
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let begin = Instant::now();
    while !condition().await {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "not within 60 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
