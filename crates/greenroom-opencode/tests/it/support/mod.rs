//! A scripted HTTP server on a free loopback port, for faults of a server: lost connections, truncated
//! responses, silence. Each test starts its own; it ends when dropped.

pub mod model;
pub mod opencode;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::EventLink;
use greenroom::domain::event_filter::ForwardedEvent;
use greenroom_opencode::EventSink;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query as sent, percent-encoding kept.
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The reply to a request. The connection is closed after each.
pub enum Reply {
    Status(u16, String),
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// The headers of a stream and then these pieces, each in a separate packet; `open` keeps it open after them.
    Stream {
        pieces: Vec<Vec<u8>>,
        open: bool,
    },
    /// Never answers.
    Hang,
}

pub struct Stub {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Stub {
    pub async fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, reply) = (Arc::clone(&requests), Arc::new(reply));
        let task = tokio::spawn(async move {
            // Connections end with the server.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (seen, reply) = (Arc::clone(&seen), Arc::clone(&reply));
                connections.spawn(serve(stream, seen, reply));
            }
        });
        Self {
            url,
            requests,
            task,
        }
    }

    /// Starts a server with the same reply to every request.
    pub async fn always(status: u16, body: &str) -> Self {
        let body = body.to_owned();
        Self::start(move |_| Reply::Status(status, body.clone())).await
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn only_request(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<Request>>>,
    reply: Arc<impl Fn(&Request) -> Reply + Send + Sync>,
) {
    let Some(request) = read_request(&mut stream).await else {
        return;
    };
    seen.lock().unwrap().push(request.clone());
    // Writing fails if the client has disconnected.
    let _ = match reply(&request) {
        Reply::Status(status, body) => {
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream
                .write_all(&[head.as_bytes(), body.as_bytes()].concat())
                .await
        }
        Reply::Raw(bytes) => stream.write_all(&bytes).await,
        Reply::Stream { pieces, open } => {
            let head =
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(head).await;
            for piece in pieces {
                let _ = stream.write_all(&piece).await;
                // Sends the piece in a separate packet.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            if open {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        Reply::Hang => std::future::pending().await,
    };
    let _ = stream.shutdown().await;
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (
        first.next().unwrap().to_owned(),
        first.next().unwrap().to_owned(),
    );
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request {
        method,
        target,
        headers,
        body,
    })
}

/// A call of a sink.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkCall {
    Event(Value),
    Link(EventLink),
}

/// A sink that forwards its calls to a test.
pub struct RecordingSink(mpsc::UnboundedSender<SinkCall>);

/// The receiver of the calls.
pub struct SinkCalls(mpsc::UnboundedReceiver<SinkCall>);

pub fn recording_sink() -> (RecordingSink, SinkCalls) {
    let (send, receive) = mpsc::unbounded_channel();
    (RecordingSink(send), SinkCalls(receive))
}

impl EventSink for RecordingSink {
    async fn event(&self, event: ForwardedEvent<'_>) {
        let event = event.value().expect("it is JSON");
        let _ = self.0.send(SinkCall::Event(event));
    }

    fn link(&self, link: EventLink) {
        let _ = self.0.send(SinkCall::Link(link));
    }
}

impl SinkCalls {
    pub async fn next(&mut self) -> SinkCall {
        let calls = tokio::time::timeout(Duration::from_secs(30), self.0.recv()).await;
        calls.expect("a call within 30 s").expect("the sink exists")
    }

    /// Skips calls up to the next one for which `wanted` returns a value.
    pub async fn until<T>(&mut self, wanted: impl Fn(&SinkCall) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.next().await) {
                return found;
            }
        }
    }

    /// Skips calls up to the next event of that type in that session, and returns its properties.
    pub async fn event(&mut self, kind: &str, session: &str) -> Value {
        self.until(|call| match call {
            SinkCall::Event(event)
                if event["type"] == kind && event["properties"]["sessionID"] == session =>
            {
                Some(event["properties"].clone())
            }
            _ => None,
        })
        .await
    }

    /// Returns the remaining calls until the sink is dropped.
    pub async fn rest(&mut self) -> Vec<SinkCall> {
        let mut rest = Vec::new();
        while let Some(call) = tokio::time::timeout(Duration::from_secs(30), self.0.recv())
            .await
            .expect("no end")
        {
            rest.push(call);
        }
        rest
    }

    pub async fn link(&mut self, link: EventLink) {
        self.until(|call| (*call == SinkCall::Link(link)).then_some(()))
            .await;
    }
}
