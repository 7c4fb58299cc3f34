//! Requests over the bridge: each has its answer, its time limit or its loss, and says truly which.

use std::collections::BTreeMap;
use std::time::Duration;

use greenroom_bridge::{Line, LineError, Request, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Client, PATIENCE, Service, deep, heard, say, say_text, until};

fn line(service: &Service, pid: u32) -> Line {
    let key = service
        .bridges
        .list()
        .iter()
        .find(|bridge| bridge.pid == pid)
        .unwrap()
        .key();
    service.bridges.line(&key).unwrap()
}

fn ask(
    line: &Line,
    method: &'static str,
    limit: Duration,
) -> JoinHandle<Result<Response, LineError>> {
    let line = line.clone();
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
        line.request(request).await
    })
}

async fn asked(client: &mut Client) -> Value {
    let frame = heard(client).await;
    assert_eq!(frame["type"], "request", "{frame}");
    frame
}

async fn answer(client: &mut Client, request: &Value, body: Value) {
    say(
        client,
        json!({"type": "response", "id": request["id"], "status": 200, "body": body}),
    )
    .await;
}

#[actix_rt::test]
async fn a_request_is_made_by_the_bridge_and_its_answer_comes_back() {
    let service = Service::start(|_| {});
    let mut client = service.greeted(1).await;
    let line = line(&service, 1);
    assert!(!line.has_answered());
    let read = ask(&line, "GET", PATIENCE);
    let request = asked(&mut client).await;
    assert_eq!(request["method"], "GET");
    assert_eq!(request["path"], "/session/ses_1/message");
    assert_eq!(request["query"], json!({"limit": "5"}));
    assert_eq!(request.get("body"), None);
    let order = ask(&line, "POST", PATIENCE);
    let second = asked(&mut client).await;
    assert_eq!(second["body"], json!({"parts": []}));
    answer(&mut client, &second, Value::Null).await;
    answer(&mut client, &request, json!([{"id": "msg_1"}])).await;
    assert_eq!(read.await.unwrap().unwrap().body, json!([{"id": "msg_1"}]));
    assert_eq!(order.await.unwrap().unwrap().body, Value::Null);
    assert!(line.has_answered());
    assert_eq!(line.in_flight(), 0);
}

#[actix_rt::test]
async fn each_bridge_is_asked_for_itself() {
    let service = Service::start(|_| {});
    let mut clients = [service.greeted(1).await, service.greeted(2).await];
    let asks = [1, 2].map(|pid| ask(&line(&service, pid), "GET", PATIENCE));
    for (number, client) in clients.iter_mut().enumerate() {
        let request = asked(client).await;
        answer(client, &request, json!(number)).await;
    }
    for (number, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await.unwrap().unwrap().body, json!(number));
    }
}

#[actix_rt::test]
async fn an_answer_that_comes_too_late_is_nobodys() {
    let service = Service::start(|_| {});
    let mut client = service.greeted(1).await;
    let line = line(&service, 1);
    let limit = Duration::from_millis(50);
    let slow = ask(&line, "POST", limit);
    let request = asked(&mut client).await;
    assert_eq!(slow.await.unwrap().unwrap_err(), LineError::TimedOut(limit));
    answer(&mut client, &request, json!("late")).await;
    let next = ask(&line, "POST", PATIENCE);
    let request = asked(&mut client).await;
    answer(&mut client, &request, json!("in time")).await;
    assert_eq!(next.await.unwrap().unwrap().body, json!("in time"));
}

#[actix_rt::test]
async fn after_a_reconnect_what_reads_is_asked_again_and_the_fate_of_an_order_is_unknown() {
    let service = Service::start(|_| {});
    let mut first = service.greeted(1).await;
    let line = line(&service, 1);
    let read = ask(&line, "GET", PATIENCE);
    asked(&mut first).await;
    let order = ask(&line, "POST", PATIENCE);
    asked(&mut first).await;
    drop(first);
    assert_eq!(order.await.unwrap().unwrap_err(), LineError::Cut);
    let mut second = service.greeted(1).await;
    let request = asked(&mut second).await;
    assert_eq!(request["method"], "GET");
    answer(&mut second, &request, json!("again")).await;
    assert_eq!(read.await.unwrap().unwrap().body, json!("again"));
}

#[actix_rt::test]
async fn a_bridge_that_is_gone_is_asked_nothing() {
    let service = Service::start(|options| options.limits.linger = Duration::from_millis(30));
    let mut client = service.greeted(1).await;
    let line = line(&service, 1);
    let read = ask(&line, "GET", PATIENCE);
    asked(&mut client).await;
    drop(client);
    assert!(matches!(
        read.await.unwrap(),
        Err(LineError::Gone { pid: 1, .. })
    ));
    until("it is known to be gone", || !line.is_connected()).await;
    let later = ask(&line, "GET", PATIENCE).await.unwrap();
    assert!(matches!(later, Err(LineError::Gone { .. })));
    assert!(line.gone_for().is_some());
}

#[actix_rt::test]
async fn a_thousand_requests_wait_and_one_more_is_refused() {
    let service = Service::start(|_| {});
    let mut client = service.greeted(1).await;
    let line = line(&service, 1);
    let asks: Vec<_> = (0..1000).map(|_| ask(&line, "GET", PATIENCE)).collect();
    let mut requests = Vec::new();
    for _ in 0..1000 {
        requests.push(asked(&mut client).await);
    }
    let one_more = ask(&line, "GET", PATIENCE).await.unwrap();
    assert_eq!(one_more.unwrap_err(), LineError::Overloaded);
    for request in &requests {
        answer(&mut client, request, Value::Null).await;
    }
    for ask in asks {
        assert!(ask.await.unwrap().is_ok());
    }
}

#[actix_rt::test]
async fn an_answer_with_half_an_emoji_is_read_and_one_that_cannot_be_is_not_waited_for() {
    let service = Service::start(|_| {});
    let mut client = service.greeted(1).await;
    let line = line(&service, 1);
    for (body, wanted) in [
        (r#"["half \ud83d"]"#.to_owned(), "[\"half \u{fffd}\"]"),
        (deep(), "cannot be read"),
    ] {
        let answered = ask(&line, "GET", PATIENCE * 2);
        let id = asked(&mut client).await["id"].take();
        let response =
            format!(r#"{{"type": "response", "id": {id}, "status": 200, "body": {body}}}"#);
        say_text(&mut client, response).await;
        let response = tokio::time::timeout(PATIENCE, answered).await;
        let response = response.expect("it is not waited for").unwrap().unwrap();
        assert_eq!(response.status, 200);
        assert!(
            response.body.to_string().contains(wanted),
            "{}",
            response.body
        );
    }
}
