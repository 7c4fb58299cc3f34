//! Measures how fast events of running tasks reach their actors.

use std::sync::Arc;

use greenroom::Greenroom;
use greenroom::domain::ids::SessionId;
use greenroom::domain::session_event::{SessionEvent, SessionEventKind};

use super::Round;
use crate::bare;
use crate::clock::processor_time;
use crate::instant_server::InstantServer;
use crate::setup::{launch_all, run_on_this_thread, start, unlimited};

/// Events of one round: at least one per task.
const EVENTS: usize = 300_000;

/// Starts that many running tasks, and returns their sessions.
pub async fn running(count: usize) -> (Greenroom, Vec<SessionId>) {
    let server = Arc::new(InstantServer::default());
    let greenroom = start(unlimited(), &server);
    launch_all(&greenroom, 0..count, 10, 20).await;
    server.until_prompted(count).await;
    let sessions = (0..count).map(|number| SessionId::from(format!("ses_{number:010}")));
    let sessions = sessions.collect();
    // Waits until the actors have handled the prompts.
    for _ in 0..16 {
        greenroom.task_counts().await;
    }
    (greenroom, sessions)
}

/// Measures typed events to that many running tasks in turn.
pub fn typed(count: usize) -> Round {
    run_on_this_thread(async move {
        let (greenroom, sessions) = running(count).await;
        let event = |number: usize| SessionEvent {
            session: sessions[number % count].clone(),
            kind: SessionEventKind::Delta { message: None },
        };
        for number in 0..count.min(10_000) {
            greenroom.ingest_event(event(number)).await;
        }
        greenroom.task_counts().await;
        let begin = processor_time();
        for number in 0..EVENTS {
            greenroom.ingest_event(event(number)).await;
        }
        greenroom.task_counts().await;
        tokio::task::yield_now().await;
        let rate = EVENTS as f64 / (processor_time() - begin).as_secs_f64();
        Round::compared(rate, bare::messages_per_second(EVENTS, count).await)
    })
}

/// Measures events as 300 bytes of JSON each, compared with parsing the JSON alone.
pub fn from_text(count: usize) -> Round {
    run_on_this_thread(async move {
        let (greenroom, sessions) = running(count).await;
        let texts: Vec<String> = sessions.iter().map(text).collect();
        greenroom.ingest_event_text(texts[0].as_bytes()).await;
        greenroom.task_counts().await;
        let begin = processor_time();
        for number in 0..EVENTS {
            greenroom
                .ingest_event_text(texts[number % count].as_bytes())
                .await;
        }
        greenroom.task_counts().await;
        tokio::task::yield_now().await;
        let rate = EVENTS as f64 / (processor_time() - begin).as_secs_f64();
        let begin = processor_time();
        for number in 0..EVENTS {
            std::hint::black_box(read(&texts[number % count]));
        }
        let bare = EVENTS as f64 / (processor_time() - begin).as_secs_f64();
        Round::compared(rate, bare)
    })
}

fn read(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("the text is JSON")
}

fn text(session: &SessionId) -> String {
    let event = serde_json::json!({
        "id": "evt_dfe2c1a8b001X9Y8Z7W6V5U4T3",
        "type": "message.part.delta",
        "properties": {
            "sessionID": session,
            "messageID": "msg_dfe2c1a8b002A1B2C3D4E5F6G7",
            "partID": "prt_dfe2c1a8b003H8I9J0K1L2M3N4",
            "field": "text",
            "delta": "some words of the agent's answer, as they come from the model here",
        },
    });
    event.to_string()
}
