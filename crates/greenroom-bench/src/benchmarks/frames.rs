//! Measures how fast frames of a bridge get from the socket to the actors of running tasks, in wall-clock time. The whole
//! service runs in this process, the plugin's side on another thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::SinkExt;
use greenroom::{ShutdownMode, WaitFor};
use greenroom_server::config::{Listen, Settings};
use greenroom_server::host::Service;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::Round;
use crate::clock::processor_time;
use crate::instant_server::InstantServer;
use crate::setup::{launch_all, run_on_this_thread, unlimited};

/// Frames of one round.
const FRAMES: usize = 100_000;
/// A time longer than any round takes.
const LIMIT: Duration = Duration::from_secs(120);

/// Measures frames per second to that many running tasks, compared with parsing their JSON alone.
pub fn to_tasks(count: usize) -> Round {
    let settings = Settings {
        listen: Listen(SocketAddr::from(([127, 0, 0, 1], 0))),
        journal: None,
        core: unlimited(),
        ..Settings::default()
    };
    run_on_this_thread(async move {
        let server = Arc::new(InstantServer::default());
        let service = Service::start(&settings, server.clone()).expect("a free port");
        let greenroom = service.greenroom().clone();
        let tasks = launch_all(&greenroom, 0..count, 10, 20).await;
        server.until_prompted(count).await;
        // Status events, which the filter does not fold, and at the end an error, which ends a task at once.
        let task = &tasks[count - 1];
        let started = greenroom.wait(&task.id, task.run, WaitFor::Started).await;
        let session = started
            .and_then(|task| task.session)
            .expect("a started task has a session");
        let mut frames: Vec<String> = (0..FRAMES)
            .map(|number| frame("session.status", &format!("ses_{:010}", number % count)))
            .collect();
        frames.push(frame("session.error", session.as_str()));
        let begin = processor_time();
        for frame in &frames {
            std::hint::black_box(serde_json::from_str::<serde_json::Value>(frame).is_ok());
        }
        let reading = FRAMES as f64 / (processor_time() - begin).as_secs_f64();
        let address = service.address();
        let begin = Instant::now();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a thread for the plugin's side");
            runtime.block_on(send(address, frames));
        });
        let ended = greenroom.wait(&task.id, task.run, WaitFor::Ended);
        let ended = tokio::time::timeout(LIMIT, ended).await;
        assert!(matches!(ended, Ok(Some(_))), "the last frame arrives");
        let rate = FRAMES as f64 / begin.elapsed().as_secs_f64();
        service.stop(ShutdownMode::Detach).await;
        Round::compared(rate, reading)
    })
}

async fn send(address: SocketAddr, frames: Vec<String>) {
    let url = format!("ws://{address}/v1/bridge");
    let (mut socket, _) = tokio_tungstenite::connect_async(url)
        .await
        .expect("the service listens");
    let hello = json!({"type": "hello", "protocol": 1, "directory": "/project", "pid": 1});
    let hello = Message::text(hello.to_string());
    socket.send(hello).await.expect("it is open");
    for frame in frames {
        let sent = socket.feed(Message::text(frame)).await;
        sent.expect("it is open");
    }
    socket.flush().await.expect("it is open");
    // Kept open until the benchmark has seen the last frame.
    tokio::time::sleep(LIMIT).await;
}

fn frame(kind: &str, session: &str) -> String {
    let event = json!({
        "id": "evt_dfe2c1a8b001X9Y8Z7W6V5U4T3",
        "type": kind,
        "properties": {
            "sessionID": session,
            "status": {"type": "busy"},
            "error": {"name": "UnknownError", "data": {"message": "over"}},
            "more": "further fields of an event of opencode, which contain about this much text on average",
        },
    });
    json!({"type": "event", "event": event}).to_string()
}
