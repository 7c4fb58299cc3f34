//! What becomes of requests when sockets come and go.

use serde_json::json;

use super::*;

fn line() -> Line {
    let key = BridgeKey {
        pid: 1,
        directory: "/p".into(),
    };
    let limits = BridgeLimits {
        linger: Duration::from_millis(20),
        frame: 1000,
        ..BridgeLimits::default()
    };
    Line::new(key, 7, limits)
}

/// A request on its way, once it is in the outbox.
async fn ask(
    line: &Line,
    method: &'static str,
) -> tokio::task::JoinHandle<Result<Response, LineError>> {
    let (asking, before) = (line.clone(), line.in_flight());
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
    while line.in_flight() == before {
        tokio::task::yield_now().await;
    }
    task
}

async fn next(outbox: &Outbox) -> u64 {
    match outbox.pop().await {
        Some(Out::Request(number, _)) => number,
        other => panic!("{other:?}"),
    }
}

fn answer(line: &Line, frame: &str) {
    let frame: Value = serde_json::from_str(frame).unwrap();
    line.answered(Response {
        id: frame["id"].as_str().unwrap().into(),
        status: 200,
        body: json!("well"),
    });
}

#[actix_rt::test]
async fn an_order_that_no_socket_was_given_is_made_by_the_next_one_and_one_that_was_is_lost() {
    let line = line();
    let (first, second) = (Arc::new(Outbox::default()), Arc::new(Outbox::default()));
    line.attach(1, &first);
    let handed = ask(&line, "POST").await;
    let number = next(&first).await;
    line.hand(number).unwrap();
    let waiting = ask(&line, "POST").await;
    line.detach(1);
    assert_eq!(handed.await.unwrap().unwrap_err(), LineError::Cut);
    line.attach(2, &second);
    let number = next(&second).await;
    let frame = line.hand(number).unwrap();
    answer(&line, &frame);
    assert_eq!(waiting.await.unwrap().unwrap().body, json!("well"));
    assert!(line.has_answered());
}

#[actix_rt::test]
async fn what_reads_is_asked_again() {
    let line = line();
    let (first, second) = (Arc::new(Outbox::default()), Arc::new(Outbox::default()));
    line.attach(1, &first);
    let read = ask(&line, "GET").await;
    let number = next(&first).await;
    line.hand(number).unwrap();
    // The newer socket of the same bridge is there before the older one has ended.
    line.attach(2, &second);
    line.detach(1);
    let number = next(&second).await;
    let frame = line.hand(number).unwrap();
    answer(&line, &frame);
    assert_eq!(read.await.unwrap().unwrap().status, 200);
    assert!(first.pop().await.is_none(), "the older socket says no more");
}

#[actix_rt::test]
async fn what_waits_for_a_bridge_that_does_not_come_back_has_had_no_effect() {
    let line = line();
    line.attach(1, &Arc::default());
    let waiting = ask(&line, "POST").await;
    line.detach(1);
    assert!(matches!(
        waiting.await.unwrap(),
        Err(LineError::Gone { pid: 1, .. })
    ));
    assert!(line.gone_for().is_some());
}

#[actix_rt::test]
async fn a_request_that_nobody_wants_any_more_is_not_made() {
    let line = line();
    let outbox = Arc::new(Outbox::default());
    line.attach(1, &outbox);
    let asked = ask(&line, "POST").await;
    asked.abort();
    let _ = asked.await;
    let number = next(&outbox).await;
    assert!(line.hand(number).is_none());
    assert_eq!(line.in_flight(), 0);
}

#[actix_rt::test]
async fn answers_to_a_service_before_this_one_are_not_ours() {
    let line = line();
    line.attach(1, &Arc::default());
    let asked = ask(&line, "GET").await;
    for foreign in ["rq_6_1", "rq_7_2", "1", ""] {
        answer(&line, &json!({"id": foreign}).to_string());
    }
    assert_eq!(line.in_flight(), 1);
    answer(&line, r#"{"id": "rq_7_1"}"#);
    assert!(asked.await.unwrap().is_ok());
}

#[actix_rt::test]
async fn a_request_larger_than_a_frame_is_refused() {
    let line = line();
    line.attach(1, &Arc::default());
    let request = Request {
        method: "POST",
        path: "/session",
        query: &BTreeMap::new(),
        body: Some(&json!("x".repeat(1000))),
        limit: Duration::from_secs(1),
    };
    assert_eq!(
        line.request(request).await.unwrap_err(),
        LineError::TooLarge
    );
}
