//! Requests over the bridge: each ends with a response, a time-out or the loss of the connection.

use std::collections::BTreeMap;
use std::time::Duration;

use greenroom_bridge::{BridgeChannel, ChannelError, Request, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Client, Service, TIMEOUT, deep, receive, send, send_text, until};

fn channel(service: &Service, pid: u32) -> BridgeChannel {
    let key = service
        .bridges
        .list()
        .iter()
        .find(|bridge| bridge.pid == pid)
        .unwrap()
        .key();
    service.bridges.channel(&key).unwrap()
}

fn start_request(
    channel: &BridgeChannel,
    method: &'static str,
    limit: Duration,
) -> JoinHandle<Result<Response, ChannelError>> {
    let channel = channel.clone();
    actix_rt::spawn(async move {
        let query = BTreeMap::from([("limit".to_owned(), "5".to_owned())]);
        let body = (method == "POST").then(|| json!({"parts": []}));
        let request = Request {
            method,
            path: "/session/ses_1/message",
            query: &query,
            body: body.as_ref(),
            limit,
        };
        channel.request(request).await
    })
}

async fn next_request(client: &mut Client) -> Value {
    let frame = receive(client).await;
    assert_eq!(frame["type"], "request", "{frame}");
    frame
}

async fn respond(client: &mut Client, request: &Value, body: Value) {
    send(
        client,
        json!({"type": "response", "id": request["id"], "status": 200, "body": body}),
    )
    .await;
}

#[actix_rt::test]
async fn request_gets_its_response() {
    let service = Service::start(|_| {});
    let mut client = service.connected(1).await;
    let channel = channel(&service, 1);
    assert!(!channel.has_responded());
    let read = start_request(&channel, "GET", TIMEOUT);
    let request = next_request(&mut client).await;
    assert_eq!(request["method"], "GET");
    assert_eq!(request["path"], "/session/ses_1/message");
    assert_eq!(request["query"], json!({"limit": "5"}));
    assert_eq!(request.get("body"), None);
    let order = start_request(&channel, "POST", TIMEOUT);
    let second = next_request(&mut client).await;
    assert_eq!(second["body"], json!({"parts": []}));
    respond(&mut client, &second, Value::Null).await;
    respond(&mut client, &request, json!([{"id": "msg_1"}])).await;
    assert_eq!(read.await.unwrap().unwrap().body, json!([{"id": "msg_1"}]));
    assert_eq!(order.await.unwrap().unwrap().body, Value::Null);
    assert!(channel.has_responded());
    assert_eq!(channel.in_flight(), 0);
}

#[actix_rt::test]
async fn requests_go_to_their_own_bridge() {
    let service = Service::start(|_| {});
    let mut clients = [service.connected(1).await, service.connected(2).await];
    let asks = [1, 2].map(|pid| start_request(&channel(&service, pid), "GET", TIMEOUT));
    for (number, client) in clients.iter_mut().enumerate() {
        let request = next_request(client).await;
        respond(client, &request, json!(number)).await;
    }
    for (number, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await.unwrap().unwrap().body, json!(number));
    }
}

#[actix_rt::test]
async fn late_response_is_ignored() {
    let service = Service::start(|_| {});
    let mut client = service.connected(1).await;
    let channel = channel(&service, 1);
    let limit = Duration::from_millis(50);
    let slow = start_request(&channel, "POST", limit);
    let request = next_request(&mut client).await;
    assert_eq!(
        slow.await.unwrap().unwrap_err(),
        ChannelError::TimedOut(limit)
    );
    respond(&mut client, &request, json!("late")).await;
    let next = start_request(&channel, "POST", TIMEOUT);
    let request = next_request(&mut client).await;
    respond(&mut client, &request, json!("in time")).await;
    assert_eq!(next.await.unwrap().unwrap().body, json!("in time"));
}

#[actix_rt::test]
async fn get_is_repeated_after_a_reconnect_and_post_fails() {
    let service = Service::start(|_| {});
    let mut first = service.connected(1).await;
    let channel = channel(&service, 1);
    let read = start_request(&channel, "GET", TIMEOUT);
    next_request(&mut first).await;
    let order = start_request(&channel, "POST", TIMEOUT);
    next_request(&mut first).await;
    drop(first);
    assert_eq!(
        order.await.unwrap().unwrap_err(),
        ChannelError::ConnectionLost
    );
    let mut second = service.connected(1).await;
    let request = next_request(&mut second).await;
    assert_eq!(request["method"], "GET");
    respond(&mut second, &request, json!("again")).await;
    assert_eq!(read.await.unwrap().unwrap().body, json!("again"));
}

#[actix_rt::test]
async fn request_to_a_disconnected_bridge_fails() {
    let service =
        Service::start(|options| options.limits.reconnect_grace = Duration::from_millis(30));
    let mut client = service.connected(1).await;
    let channel = channel(&service, 1);
    let read = start_request(&channel, "GET", TIMEOUT);
    next_request(&mut client).await;
    drop(client);
    assert!(matches!(
        read.await.unwrap(),
        Err(ChannelError::Disconnected { pid: 1, .. })
    ));
    until("it is known to be gone", || !channel.is_connected()).await;
    let later = start_request(&channel, "GET", TIMEOUT).await.unwrap();
    assert!(matches!(later, Err(ChannelError::Disconnected { .. })));
    assert!(channel.disconnected_for().is_some());
}

#[actix_rt::test]
async fn requests_in_flight_are_limited() {
    let service = Service::start(|_| {});
    let mut client = service.connected(1).await;
    let channel = channel(&service, 1);
    let asks: Vec<_> = (0..1000)
        .map(|_| start_request(&channel, "GET", TIMEOUT))
        .collect();
    let mut requests = Vec::new();
    for _ in 0..1000 {
        requests.push(next_request(&mut client).await);
    }
    let one_more = start_request(&channel, "GET", TIMEOUT).await.unwrap();
    assert_eq!(one_more.unwrap_err(), ChannelError::Overloaded);
    for request in &requests {
        respond(&mut client, request, Value::Null).await;
    }
    for ask in asks {
        assert!(ask.await.unwrap().is_ok());
    }
}

#[actix_rt::test]
async fn response_with_a_lone_surrogate_is_read_and_an_unreadable_one_fails() {
    let service = Service::start(|_| {});
    let mut client = service.connected(1).await;
    let channel = channel(&service, 1);
    for (body, wanted) in [
        (r#"["half \ud83d"]"#.to_owned(), "[\"half \u{fffd}\"]"),
        (deep(), "cannot be read"),
    ] {
        let answered = start_request(&channel, "GET", TIMEOUT * 2);
        let id = next_request(&mut client).await["id"].take();
        let response =
            format!(r#"{{"type": "response", "id": {id}, "status": 200, "body": {body}}}"#);
        send_text(&mut client, response).await;
        let response = tokio::time::timeout(TIMEOUT, answered).await;
        let response = response.expect("it is not waited for").unwrap().unwrap();
        assert_eq!(response.status, 200);
        assert!(
            response.body.to_string().contains(wanted),
            "{}",
            response.body
        );
    }
}
