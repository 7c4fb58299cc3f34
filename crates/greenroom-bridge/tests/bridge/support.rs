//! A service with a recording sink, and a client in the role of the plugin.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::{App, HttpServer};
use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use greenroom::EventLink;
use greenroom::domain::event_filter::ForwardedEvent;
use greenroom::domain::ids::SessionId;
use greenroom_bridge::{
    BridgeInfo, BridgeKey, BridgeOptions, BridgeRegistry, EventSink, configure,
};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub type Client = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

pub const TIMEOUT: Duration = Duration::from_secs(20);

/// What reached the sink.
#[derive(Debug, PartialEq)]
pub enum Received {
    Event(Value),
    Link(EventLink),
    /// An instance of a process has ended.
    InstanceEnded(u32, String),
}

pub struct Recorder {
    /// The sessions that processes named.
    pub named: Mutex<Vec<(u32, String)>>,
    received: Mutex<mpsc::UnboundedSender<Received>>,
    // Each event takes one; without any the sink waits.
    pub permits: Semaphore,
}

#[async_trait]
impl EventSink for Recorder {
    async fn event(&self, _: &BridgeKey, event: ForwardedEvent<'_>) {
        self.permits.acquire().await.unwrap().forget();
        self.received
            .lock()
            .unwrap()
            .send(Received::Event(event.value().unwrap()))
            .unwrap();
    }

    fn link(&self, link: EventLink) {
        self.received
            .lock()
            .unwrap()
            .send(Received::Link(link))
            .unwrap();
    }

    fn instance_ended(&self, bridge: &BridgeInfo) {
        let ended = Received::InstanceEnded(bridge.pid, bridge.directory.clone());
        // The test may be over.
        let _ = self.received.lock().unwrap().send(ended);
    }

    fn session_named(&self, by: &BridgeKey, session: &SessionId) -> bool {
        let named = (by.pid, session.to_string());
        self.named.lock().unwrap().push(named);
        true
    }
}

pub struct Service {
    pub url: String,
    pub received: mpsc::UnboundedReceiver<Received>,
    pub recorder: Arc<Recorder>,
    pub bridges: BridgeRegistry,
}

impl Service {
    pub fn start(change: impl FnOnce(&mut BridgeOptions)) -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        let recorder = Arc::new(Recorder {
            named: Mutex::default(),
            received: Mutex::new(sender),
            permits: Semaphore::new(1000),
        });
        let mut options = BridgeOptions::new(recorder.clone(), "gr_test");
        change(&mut options);
        let bridges = options.bridges.clone();
        let server =
            HttpServer::new(move || App::new().configure(|cfg| configure(cfg, options.clone())))
                .workers(1)
                .disable_signals()
                .bind("127.0.0.1:0")
                .unwrap();
        let url = format!("ws://{}/v1/bridge", server.addrs()[0]);
        actix_web::rt::spawn(server.run());
        Self {
            url,
            received,
            recorder,
            bridges,
        }
    }

    pub async fn connect(&self) -> Client {
        connect_async(&self.url).await.unwrap().0
    }

    pub async fn connected(&self, pid: u32) -> Client {
        let mut client = self.connect().await;
        send(&mut client, hello(pid)).await;
        assert_eq!(
            receive(&mut client).await,
            json!({"type": "welcome", "protocol": 1, "instance": "gr_test"})
        );
        client
    }

    pub async fn next(&mut self) -> Received {
        timeout(TIMEOUT, self.received.recv())
            .await
            .expect("the sink is called")
            .unwrap()
    }
}

pub fn hello(pid: u32) -> Value {
    json!({"type": "hello", "protocol": 1, "directory": "/project", "pid": pid})
}

pub fn event(number: u32) -> Value {
    json!({"type": "session.idle", "properties": {"sessionID": format!("ses_{number}")}})
}

pub async fn send(client: &mut Client, frame: Value) {
    send_text(client, frame.to_string()).await;
}

pub async fn send_text(client: &mut Client, text: String) {
    client.send(Message::text(text)).await.unwrap();
}

/// A value that is nested too deep to be read.
pub fn deep() -> String {
    format!("{}{}", "[".repeat(500), "]".repeat(500))
}

/// Returns the next text frame.
pub async fn receive(client: &mut Client) -> Value {
    loop {
        match timeout(TIMEOUT, client.next())
            .await
            .expect("a frame comes")
            .unwrap()
            .unwrap()
        {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Returns the close code, and the error frames before it.
pub async fn closed(client: &mut Client) -> (u16, Vec<String>) {
    let mut errors = Vec::new();
    loop {
        match timeout(TIMEOUT, client.next()).await.expect("it is closed") {
            Some(Ok(Message::Text(text))) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                errors.push(frame["message"].as_str().unwrap().to_owned());
            }
            Some(Ok(Message::Close(Some(close)))) => return (close.code.into(), errors),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("{other:?} after {errors:?}"),
        }
    }
}

/// Waits for a condition.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    let watch = async {
        while !so() {
            actix_rt::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, watch)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}
