//! A socket's life: what a plugin sends, what it is told, and what reaches the sink.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use greenroom::EventLink;
use greenroom_bridge::Token;
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{PATIENCE, Seen, Service, closed, event, heard, hello, say};

#[actix_rt::test]
async fn events_reach_the_sink_in_order_after_a_hello() {
    let mut service = Service::start(|_| {});
    let mut client = service.greeted(1).await;
    assert_eq!(service.next().await, Seen::Link(EventLink::Connected));
    for number in 0..50 {
        say(
            &mut client,
            json!({"type": "event", "event": event(number)}),
        )
        .await;
    }
    for number in 0..50 {
        assert_eq!(service.next().await, Seen::Event(event(number)));
    }
    assert_eq!(service.bridges.list()[0].directory, "/project");
}

#[actix_rt::test]
async fn unknown_types_are_ignored_and_broken_frames_answered() {
    let mut service = Service::start(|_| {});
    let mut client = service.greeted(1).await;
    say(&mut client, json!({"type": "fromALaterPlugin", "field": 1})).await;
    client.send(Message::text("{broken")).await.unwrap();
    say(&mut client, json!({"type": "event", "event": 7})).await;
    client.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    say(&mut client, hello(1)).await;
    say(&mut client, json!({"type": "event", "event": event(1)})).await;
    for said in ["JSON", "event", "JSON", "already"] {
        let frame = heard(&mut client).await;
        assert_eq!(frame["type"], "error");
        assert!(
            frame["message"].as_str().unwrap().contains(said),
            "{said}: {frame}"
        );
    }
    assert_eq!(service.next().await, Seen::Link(EventLink::Connected));
    assert_eq!(service.next().await, Seen::Event(event(1)));
}

#[actix_rt::test]
async fn a_first_frame_that_is_no_hello_closes_the_socket() {
    let service = Service::start(|_| {});
    for first in [
        json!({"type": "event", "event": event(1)}),
        json!({"type": "hello", "pid": 1}),
        json!([1]),
    ] {
        let mut client = service.connect().await;
        say(&mut client, first).await;
        let (code, errors) = closed(&mut client).await;
        assert_eq!(code, 1008);
        assert!(errors[0].contains("hello"), "{errors:?}");
    }
    let mut client = service.connect().await;
    say(
        &mut client,
        json!({"type": "hello", "protocol": 2, "directory": "/p", "pid": 1}),
    )
    .await;
    let (code, errors) = closed(&mut client).await;
    assert_eq!(code, 1008);
    assert!(errors[0].contains("protocol 1"), "{errors:?}");
}

#[actix_rt::test]
async fn a_socket_that_says_no_hello_is_closed() {
    let service = Service::start(|options| options.limits.hello_within = Duration::from_millis(50));
    let mut client = service.connect().await;
    let (code, errors) = closed(&mut client).await;
    assert_eq!(code, 1008);
    assert_eq!(errors, ["no hello within 50ms"]);
}

#[actix_rt::test]
async fn a_configured_token_is_required_in_the_hello_or_as_a_header() {
    let service = Service::start(|options| options.token = Token::new("s3cret"));
    let with_token = |token: &str| {
        let mut frame = hello(1);
        frame["token"] = json!(token);
        frame
    };
    for wrong in [hello(1), with_token("guess")] {
        let mut client = service.connect().await;
        say(&mut client, wrong).await;
        let (code, errors) = closed(&mut client).await;
        assert_eq!(
            (code, errors),
            (1008, vec!["the token is not this service's".to_owned()])
        );
    }
    let mut client = service.connect().await;
    say(&mut client, with_token("s3cret")).await;
    assert_eq!(heard(&mut client).await["type"], "welcome");

    let bearer = |token: &str| {
        let mut request = service.url.as_str().into_client_request().unwrap();
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    let (mut client, _) = connect_async(bearer("s3cret")).await.unwrap();
    say(&mut client, hello(2)).await;
    assert_eq!(heard(&mut client).await["type"], "welcome");
    match connect_async(bearer("guess")).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 401),
        other => panic!("{other:?}"),
    }
}

#[actix_rt::test]
async fn a_frame_that_is_too_large_closes_with_1009() {
    let service = Service::start(|options| options.limits.frame = 1000);
    let mut client = service.greeted(1).await;
    say(
        &mut client,
        json!({"type": "event", "event": {"text": "x".repeat(2000)}}),
    )
    .await;
    assert_eq!(closed(&mut client).await.0, 1009);
}

#[actix_rt::test]
async fn four_mebibytes_pass_and_a_byte_more_does_not() {
    let mut service = Service::start(|_| {});
    let sized = |size: usize| {
        let empty = json!({"type": "event", "event": {"type": "session.updated", "text": ""}})
            .to_string()
            .len();
        json!({"type": "event", "event": {"type": "session.updated", "text": "x".repeat(size - empty)}})
    };
    let mut client = service.greeted(1).await;
    assert_eq!(service.next().await, Seen::Link(EventLink::Connected));
    say(&mut client, sized(4 * 1024 * 1024)).await;
    assert!(matches!(service.next().await, Seen::Event(_)));
    // The writer may find the socket closed before it has written all.
    let _ = client
        .send(Message::text(sized(4 * 1024 * 1024 + 1).to_string()))
        .await;
    assert_eq!(closed(&mut client).await.0, 1009);
}

#[actix_rt::test]
async fn a_bridge_is_pinged_and_closed_when_it_is_silent() {
    let service = Service::start(|options| {
        options.limits.ping_every = Duration::from_millis(40);
        options.limits.silence = Duration::from_millis(400);
    });
    let mut client = service.greeted(1).await;
    // Reading answers pings, which is life enough: after more than the time of silence it is still there.
    let mut pings = 0;
    while pings < 15 {
        match timeout(PATIENCE, client.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
        {
            Message::Ping(_) => pings += 1,
            other => panic!("{other:?}"),
        }
    }
    // Not reading answers nothing.
    let bridges = service.bridges.clone();
    timeout(PATIENCE, async {
        while !bridges.is_empty() {
            actix_rt::task::yield_now().await;
        }
    })
    .await
    .expect("the silent bridge loses its place");
}

#[actix_rt::test]
async fn the_newer_bridge_of_a_process_replaces_the_older() {
    let service = Service::start(|_| {});
    let mut older = service.greeted(1).await;
    let mut newer = service.greeted(1).await;
    assert_eq!(closed(&mut older).await.0, 4001);
    say(&mut newer, json!({"type": "event"})).await;
    assert_eq!(
        heard(&mut newer).await["type"],
        "error",
        "it is still served"
    );
    assert_eq!(service.bridges.len(), 1);
}

#[actix_rt::test]
async fn too_many_bridges_are_told_so() {
    let service = Service::start(|options| options.limits.bridges = 1);
    let _first = service.greeted(1).await;
    let mut second = service.connect().await;
    say(&mut second, hello(2)).await;
    assert_eq!(closed(&mut second).await.0, 1013);
}

#[actix_rt::test]
async fn where_bridges_are_the_only_source_the_last_one_to_leave_breaks_the_link() {
    let mut service = Service::start(|options| options.only_source = true);
    let first = service.greeted(1).await;
    let second = service.greeted(2).await;
    drop(first);
    drop(second);
    let links = [
        service.next().await,
        service.next().await,
        service.next().await,
    ];
    assert_eq!(
        links,
        [
            Seen::Link(EventLink::Connected),
            Seen::Link(EventLink::Connected),
            Seen::Link(EventLink::Broken)
        ]
    );
}

#[actix_rt::test]
async fn a_slow_sink_holds_the_socket_back_and_is_no_silence() {
    let mut service = Service::start(|options| {
        options.limits.ping_every = Duration::from_millis(20);
        options.limits.silence = Duration::from_millis(100);
    });
    let mut client = service.greeted(1).await;
    assert_eq!(service.next().await, Seen::Link(EventLink::Connected));
    let taken = service.recorder.room.acquire_many(1000).await.unwrap();
    taken.forget();
    say(&mut client, json!({"type": "event", "event": event(1)})).await;
    // Pinged through more than the time of silence, while the event waits for the sink.
    for _ in 0..10 {
        assert!(matches!(
            timeout(PATIENCE, client.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap(),
            Message::Ping(_)
        ));
    }
    service.recorder.room.add_permits(1);
    assert_eq!(service.next().await, Seen::Event(event(1)));
    assert_eq!(service.bridges.len(), 1);
}

#[actix_rt::test]
async fn a_plain_request_is_answered_in_the_shape_of_errors() {
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
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains(r#""code":"not_a_websocket""#), "{answer}");
}

#[actix_rt::test]
async fn a_service_that_goes_away_says_so() {
    let service = Service::start(|_| {});
    let mut client = service.greeted(1).await;
    let mut silent = service.connect().await;
    service.bridges.close();
    assert_eq!(closed(&mut client).await.0, 1001);
    assert_eq!(closed(&mut silent).await.0, 1001);
}
