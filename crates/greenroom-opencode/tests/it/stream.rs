//! The event stream over real connections: pieces, lost connections, reconnects, stop.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Reply, SinkCall, Stub, recording_sink};
use greenroom::EventLink::{Broken, Connected};
use greenroom_opencode::{EventStream, OpencodeServer, ServerAddress, StreamTuning};
use serde_json::{Value, json};

fn tuning() -> StreamTuning {
    StreamTuning {
        first_wait: Duration::from_millis(10),
        longest_wait: Duration::from_millis(50),
        seed: Some(1),
        ..StreamTuning::default()
    }
}

fn event(kind: &str) -> Value {
    json!({"id": "evt_1", "type": kind, "properties": {"sessionID": "ses_1"}})
}

fn sent(payload: &Value) -> Vec<u8> {
    format!(
        "data: {}\n\n",
        json!({"directory": "/d", "project": "p", "payload": payload})
    )
    .into_bytes()
}

fn connected() -> Vec<u8> {
    sent(&json!({"type": "server.connected", "properties": {}}))
}

/// A server with a healthy `/global/health` and streams that are scripted by their number.
async fn stub(stream: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Stub {
    let streams = AtomicUsize::new(0);
    Stub::start(move |request| match request.target.as_str() {
        "/global/health" => Reply::Status(200, r#"{"healthy":true}"#.to_owned()),
        "/global/event" => stream(streams.fetch_add(1, Ordering::SeqCst)),
        other => Reply::Status(404, other.to_owned()),
    })
    .await
}

fn server(stub: &Stub) -> OpencodeServer {
    OpencodeServer::new(ServerAddress::new(&stub.url, "/d")).unwrap()
}

#[tokio::test]
async fn lost_stream_is_reported_and_reconnected() {
    let stub = stub(|number| match number {
        0 => Reply::Stream {
            pieces: vec![connected(), sent(&event("session.idle"))],
            open: false,
        },
        1 => Reply::Status(500, String::new()),
        2 => Reply::Raw(Vec::new()),
        _ => Reply::Stream {
            pieces: vec![connected(), sent(&event("session.error"))],
            open: true,
        },
    })
    .await;
    let (sink, mut calls) = recording_sink();
    let stream = EventStream::start(server(&stub), sink, tuning());
    let expected = [
        SinkCall::Link(Connected),
        SinkCall::Event(event("session.idle")),
        SinkCall::Link(Broken),
        SinkCall::Link(Connected),
        SinkCall::Event(event("session.error")),
    ];
    for call in expected {
        assert_eq!(calls.next().await, call);
    }
    stream.stop().await;
}

#[tokio::test]
async fn events_are_decoded_from_pieces_with_any_line_ends() {
    let mut bytes = connected();
    bytes.extend(sent(&event("session.created")));
    bytes.extend(
        String::from_utf8(sent(&event("session.updated")))
            .unwrap()
            .replace('\n', "\r\n")
            .into_bytes(),
    );
    let pieces: Vec<Vec<u8>> = bytes.chunks(7).map(<[u8]>::to_vec).collect();
    let stub = stub(move |_| Reply::Stream {
        pieces: pieces.clone(),
        open: true,
    })
    .await;
    let (sink, mut calls) = recording_sink();
    let _stream = EventStream::start(server(&stub), sink, tuning());
    for call in [
        SinkCall::Link(Connected),
        SinkCall::Event(event("session.created")),
        SinkCall::Event(event("session.updated")),
    ] {
        assert_eq!(calls.next().await, call);
    }
}

#[tokio::test]
async fn unreachable_server_is_a_broken_link() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = ServerAddress::new(format!("http://{}", listener.local_addr().unwrap()), "/d");
    drop(listener);
    let (sink, mut calls) = recording_sink();
    let _stream = EventStream::start(OpencodeServer::new(address).unwrap(), sink, tuning());
    assert_eq!(calls.next().await, SinkCall::Link(Broken));
}

#[tokio::test]
async fn repeated_failures_are_reported_once() {
    let stub = stub(|number| match number {
        0..4 => Reply::Status(503, String::new()),
        _ => Reply::Stream {
            pieces: vec![connected()],
            open: true,
        },
    })
    .await;
    let (sink, mut calls) = recording_sink();
    let _stream = EventStream::start(server(&stub), sink, tuning());
    assert_eq!(calls.next().await, SinkCall::Link(Broken));
    assert_eq!(calls.next().await, SinkCall::Link(Connected));
}

#[tokio::test]
async fn stream_without_events_is_reconnected() {
    let stub = stub(|number| match number {
        0 => Reply::Stream {
            pieces: vec![],
            open: true,
        },
        _ => Reply::Stream {
            pieces: vec![connected()],
            open: true,
        },
    })
    .await;
    let (sink, mut calls) = recording_sink();
    let tuning = StreamTuning {
        connect: Duration::from_millis(300),
        ..tuning()
    };
    let _stream = EventStream::start(server(&stub), sink, tuning);
    assert_eq!(calls.next().await, SinkCall::Link(Broken));
    assert_eq!(calls.next().await, SinkCall::Link(Connected));
}

#[tokio::test]
async fn sink_is_not_called_after_a_stop() {
    let forever: Vec<Vec<u8>> = std::iter::once(connected())
        .chain((0..500).map(|_| sent(&event("session.idle"))))
        .collect();
    let stub = stub(move |_| Reply::Stream {
        pieces: forever.clone(),
        open: true,
    })
    .await;
    let (sink, mut calls) = recording_sink();
    let stream = EventStream::start(server(&stub), sink, tuning());
    calls.link(Connected).await;
    stream.stop().await;
    let received = calls.rest().await.len();
    assert!(received < 500, "the stream was not stopped in its middle");
}

#[tokio::test]
async fn reconnect_now_ends_the_wait() {
    let stub = stub(|number| match number {
        0 => Reply::Status(503, String::new()),
        _ => Reply::Stream {
            pieces: vec![connected()],
            open: true,
        },
    })
    .await;
    let (sink, mut calls) = recording_sink();
    let hour = Duration::from_secs(3600);
    let stream = EventStream::start(
        server(&stub),
        sink,
        StreamTuning {
            first_wait: hour,
            longest_wait: hour,
            ..tuning()
        },
    );
    calls.link(Broken).await;
    stream.reconnect_now();
    calls.link(Connected).await;
}
