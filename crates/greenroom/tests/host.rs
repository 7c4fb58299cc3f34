//! Runs the example `host`: a task through its routes, events pushed in, and the message to its parent.

#[path = "../examples/host/main.rs"]
mod host;

use std::sync::Arc;
use std::time::Duration;

use actix_web::test::{TestRequest, call_and_read_body_json, call_service, init_service};
use actix_web::web::Data;
use actix_web::{App, http::StatusCode};
use greenroom::domain::ids::Run;
use greenroom::ports::journal::MemoryJournal;
use greenroom::{Config, Greenroom, ShutdownMode, WaitFor};
use serde_json::{Value, json};
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(30);

#[actix_web::test]
async fn task_runs_through_host_application() {
    let echo = Arc::new(host::Echo::default());
    let journal = Arc::new(MemoryJournal::default());
    let greenroom = Greenroom::builder(Config::default())
        .server(echo.clone())
        .journal(journal)
        .start();
    let app = App::new()
        .app_data(Data::new(greenroom.clone()))
        .configure(host::routes);
    let app = init_service(app).await;

    let launch = json!({"description": "say it", "prompt": "hello", "agent": "general",
        "parentSessionID": "ses_parent"});
    let request = TestRequest::post().uri("/tasks").set_json(launch);
    let task: Value = call_and_read_body_json(&app, request.to_request()).await;
    assert_eq!(task["status"], "pending", "{task}");
    let id = task["id"].as_str().unwrap().into();
    let started = timeout(TIMEOUT, greenroom.wait(&id, Run::FIRST, WaitFor::Started));
    let session = started.await.unwrap().unwrap().session.unwrap();

    let info = json!({"id": "msg_1", "sessionID": session, "role": "assistant",
        "finish": "stop", "time": {"created": 1, "completed": 2}});
    let events = json!([
        {"type": "session.status", "properties": {"sessionID": session, "status": {"type": "busy"}}},
        {"type": "message.updated", "properties": {"sessionID": session, "info": info}},
        {"type": "session.idle", "properties": {"sessionID": session}},
    ]);
    let request = TestRequest::post().uri("/events").set_json(events);
    let answer = call_service(&app, request.to_request()).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let ended = timeout(TIMEOUT, greenroom.wait(&id, Run::FIRST, WaitFor::Ended));
    assert!(ended.await.unwrap().is_some());

    let request = TestRequest::get().uri(&format!("/tasks/{id}"));
    let task: Value = call_and_read_body_json(&app, request.to_request()).await;
    assert_eq!(task["status"], "completed", "{task}");
    // Shutdown waits for messages in flight.
    greenroom.shutdown(ShutdownMode::Abort).await;
    let notices = echo.notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("say it"), "{notices:?}");
}
