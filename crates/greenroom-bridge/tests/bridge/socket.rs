//! A socket from its hello to its close: frames in both directions, and events at the sink.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use greenroom::EventLink;
use greenroom_bridge::Token;
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{Received, Service, TIMEOUT, closed, event, hello, receive, send, until};

#[actix_rt::test]
async fn events_reach_the_sink_in_order_after_a_hello() {
    let mut service = Service::start(|_| {});
    let mut client = service.connected(1).await;
    assert_eq!(service.next().await, Received::Link(EventLink::Connected));
    for number in 0..50 {
        send(
            &mut client,
            json!({"type": "event", "event": event(number)}),
        )
        .await;
    }
    for number in 0..50 {
        assert_eq!(service.next().await, Received::Event(event(number)));
    }
    assert_eq!(service.bridges.list()[0].directory, "/project");
}

#[actix_rt::test]
async fn unknown_types_are_ignored_and_malformed_frames_answered() {
    let mut service = Service::start(|_| {});
    let mut client = service.connected(1).await;
    send(&mut client, json!({"type": "fromALaterPlugin", "field": 1})).await;
    client.send(Message::text("{broken")).await.unwrap();
    send(&mut client, json!({"type": "event", "event": 7})).await;
    client.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    send(&mut client, hello(1)).await;
    send(&mut client, json!({"type": "event", "event": event(1)})).await;
    for expected in ["JSON", "event", "JSON", "already"] {
        let frame = receive(&mut client).await;
        assert_eq!(frame["type"], "error");
        assert!(
            frame["message"].as_str().unwrap().contains(expected),
            "{expected}: {frame}"
        );
    }
    assert_eq!(service.next().await, Received::Link(EventLink::Connected));
    assert_eq!(service.next().await, Received::Event(event(1)));
}

#[actix_rt::test]
async fn first_frame_must_be_a_hello() {
    let service = Service::start(|_| {});
    for first in [
        json!({"type": "event", "event": event(1)}),
        json!({"type": "hello", "pid": 1}),
        json!([1]),
    ] {
        let mut client = service.connect().await;
        send(&mut client, first).await;
        let (code, errors) = closed(&mut client).await;
        assert_eq!(code, 1008);
        assert!(errors[0].contains("hello"), "{errors:?}");
    }
    let mut client = service.connect().await;
    send(
        &mut client,
        json!({"type": "hello", "protocol": 2, "directory": "/p", "pid": 1}),
    )
    .await;
    let (code, errors) = closed(&mut client).await;
    assert_eq!(code, 1008);
    assert!(errors[0].contains("protocol 1"), "{errors:?}");
}

#[actix_rt::test]
async fn socket_without_a_hello_is_closed() {
    let service =
        Service::start(|options| options.limits.hello_timeout = Duration::from_millis(50));
    let mut client = service.connect().await;
    let (code, errors) = closed(&mut client).await;
    assert_eq!(code, 1008);
    assert_eq!(errors, ["no hello within 50ms"]);
}

#[actix_rt::test]
async fn token_is_required_in_the_hello_or_as_a_header() {
    let service = Service::start(|options| options.token = Token::new("s3cret"));
    let with_token = |token: &str| {
        let mut frame = hello(1);
        frame["token"] = json!(token);
        frame
    };
    for wrong in [hello(1), with_token("guess")] {
        let mut client = service.connect().await;
        send(&mut client, wrong).await;
        let (code, errors) = closed(&mut client).await;
        assert_eq!(
            (code, errors),
            (1008, vec!["the token is not this service's".to_owned()])
        );
    }
    let mut client = service.connect().await;
    send(&mut client, with_token("s3cret")).await;
    assert_eq!(receive(&mut client).await["type"], "welcome");

    let bearer = |token: &str| {
        let mut request = service.url.as_str().into_client_request().unwrap();
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    let (mut client, _) = connect_async(bearer("s3cret")).await.unwrap();
    send(&mut client, hello(2)).await;
    assert_eq!(receive(&mut client).await["type"], "welcome");
    match connect_async(bearer("guess")).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 401),
        other => panic!("{other:?}"),
    }
}

#[actix_rt::test]
async fn oversized_frame_closes_with_1009() {
    let service = Service::start(|options| options.limits.frame = 1000);
    let mut client = service.connected(1).await;
    send(
        &mut client,
        json!({"type": "event", "event": {"text": "x".repeat(2000)}}),
    )
    .await;
    assert_eq!(closed(&mut client).await.0, 1009);
}

#[actix_rt::test]
async fn frame_limit_is_four_mebibytes() {
    let mut service = Service::start(|_| {});
    let sized = |size: usize| {
        let empty = json!({"type": "event", "event": {"type": "session.updated", "text": ""}})
            .to_string()
            .len();
        json!({"type": "event", "event": {"type": "session.updated", "text": "x".repeat(size - empty)}})
    };
    let mut client = service.connected(1).await;
    assert_eq!(service.next().await, Received::Link(EventLink::Connected));
    send(&mut client, sized(4 * 1024 * 1024)).await;
    assert!(matches!(service.next().await, Received::Event(_)));
    // The writer may find the socket closed before it has written all.
    let _ = client
        .send(Message::text(sized(4 * 1024 * 1024 + 1).to_string()))
        .await;
    assert_eq!(closed(&mut client).await.0, 1009);
}

#[actix_rt::test]
async fn bridge_is_pinged_and_closed_when_idle() {
    let service = Service::start(|options| {
        options.limits.ping_interval = Duration::from_millis(40);
        options.limits.idle_timeout = Duration::from_millis(400);
    });
    let mut client = service.connected(1).await;
    // Reading answers pings: after more than the idle time-out it is still connected.
    let mut pings = 0;
    while pings < 15 {
        match timeout(TIMEOUT, client.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
        {
            Message::Ping(_) => pings += 1,
            other => panic!("{other:?}"),
        }
    }
    // Without reading, pings are not answered.
    let bridges = service.bridges.clone();
    timeout(TIMEOUT, async {
        while !bridges.is_empty() {
            actix_rt::task::yield_now().await;
        }
    })
    .await
    .expect("the idle bridge is disconnected");
}

#[actix_rt::test]
async fn disposed_instance_is_reported_before_the_events_that_follow() {
    let mut service = Service::start(|_| {});
    let mut client = service.connected(1).await;
    assert_eq!(service.next().await, Received::Link(EventLink::Connected));
    send(&mut client, json!({"type": "event", "event": event(1)})).await;
    send(&mut client, json!({"type": "disposing"})).await;
    send(&mut client, json!({"type": "event", "event": event(2)})).await;
    let ended = || Received::InstanceEnded(1, "/project".to_owned());
    for expected in [
        Received::Event(event(1)),
        ended(),
        Received::Event(event(2)),
    ] {
        assert_eq!(service.next().await, expected);
    }
    // The lost connection is an end too.
    drop(client);
    assert_eq!(service.next().await, ended());
}

#[actix_rt::test]
async fn replaced_bridge_and_shutdown_end_no_instance() {
    let mut service = Service::start(|_| {});
    let mut older = service.connected(1).await;
    let mut newer = service.connected(1).await;
    assert_eq!(closed(&mut older).await.0, 4001);
    send(&mut newer, json!({"type": "event", "event": event(1)})).await;
    for expected in [
        Received::Link(EventLink::Connected),
        Received::Link(EventLink::Connected),
        Received::Event(event(1)),
    ] {
        assert_eq!(service.next().await, expected);
    }
    service.bridges.close();
    assert_eq!(closed(&mut newer).await.0, 1001);
    let bridges = service.bridges.clone();
    until("it is disconnected", || bridges.is_empty()).await;
    assert!(service.received.try_recv().is_err());
}

#[actix_rt::test]
async fn newer_bridge_of_a_process_replaces_the_older() {
    let service = Service::start(|_| {});
    let mut older = service.connected(1).await;
    let mut newer = service.connected(1).await;
    assert_eq!(closed(&mut older).await.0, 4001);
    send(&mut newer, json!({"type": "event"})).await;
    assert_eq!(
        receive(&mut newer).await["type"],
        "error",
        "it is still served"
    );
    assert_eq!(service.bridges.len(), 1);
}

#[actix_rt::test]
async fn bridge_over_the_limit_is_refused() {
    let service = Service::start(|options| options.limits.bridges = 1);
    let _first = service.connected(1).await;
    let mut second = service.connect().await;
    send(&mut second, hello(2)).await;
    assert_eq!(closed(&mut second).await.0, 1013);
}

#[actix_rt::test]
async fn last_disconnect_breaks_the_link_of_an_only_source() {
    let mut service = Service::start(|options| options.only_source = true);
    let first = service.connected(1).await;
    let second = service.connected(2).await;
    drop(first);
    let ended = |pid| Received::InstanceEnded(pid, "/project".to_owned());
    let connected = || Received::Link(EventLink::Connected);
    for expected in [connected(), connected(), ended(1)] {
        assert_eq!(service.next().await, expected);
    }
    drop(second);
    for expected in [ended(2), Received::Link(EventLink::Broken)] {
        assert_eq!(service.next().await, expected);
    }
}

#[actix_rt::test]
async fn slow_sink_is_not_idle_time() {
    let mut service = Service::start(|options| {
        options.limits.ping_interval = Duration::from_millis(20);
        options.limits.idle_timeout = Duration::from_millis(100);
    });
    let mut client = service.connected(1).await;
    assert_eq!(service.next().await, Received::Link(EventLink::Connected));
    let taken = service.recorder.permits.acquire_many(1000).await.unwrap();
    taken.forget();
    send(&mut client, json!({"type": "event", "event": event(1)})).await;
    // Pinged for more than the idle time-out, while the event waits for the sink.
    for _ in 0..10 {
        assert!(matches!(
            timeout(TIMEOUT, client.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap(),
            Message::Ping(_)
        ));
    }
    service.recorder.permits.add_permits(1);
    assert_eq!(service.next().await, Received::Event(event(1)));
    assert_eq!(service.bridges.len(), 1);
}

#[actix_rt::test]
async fn plain_http_request_gets_an_error() {
    let service = Service::start(|_| {});
    let address = service
        .url
        .trim_start_matches("ws://")
        .trim_end_matches("/v1/bridge")
        .to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request =
        format!("GET /v1/bridge HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains(r#""code":"not_a_websocket""#), "{answer}");
}

#[actix_rt::test]
async fn shutdown_closes_the_sockets() {
    let service = Service::start(|_| {});
    let mut client = service.connected(1).await;
    let mut silent = service.connect().await;
    service.bridges.close();
    assert_eq!(closed(&mut client).await.0, 1001);
    assert_eq!(closed(&mut silent).await.0, 1001);
}
