//! Tests the provider over real HTTP, as a client of the protocol.

#![expect(clippy::unwrap_used, reason = "a test may fail by it")]

use std::time::{Duration, Instant};

use greenroom_rehearsal::{Level, Rehearsal};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);

fn start() -> Rehearsal {
    Rehearsal::start(([127, 0, 0, 1], 0).into()).unwrap()
}

fn request(rehearsal: &Rehearsal, messages: Value) -> reqwest::RequestBuilder {
    reqwest::Client::new()
        .post(format!("{}/chat/completions", rehearsal.base_url()))
        .header("x-session-id", "ses_1")
        .json(&json!({"model": "small", "stream": true, "messages": messages}))
}

fn prompt(rehearsal: &Rehearsal, text: &str) -> reqwest::RequestBuilder {
    request(rehearsal, json!([{"role": "user", "content": text}]))
}

/// A streamed answer, its deltas put together.
#[derive(Debug, Default, PartialEq)]
struct Streamed {
    text: String,
    calls: Vec<Value>,
    finish: Option<String>,
}

fn read_stream(body: &str) -> Streamed {
    let mut answer = Streamed::default();
    for line in body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|line| *line != "[DONE]")
    {
        let chunk: Value = serde_json::from_str(line).unwrap();
        let choice = &chunk["choices"][0];
        answer
            .text
            .push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        answer.calls.extend(
            choice["delta"]["tool_calls"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
        );
        answer.finish = choice["finish_reason"]
            .as_str()
            .map(str::to_owned)
            .or(answer.finish);
    }
    answer
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LONG, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn answer_is_streamed_after_its_wait() {
    let rehearsal = start();
    let begin = Instant::now();
    let body = prompt(&rehearsal, "[[wait 300ms]][[say hello there]]")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!(
        read_stream(&body),
        Streamed {
            text: "hello there".to_owned(),
            calls: vec![],
            finish: Some("stop".to_owned()),
        }
    );
    assert!(body.ends_with("data: [DONE]\n\n"));
    rehearsal.stop().await;
}

#[tokio::test]
async fn tool_call_is_followed_by_an_answer_after_its_result() {
    let rehearsal = start();
    let text = "[[call bash {\"command\": \"true\"}]][[say done]]";
    let body = prompt(&rehearsal, text)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let Streamed { calls, finish, .. } = read_stream(&body);
    assert_eq!(finish.as_deref(), Some("tool_calls"));
    assert_eq!(calls[0]["function"]["name"], "bash");
    assert_eq!(calls[0]["function"]["arguments"], "{\"command\":\"true\"}");
    let messages = json!([
        {"role": "user", "content": text},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": calls[0]["id"], "content": ""},
    ]);
    let body = request(&rehearsal, messages)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(read_stream(&body).text, "done");
    rehearsal.stop().await;
}

#[tokio::test]
async fn counted_failure_has_retry_after_and_ends() {
    let rehearsal = start();
    let ask = || prompt(&rehearsal, "[[fail 503 x2]][[retry-after 1500ms]]please").send();
    for _ in 0..2 {
        let refused = ask().await.unwrap();
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "2");
        let body: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
        assert_eq!(body["error"]["message"], "rehearsed failure 503");
    }
    let body = ask().await.unwrap().text().await.unwrap();
    assert_eq!(read_stream(&body).text, "Done: please");
    let session = rehearsal.stats().sessions["ses_1"];
    assert_eq!((session.requests, session.faults), (3, 2));
    rehearsal.stop().await;
}

#[tokio::test]
async fn cut_answer_is_an_error_for_its_reader() {
    let rehearsal = start();
    let ask = || prompt(&rehearsal, "[[say half of it]][[drop x1]]").send();
    ask()
        .await
        .unwrap()
        .text()
        .await
        .expect_err("the connection is cut");
    let body = ask().await.unwrap().text().await.unwrap();
    assert_eq!(read_stream(&body).text, "half of it");
    rehearsal.stop().await;
}

#[tokio::test]
async fn request_of_a_disconnected_client_is_not_in_flight() {
    let rehearsal = start();
    for text in ["[[hang]]", "[[wait 1h]]"] {
        let answer = prompt(&rehearsal, text).send().await.unwrap();
        wait_until("the request is in flight", || {
            rehearsal.stats().in_flight.now == 1
        })
        .await;
        drop(answer);
        wait_until("nothing is in flight", || {
            rehearsal.stats().in_flight.now == 0
        })
        .await;
    }
    assert_eq!(
        rehearsal.stats().models["small"].in_flight,
        Level { now: 0, max: 1 }
    );
    rehearsal.stop().await;
}

#[tokio::test]
async fn stats_are_returned_and_reset_over_http() {
    let rehearsal = start();
    let at = |path: &str| format!("http://{}{path}", rehearsal.addr());
    let client = reqwest::Client::new();
    prompt(&rehearsal, "one")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let stats: Value = client
        .get(at("/rehearsal/stats"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(stats["models"]["small"]["requests"], 1);
    assert_eq!(stats["lastUserTexts"], json!(["one"]));
    client.post(at("/rehearsal/reset")).send().await.unwrap();
    assert_eq!(rehearsal.stats(), Default::default());
    let models: Value = client
        .get(at("/v1/models"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(models["data"][0]["id"], "small");
    rehearsal.stop().await;
}

#[tokio::test]
async fn unreadable_script_is_refused_with_the_reason() {
    let rehearsal = start();
    let refused = prompt(&rehearsal, "[[wait soon]]").send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("a time is expected"));
    rehearsal.stop().await;
}

#[tokio::test]
async fn stopped_provider_releases_its_port() {
    let rehearsal = start();
    let addr = rehearsal.addr();
    let taken = Rehearsal::start(addr)
        .expect_err("the port is taken")
        .to_string();
    assert!(taken.contains("port 0 for any free one"), "{taken}");
    rehearsal.stop().await;
    Rehearsal::start(addr).unwrap().stop().await;
}
