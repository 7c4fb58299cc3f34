//! Clients that are broken or mean no good: what they can take is bounded, they are told why they are cut off, and others
//! notice nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use greenroom_bridge::{LineError, Request};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, PATIENCE, Seen, Service, closed, event, say, until};

/// That bridge still works.
async fn works(service: &mut Service, client: &mut Client, number: u32) {
    say(client, json!({"type": "event", "event": event(number)})).await;
    loop {
        match service.next().await {
            Seen::Event(seen) if seen == event(number) => return,
            Seen::Event(other) => panic!("{other}"),
            Seen::Link(_) => {}
        }
    }
}

#[actix_rt::test]
async fn a_frame_of_a_hundred_megabytes_is_not_taken_in() {
    let mut service = Service::start(|_| {});
    let mut other = service.greeted(1).await;
    for first in [false, true] {
        let hostile = match first {
            true => service.connect().await,
            false => service.greeted(2).await,
        };
        let (mut write, mut read) = hostile.split();
        let sending = actix_rt::spawn(async move {
            // Whether it gets rid of all of it does not matter: nobody keeps it.
            let _ = write.send(Message::text("x".repeat(100 << 20))).await;
        });
        match timeout(PATIENCE, read.next()).await.unwrap() {
            Some(Ok(Message::Close(Some(close)))) => assert_eq!(u16::from(close.code), 1009),
            // Who is cut off in the middle of a write may hear of the cut before its reason.
            Some(Err(_)) | None => {}
            other => panic!("{other:?}"),
        }
        drop(read);
        sending.abort();
    }
    until("it has lost its place", || service.bridges.len() == 1).await;
    works(&mut service, &mut other, 1).await;
}

#[actix_rt::test]
async fn a_frame_that_announces_too_much_is_refused_before_it_comes() {
    use tokio::io::AsyncWriteExt;
    let mut service = Service::start(|_| {});
    let mut other = service.greeted(1).await;
    let mut hostile = service.greeted(2).await;
    // The head of a masked text of a terabyte, and nothing more.
    let mut head = vec![0x81, 0xff];
    head.extend((1_u64 << 40).to_be_bytes());
    head.extend([0; 4]);
    hostile.get_mut().write_all(&head).await.unwrap();
    assert_eq!(closed(&mut hostile).await.0, 1009);
    works(&mut service, &mut other, 1).await;
}

#[actix_rt::test]
async fn what_a_bridge_says_of_itself_is_kept_in_short() {
    let service = Service::start(|_| {});
    let mut hostile = service.connect().await;
    let long = "x".repeat(1 << 20);
    let hello = json!({"type": "hello", "protocol": 1, "directory": "/p", "pid": 1, "serverURL": long,
        "opencodeVersion": long});
    say(&mut hostile, hello).await;
    until("it is there", || service.bridges.len() == 1).await;
    let known = service.bridges.list().remove(0);
    assert_eq!(known.server_url.unwrap().len(), 500);
    assert_eq!(known.opencode_version.unwrap().len(), 500);
}

#[actix_rt::test]
async fn a_message_of_many_frames_is_no_way_around_the_limit() {
    let mut service = Service::start(|options| options.limits.frame = 100_000);
    let mut other = service.greeted(1).await;
    let mut hostile = service.greeted(2).await;
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
    works(&mut service, &mut other, 1).await;
}

#[actix_rt::test]
async fn two_hundred_thousand_events_wait_outside_and_nothing_that_matters_is_lost() {
    let mut service = Service::start(|_| {});
    let mut flood = service.greeted(1).await;
    service.next().await;
    // Nobody takes anything in.
    let room = service.recorder.room.acquire_many(1000).await.unwrap();
    room.forget();
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
    // The first event holds the socket back; what the system's own buffers take is little, and then the flood stands.
    let mut last = u32::MAX;
    while last != *progress.borrow() {
        last = *progress.borrow();
        let _ = timeout(Duration::from_millis(500), progress.clone().changed()).await;
    }
    assert!(last < 100_000, "{last} of 200000 were taken in");
    let mut other = service.greeted(2).await;
    service.recorder.room.add_permits(1_000_000);
    let (mut idle, mut deltas) = (Vec::new(), 0);
    while idle.len() < 200 {
        match service.next().await {
            Seen::Event(event) if event["type"] == "session.idle" => idle.push(event),
            Seen::Event(_) => deltas += 1,
            Seen::Link(_) => {}
        }
    }
    let wanted: Vec<Value> = (0..200).map(|number| event(number * 1000)).collect();
    assert_eq!(idle, wanted);
    let flood = timeout(PATIENCE, flooding).await.unwrap().unwrap();
    assert!(deltas < 20_000, "{deltas} deltas were passed on");
    drop(flood);
    until("all is read", || service.bridges.len() == 1).await;
    while service.seen.try_recv().is_ok() {}
    works(&mut service, &mut other, 1).await;
}

#[actix_rt::test]
async fn a_bridge_that_reads_nothing_is_cut_off_and_holds_up_nobody() {
    let mut service = Service::start(|options| {
        options.limits.write_within = Duration::from_millis(300);
        options.limits.linger = Duration::from_millis(30);
    });
    let mut other = service.greeted(1).await;
    let deaf = service.greeted(2).await;
    let lines = service.bridges.lines();
    let asks: Vec<_> = (0..1000)
        .map(|_| {
            let line = lines[1].clone();
            actix_rt::spawn(async move {
                let body = json!("x".repeat(64 << 10));
                let request = Request {
                    method: "POST",
                    path: "/session",
                    query: &BTreeMap::new(),
                    body: Some(&body),
                    limit: PATIENCE,
                };
                line.request(request).await
            })
        })
        .collect();
    let mut fates = BTreeMap::new();
    for ask in asks {
        let fate = match timeout(PATIENCE, ask).await.unwrap().unwrap().unwrap_err() {
            LineError::Overloaded => "no room",
            LineError::Cut => "cut",
            LineError::Gone { .. } => "gone",
            other => panic!("{other:?}"),
        };
        *fates.entry(fate).or_insert(0) += 1;
    }
    // Sixteen mebibytes of them waited, and the rest was refused at once.
    assert!(fates["no room"] > 500, "{fates:?}");
    assert!(fates["cut"] > 0, "{fates:?}");
    until("it has lost its place", || service.bridges.len() == 1).await;
    works(&mut service, &mut other, 1).await;
    drop(deaf);
}

#[actix_rt::test]
async fn garbage_without_end_is_answered_as_long_as_the_answers_are_read() {
    let mut service =
        Service::start(|options| options.limits.write_within = Duration::from_millis(300));
    let mut other = service.greeted(1).await;
    let mut hostile = service.greeted(2).await;
    let flood = async {
        loop {
            if hostile.send(Message::text("{".repeat(100))).await.is_err() {
                return;
            }
        }
    };
    timeout(PATIENCE, flood).await.expect("it is cut off");
    until("it has lost its place", || service.bridges.len() == 1).await;
    works(&mut service, &mut other, 1).await;
}
