//! The provider over real HTTP, as a client of the protocol sees it.

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

/// The deltas of a streamed answer, and why it ended.
fn read_stream(body: &str) -> (String, Vec<Value>, Option<String>) {
    let (mut text, mut calls, mut finish) = (String::new(), Vec::new(), None);
    for line in body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|line| *line != "[DONE]")
    {
        let chunk: Value = serde_json::from_str(line).unwrap();
        let choice = &chunk["choices"][0];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        calls.extend(
            choice["delta"]["tool_calls"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
        );
        finish = choice["finish_reason"]
            .as_str()
            .map(str::to_owned)
            .or(finish);
    }
    (text, calls, finish)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LONG, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_answer_is_streamed_after_its_wait() {
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
        ("hello there".to_owned(), vec![], Some("stop".to_owned()))
    );
    assert!(body.ends_with("data: [DONE]\n\n"));
    rehearsal.stop().await;
}

#[tokio::test]
async fn a_tool_is_called_first_and_the_answer_follows_its_result() {
    let rehearsal = start();
    let text = "[[call bash {\"command\": \"true\"}]][[say done]]";
    let body = prompt(&rehearsal, text)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let (_, calls, finish) = read_stream(&body);
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
    assert_eq!(read_stream(&body).0, "done");
    rehearsal.stop().await;
}

#[tokio::test]
async fn a_counted_failure_gives_way_and_says_when_to_come_back() {
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
    assert_eq!(read_stream(&body).0, "Done: please");
    let session = rehearsal.stats().sessions["ses_1"];
    assert_eq!((session.requests, session.faults), (3, 2));
    rehearsal.stop().await;
}

#[tokio::test]
async fn a_cut_answer_is_an_error_for_its_reader() {
    let rehearsal = start();
    let ask = || prompt(&rehearsal, "[[say half of it]][[drop x1]]").send();
    ask()
        .await
        .unwrap()
        .text()
        .await
        .expect_err("the connection is cut");
    let body = ask().await.unwrap().text().await.unwrap();
    assert_eq!(read_stream(&body).0, "half of it");
    rehearsal.stop().await;
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_longer_in_flight() {
    let rehearsal = start();
    for text in ["[[hang]]", "[[wait 1h]]"] {
        let answer = prompt(&rehearsal, text).send().await.unwrap();
        until("the request is in flight", || {
            rehearsal.stats().in_flight.now == 1
        })
        .await;
        drop(answer);
        until("nothing is in flight", || {
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
async fn stats_are_shown_and_forgotten_over_http() {
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
async fn a_script_that_cannot_be_read_is_refused_with_the_reason() {
    let rehearsal = start();
    let refused = prompt(&rehearsal, "[[wait soon]]").send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("a time is expected"));
    rehearsal.stop().await;
}

#[tokio::test]
async fn a_stopped_provider_gives_its_port_back() {
    let rehearsal = start();
    let addr = rehearsal.addr();
    let taken = Rehearsal::start(addr)
        .expect_err("the port is taken")
        .to_string();
    assert!(taken.contains("port 0 for any free one"), "{taken}");
    rehearsal.stop().await;
    Rehearsal::start(addr).unwrap().stop().await;
}
