//! Broken and hostile clients: their use of memory is bounded, they get the reason of their disconnect, and other bridges
//! keep working.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use greenroom_bridge::{ChannelError, Request};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, Received, Service, TIMEOUT, closed, event, send, until};

/// Asserts that a bridge still works.
async fn assert_works(service: &mut Service, client: &mut Client, number: u32) {
    send(client, json!({"type": "event", "event": event(number)})).await;
    loop {
        match service.next().await {
            Received::Event(received) if received == event(number) => return,
            Received::Event(other) => panic!("{other}"),
            Received::Link(_) | Received::InstanceEnded(..) => {}
        }
    }
}

#[actix_rt::test]
async fn huge_frame_is_not_buffered() {
    let mut service = Service::start(|_| {});
    let mut other = service.connected(1).await;
    for first in [false, true] {
        let hostile = match first {
            true => service.connect().await,
            false => service.connected(2).await,
        };
        let (mut write, mut read) = hostile.split();
        let sending = actix_rt::spawn(async move {
            // The client may fail to write all of it; the service does not buffer it.
            let _ = write.send(Message::text("x".repeat(100 << 20))).await;
        });
        match timeout(TIMEOUT, read.next()).await.unwrap() {
            Some(Ok(Message::Close(Some(close)))) => assert_eq!(u16::from(close.code), 1009),
            // A client that is disconnected during a write may see the reset before the reason.
            Some(Err(_)) | None => {}
            other => panic!("{other:?}"),
        }
        drop(read);
        sending.abort();
    }
    until("it is disconnected", || service.bridges.len() == 1).await;
    assert_works(&mut service, &mut other, 1).await;
}

#[actix_rt::test]
async fn oversized_frame_is_refused_by_its_header() {
    use tokio::io::AsyncWriteExt;
    let mut service = Service::start(|_| {});
    let mut other = service.connected(1).await;
    let mut hostile = service.connected(2).await;
    // The header of a masked text of a terabyte, and nothing more.
    let mut head = vec![0x81, 0xff];
    head.extend((1_u64 << 40).to_be_bytes());
    head.extend([0; 4]);
    hostile.get_mut().write_all(&head).await.unwrap();
    assert_eq!(closed(&mut hostile).await.0, 1009);
    assert_works(&mut service, &mut other, 1).await;
}

#[actix_rt::test]
async fn texts_of_a_hello_are_truncated() {
    let service = Service::start(|_| {});
    let mut hostile = service.connect().await;
    let long = "x".repeat(20_000);
    let hello = json!({"type": "hello", "protocol": 1, "directory": "/p", "pid": 1, "serverURL": long,
        "opencodeVersion": long});
    send(&mut hostile, hello).await;
    until("it is there", || service.bridges.len() == 1).await;
    let known = service.bridges.list().remove(0);
    assert_eq!(known.server_url.unwrap().len(), 500);
    assert_eq!(known.opencode_version.unwrap().len(), 500);
}

#[actix_rt::test]
async fn sockets_without_a_hello_keep_no_bridge_out() {
    let mut service = Service::start(|options| options.limits.handshakes = 8);
    let mut other = service.connected(1).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(service.connect().await);
    }
    let mut late = service.connected(2).await;
    assert_works(&mut service, &mut other, 1).await;
    assert_works(&mut service, &mut late, 2).await;
    for displaced in &mut silent[..32] {
        assert_eq!(closed(displaced).await.0, 1013);
    }
    // The newest of them is still served.
    let mut newest = silent.pop().unwrap();
    send(&mut newest, crate::support::hello(3)).await;
    until("it is there", || service.bridges.len() == 3).await;
}

#[actix_rt::test]
async fn few_bytes_are_read_before_the_hello() {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    let service = Service::start(|options| {
        options.limits.hello_timeout = Duration::from_millis(500);
    });
    // A first frame larger than a hello.
    let mut hostile = service.connect().await;
    send(
        &mut hostile,
        json!({"type": "hello", "directory": "x".repeat(70_000)}),
    )
    .await;
    assert_eq!(closed(&mut hostile).await.0, 1009);
    // Parts of a message that does not end: they are not read, and no hello arrives.
    let mut hostile = service.connect().await;
    for number in 0..10 {
        let code = if number == 0 {
            Data::Text
        } else {
            Data::Continue
        };
        let part = Frame::message(vec![b'x'; 20_000], OpCode::Data(code), false);
        hostile.send(Message::Frame(part)).await.unwrap();
    }
    assert_eq!(closed(&mut hostile).await.0, 1008);
}

#[actix_rt::test]
async fn frames_sent_together_with_the_hello_are_read() {
    let mut service = Service::start(|_| {});
    let mut client = service.connect().await;
    client
        .feed(Message::text(crate::support::hello(1).to_string()))
        .await
        .unwrap();
    for number in 0..1000 {
        let mut event = event(number);
        event["properties"]["filler"] = Value::from("x".repeat(1000));
        let frame = json!({"type": "event", "event": event});
        client.feed(Message::text(frame.to_string())).await.unwrap();
    }
    client.flush().await.unwrap();
    for number in 0..1000 {
        loop {
            match service.next().await {
                Received::Event(event) => {
                    let session = format!("ses_{number}");
                    assert_eq!(event["properties"]["sessionID"], session.as_str());
                    break;
                }
                Received::Link(_) | Received::InstanceEnded(..) => {}
            }
        }
    }
}

#[actix_rt::test]
async fn message_of_many_frames_is_limited() {
    let mut service = Service::start(|options| options.limits.frame = 100_000);
    let mut other = service.connected(1).await;
    let mut hostile = service.connected(2).await;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    let part =
        |code, last| Message::Frame(Frame::message(vec![b'x'; 50_000], OpCode::Data(code), last));
    for number in 0..4 {
        let code = if number == 0 {
            Data::Text
        } else {
            Data::Continue
        };
        let _ = hostile.send(part(code, false)).await;
    }
    assert_eq!(closed(&mut hostile).await.0, 1009);
    assert_works(&mut service, &mut other, 1).await;
}

#[actix_rt::test]
async fn event_flood_is_held_back_and_loses_nothing() {
    let mut service = Service::start(|_| {});
    let mut flood = service.connected(1).await;
    service.next().await;
    // The sink accepts nothing.
    let permits = service.recorder.permits.acquire_many(1000).await.unwrap();
    permits.forget();
    let (sent, progress) = tokio::sync::watch::channel(0_u32);
    let flooding = actix_rt::spawn(async move {
        let delta = |number: u32| {
            let session = format!("ses_d{}", number % 10);
            let padding = "x".repeat(200);
            json!({"type": "message.part.delta", "properties": {"sessionID": session, "delta": padding}})
        };
        for number in 0..200_000_u32 {
            let event = match number % 1000 {
                0 => event(number),
                1 => json!({"type": "catalog.updated", "properties": {}}),
                _ => delta(number),
            };
            flood
                .send(Message::text(
                    json!({"type": "event", "event": event}).to_string(),
                ))
                .await
                .unwrap();
            sent.send_replace(number);
        }
        flood
    });
    // The first event blocks the socket; the buffers of the system are small, and then the flood stops.
    let mut last = u32::MAX;
    while last != *progress.borrow() {
        last = *progress.borrow();
        let _ = timeout(Duration::from_millis(500), progress.clone().changed()).await;
    }
    assert!(last < 100_000, "{last} of 200000 were taken in");
    let mut other = service.connected(2).await;
    service.recorder.permits.add_permits(1_000_000);
    let (mut idle, mut deltas) = (Vec::new(), 0);
    while idle.len() < 200 {
        match service.next().await {
            Received::Event(event) if event["type"] == "session.idle" => idle.push(event),
            Received::Event(_) => deltas += 1,
            Received::Link(_) | Received::InstanceEnded(..) => {}
        }
    }
    let wanted: Vec<Value> = (0..200).map(|number| event(number * 1000)).collect();
    assert_eq!(idle, wanted);
    let flood = timeout(TIMEOUT, flooding).await.unwrap().unwrap();
    assert!(deltas < 20_000, "{deltas} deltas were passed on");
    drop(flood);
    until("all is read", || service.bridges.len() == 1).await;
    while service.received.try_recv().is_ok() {}
    assert_works(&mut service, &mut other, 1).await;
}

#[actix_rt::test]
async fn bridge_that_does_not_read_is_disconnected() {
    let mut service = Service::start(|options| {
        options.limits.write_timeout = Duration::from_millis(300);
        options.limits.reconnect_grace = Duration::from_millis(30);
    });
    let mut other = service.connected(1).await;
    let deaf = service.connected(2).await;
    let channels = service.bridges.channels();
    let asks: Vec<_> = (0..1000)
        .map(|_| {
            let channel = channels[1].clone();
            actix_rt::spawn(async move {
                let body = json!("x".repeat(64 << 10));
                let request = Request {
                    method: "POST",
                    path: "/session",
                    query: &BTreeMap::new(),
                    body: Some(&body),
                    limit: TIMEOUT,
                };
                channel.request(request).await
            })
        })
        .collect();
    let mut statuses = BTreeMap::new();
    for ask in asks {
        let fate = match timeout(TIMEOUT, ask).await.unwrap().unwrap().unwrap_err() {
            ChannelError::Overloaded => "overloaded",
            ChannelError::ConnectionLost => "cut",
            ChannelError::Disconnected { .. } => "gone",
            other => panic!("{other:?}"),
        };
        *statuses.entry(fate).or_insert(0) += 1;
    }
    // Sixteen mebibytes of them were queued, and the rest was refused at once.
    assert!(statuses["overloaded"] > 500, "{statuses:?}");
    assert!(statuses["cut"] > 0, "{statuses:?}");
    until("it is disconnected", || service.bridges.len() == 1).await;
    assert_works(&mut service, &mut other, 1).await;
    drop(deaf);
}

#[actix_rt::test]
async fn malformed_frames_are_answered_while_answers_are_read() {
    let mut service =
        Service::start(|options| options.limits.write_timeout = Duration::from_millis(300));
    let mut other = service.connected(1).await;
    let mut hostile = service.connected(2).await;
    let flood = async {
        loop {
            if hostile.send(Message::text("{".repeat(100))).await.is_err() {
                return;
            }
        }
    };
    timeout(TIMEOUT, flood).await.expect("it is cut off");
    until("it is disconnected", || service.bridges.len() == 1).await;
    assert_works(&mut service, &mut other, 1).await;
}
