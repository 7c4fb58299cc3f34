//! Requests across changes of the socket.

use serde_json::json;

use super::*;

fn channel() -> BridgeChannel {
    let key = BridgeKey {
        pid: 1,
        directory: "/p".into(),
    };
    let limits = BridgeLimits {
        reconnect_grace: Duration::from_millis(20),
        frame: 1000,
        ..BridgeLimits::default()
    };
    BridgeChannel::new(key, 7, limits)
}

/// Starts a request and returns once it is in the send queue.
async fn start_request(
    channel: &BridgeChannel,
    method: &'static str,
) -> tokio::task::JoinHandle<Result<Response, ChannelError>> {
    let (asking, before) = (channel.clone(), channel.in_flight());
    let task = actix_web::rt::spawn(async move {
        let request = Request {
            method,
            path: "/session",
            query: &BTreeMap::new(),
            body: None,
            limit: Duration::from_secs(20),
        };
        asking.request(request).await
    });
    while channel.in_flight() == before {
        tokio::task::yield_now().await;
    }
    task
}

async fn next(send_queue: &SendQueue) -> u64 {
    match send_queue.pop().await {
        Some(Outgoing::Request(number, _)) => number,
        other => panic!("{other:?}"),
    }
}

fn respond(channel: &BridgeChannel, frame: &str) {
    let frame: Value = serde_json::from_str(frame).unwrap();
    channel.receive_response(Response {
        id: frame["id"].as_str().unwrap().into(),
        status: 200,
        body: json!("well"),
    });
}

#[actix_rt::test]
async fn unsent_post_is_sent_after_a_reconnect_and_a_sent_one_fails() {
    let channel = channel();
    let (first, second) = (
        Arc::new(SendQueue::default()),
        Arc::new(SendQueue::default()),
    );
    channel.attach(1, &first);
    let sent = start_request(&channel, "POST").await;
    let number = next(&first).await;
    channel.start_sending(number).unwrap();
    let waiting = start_request(&channel, "POST").await;
    channel.detach(1);
    assert_eq!(
        sent.await.unwrap().unwrap_err(),
        ChannelError::ConnectionLost
    );
    channel.attach(2, &second);
    let number = next(&second).await;
    let frame = channel.start_sending(number).unwrap();
    respond(&channel, &frame);
    assert_eq!(waiting.await.unwrap().unwrap().body, json!("well"));
    assert!(channel.has_responded());
}

#[actix_rt::test]
async fn get_is_repeated_after_a_reconnect() {
    let channel = channel();
    let (first, second) = (
        Arc::new(SendQueue::default()),
        Arc::new(SendQueue::default()),
    );
    channel.attach(1, &first);
    let read = start_request(&channel, "GET").await;
    let number = next(&first).await;
    channel.start_sending(number).unwrap();
    // The newer socket of the same bridge is attached before the older one has ended.
    channel.attach(2, &second);
    channel.detach(1);
    let number = next(&second).await;
    let frame = channel.start_sending(number).unwrap();
    respond(&channel, &frame);
    assert_eq!(read.await.unwrap().unwrap().status, 200);
    assert!(
        first.pop().await.is_none(),
        "nothing is written to the older socket"
    );
}

#[actix_rt::test]
async fn unsent_request_fails_without_effect_after_the_grace_period() {
    let channel = channel();
    channel.attach(1, &Arc::default());
    let waiting = start_request(&channel, "POST").await;
    channel.detach(1);
    assert!(matches!(
        waiting.await.unwrap(),
        Err(ChannelError::Disconnected { pid: 1, .. })
    ));
    assert!(channel.disconnected_for().is_some());
}

#[actix_rt::test]
async fn cancelled_request_is_not_sent() {
    let channel = channel();
    let send_queue = Arc::new(SendQueue::default());
    channel.attach(1, &send_queue);
    let request = start_request(&channel, "POST").await;
    request.abort();
    let _ = request.await;
    let number = next(&send_queue).await;
    assert!(channel.start_sending(number).is_none());
    assert_eq!(channel.in_flight(), 0);
}

#[actix_rt::test]
async fn responses_to_an_earlier_service_are_ignored() {
    let channel = channel();
    channel.attach(1, &Arc::default());
    let request = start_request(&channel, "GET").await;
    for foreign in ["rq_6_1", "rq_7_2", "1", ""] {
        respond(&channel, &json!({"id": foreign}).to_string());
    }
    assert_eq!(channel.in_flight(), 1);
    respond(&channel, r#"{"id": "rq_7_1"}"#);
    assert!(request.await.unwrap().is_ok());
}

#[actix_rt::test]
async fn oversized_request_is_refused() {
    let channel = channel();
    channel.attach(1, &Arc::default());
    let request = Request {
        method: "POST",
        path: "/session",
        query: &BTreeMap::new(),
        body: Some(&json!("x".repeat(1000))),
        limit: Duration::from_secs(1),
    };
    assert_eq!(
        channel.request(request).await.unwrap_err(),
        ChannelError::TooLarge
    );
}
