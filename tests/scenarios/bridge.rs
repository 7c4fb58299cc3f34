//! Events arrive only over the websocket, as from a plugin inside the agent server: the story implements the plugin.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::harness::{EventTap, Scene, Service, id_of, until};

crate::stories![
    events_over_the_bridge_alone_end_tasks,
    frame_before_hello_is_ignored
];

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(service: &Service) -> Socket {
    let url = format!("{}/v1/bridge", service.url().replacen("http", "ws", 1));
    connect_async(url)
        .await
        .expect("the bridge accepts a connection")
        .0
}

async fn send(socket: &mut Socket, frame: &Value) {
    socket
        .send(Message::text(frame.to_string()))
        .await
        .expect("the bridge is open");
}

async fn hello(scene: &Scene) -> Socket {
    let mut socket = connect(&scene.service).await;
    let directory = scene.project.path().display().to_string();
    let frame =
        json!({"type": "hello", "protocol": 1, "directory": directory, "pid": std::process::id()});
    send(&mut socket, &frame).await;
    loop {
        let frame = socket
            .next()
            .await
            .expect("an answer")
            .expect("the bridge stays open");
        let Ok(text) = frame.to_text() else { continue };
        let Ok(frame) = serde_json::from_str::<Value>(text) else {
            continue;
        };
        if frame["type"] == "welcome" {
            assert_eq!(frame["protocol"], 1);
            return socket;
        }
    }
}

async fn events_over_the_bridge_alone_end_tasks() {
    // The poll is practically off: only events over the bridge can report an end.
    let scene = Scene::set(&["opencode.events=bridge", "lifecycle.poll_interval=1h"]).await;
    let socket = hello(&scene).await;
    let (events, mut received) = tokio::sync::mpsc::unbounded_channel();
    let _tap = EventTap::start_into(scene.opencode(), scene.project.path(), Some(events)).await;
    let (mut out, mut back) = socket.split();
    let pump = tokio::spawn(async move {
        loop {
            tokio::select! {
                event = received.recv() => {
                    let Some(event) = event else { return };
                    let frame = json!({"type": "event", "event": event});
                    if out.send(Message::text(frame.to_string())).await.is_err() {
                        return;
                    }
                }
                // Reading answers the pings.
                frame = back.next() => if !matches!(frame, Some(Ok(_))) { return },
            }
        }
    });
    let parent = scene.parent("plan").await;
    let good = scene
        .launch(Some(&parent), "[[wait 2s]][[say over the bridge]]")
        .await;
    let bad = scene.launch(Some(&parent), "[[wait 1s]][[fail 401]]").await;
    scene.service.reaches(&bad, "error").await;
    scene.service.reaches(&good, "completed").await;
    scene.notified_once(&parent, &[&good, &bad]).await;
    assert!(!pump.is_finished(), "the bridge stayed open");
    pump.abort();
}

async fn frame_before_hello_is_ignored() {
    let scene = Scene::set(&["opencode.events=bridge"]).await;
    let parent = scene.parent("build").await;
    let task = scene
        .launch_until_working(&parent, "[[wait 5s]][[say still alive]]")
        .await;
    let mut socket = connect(&scene.service).await;
    let deleted = json!({"type": "session.deleted", "properties": {"sessionID": task["sessionID"], "info": {"id": task["sessionID"]}}});
    send(&mut socket, &json!({"type": "event", "event": deleted})).await;
    until("the bridge is closed", async || match socket.next().await {
        None | Some(Err(_)) | Some(Ok(Message::Close(_))) => Some(()),
        Some(Ok(_)) => None,
    })
    .await;
    let id = id_of(&task);
    scene.service.reaches(&id, "completed").await;
    scene.notified_once(&parent, &[&id]).await;
}
