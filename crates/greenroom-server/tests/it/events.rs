//! The event stream: order, resumption, filters, and gaps.

use std::time::Duration;

use crate::support::{Host, assert_error};
use futures::StreamExt;
use serde_json::{Value, json};

/// One event of the stream.
#[derive(Debug, Default, PartialEq)]
struct Event {
    id: String,
    event: String,
    data: Value,
}

/// A reader of server-sent events.
struct Events {
    body: futures::stream::BoxStream<'static, reqwest::Result<Vec<u8>>>,
    text: String,
    last_id: String,
}

impl Events {
    async fn open(host: &Host, query: &str, last: Option<&str>) -> Self {
        let mut request = host.client.get(host.url(&format!("/v1/events{query}")));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let kind = answer.headers()["content-type"].to_str().unwrap();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        let body = answer
            .bytes_stream()
            .map(|chunk| chunk.map(|chunk| chunk.to_vec()));
        let mut events = Self {
            body: body.boxed(),
            text: String::new(),
            last_id: String::new(),
        };
        // The first block has no event; it confirms the subscription.
        assert_eq!(events.block().await.unwrap().event, "");
        events
    }

    async fn block(&mut self) -> Option<Event> {
        while !self.text.contains("\n\n") {
            let chunk = self.body.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let (block, rest) = self.text.split_once("\n\n").unwrap();
        let mut event = Event::default();
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut self.last_id),
                Some(("event", name)) => name.clone_into(&mut event.event),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                Some(("" | "retry", _)) => {}
                other => panic!("{other:?} in {block:?}"),
            }
        }
        event.id.clone_from(&self.last_id);
        self.text = rest.to_owned();
        Some(event)
    }

    /// Returns the next event; none after the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        let next = async {
            loop {
                let block = self.block().await?;
                if !block.event.is_empty() {
                    return Some(block);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), next)
            .await
            .expect("an event comes")
    }

    async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.push(self.next().await.unwrap());
        }
        taken
    }
}

fn steps(events: &[Event]) -> Vec<(String, Value, Value)> {
    events
        .iter()
        .map(|event| {
            assert_eq!(event.event, "task");
            assert!(event.data["at"].as_str().unwrap().ends_with('Z'));
            assert_eq!(event.data["task"]["status"], event.data["to"]);
            let task = event.data["task"]["description"].as_str().unwrap();
            let from = event.data["from"].clone();
            (task.to_owned(), from, event.data["to"].clone())
        })
        .collect()
}

async fn launch(host: &Host, name: &str, parent: &str) -> String {
    let body = json!({"description": name, "prompt": "wait", "agent": "general", "parentSessionID": parent});
    let (status, task) = host.post("/v1/tasks", body).await;
    assert_eq!(status, 201);
    task["id"].as_str().unwrap().to_owned()
}

#[actix_rt::test]
async fn prompts_are_cut_in_events_and_lists() {
    let host = Host::start(&[]).await;
    let mut live = Events::open(&host, "", None).await;
    let prompt = "p".repeat(1000);
    let body =
        json!({"description": "d", "prompt": prompt, "agent": "general", "skillContent": prompt});
    let (_, task) = host.post("/v1/tasks", body).await;
    assert_eq!(task["prompt"], prompt.as_str());
    let cut = json!("p".repeat(200));
    let changed = live.next().await.unwrap();
    assert_eq!(changed.data["task"]["prompt"], cut);
    assert_eq!(changed.data["task"]["skillContent"], cut);
    let (_, listed) = host.get("/v1/tasks").await;
    assert_eq!(listed["tasks"][0]["prompt"], cut);
    let (_, cancelled) = host.post("/v1/tasks/cancel", json!({"all": true})).await;
    assert_eq!(cancelled["cancelled"][0]["prompt"], cut);
    host.stop().await;
}

#[actix_rt::test]
async fn changes_are_sent_once_and_in_order() {
    let host = Host::start(&[]).await;
    let mut live = Events::open(&host, "", None).await;
    let id = launch(&host, "one", "ses_a").await;
    let session = host.running(&id).await;
    host.finish(&session).await;
    let whole = live.take(3).await;
    let wanted = [
        ("one".to_owned(), Value::Null, json!("pending")),
        ("one".to_owned(), json!("pending"), json!("running")),
        ("one".to_owned(), json!("running"), json!("completed")),
    ];
    assert_eq!(steps(&whole), wanted);
    let numbers: Vec<u64> = whole
        .iter()
        .map(|event| event.id.parse().unwrap())
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");

    // A reader resumes after its last event, by header or by query.
    let mut again = Events::open(&host, "", Some(&whole[0].id)).await;
    assert_eq!(again.take(2).await, whole[1..]);
    let mut since = Events::open(&host, &format!("?since={}", whole[1].id), None).await;
    assert_eq!(since.take(1).await, whole[2..]);
    let both = format!("?since={}", whole[0].id);
    let mut header_wins = Events::open(&host, &both, Some(&whole[1].id)).await;
    assert_eq!(header_wins.take(1).await, whole[2..]);
    let mut all = Events::open(&host, "?since=0", None).await;
    assert_eq!(all.take(3).await, whole);

    // No event is lost or repeated between kept and live events.
    launch(&host, "two", "ses_a").await;
    for reader in [&mut live, &mut again, &mut since, &mut all] {
        assert_eq!(steps(&reader.take(2).await)[0].0, "two");
    }
    host.stop().await;
}

#[actix_rt::test]
async fn parent_filter_selects_its_tasks() {
    let host = Host::start(&[]).await;
    let mut of_b = Events::open(&host, "?parentSessionID=ses_b", None).await;
    for (name, parent) in [("one", "ses_a"), ("two", "ses_b"), ("three", "ses_a")] {
        let id = launch(&host, name, parent).await;
        host.running(&id).await;
    }
    let received = steps(&of_b.take(2).await);
    assert!(
        received.iter().all(|(name, ..)| name == "two"),
        "{received:?}"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn gap_sends_reset_and_invalid_since_is_rejected() {
    let host = Host::start(&[]).await;
    // A number of an earlier service: the events after it are unknown.
    let mut reader = Events::open(&host, "", Some("17")).await;
    let reset = reader.next().await.unwrap();
    assert_eq!(reset.event, "reset");
    assert!(reset.data["hint"].as_str().unwrap().contains("/v1/tasks"));
    launch(&host, "one", "ses_a").await;
    let next = reader.next().await.unwrap();
    assert_eq!(next.event, "task");
    assert!(next.id.parse::<u64>().unwrap() > reset.id.parse::<u64>().unwrap());

    for (query, name) in [("?since=yesterday", "since"), ("?sinse=1", "sinse")] {
        let (status, error) = host.get(&format!("/v1/events{query}")).await;
        let code = error["error"]["code"].as_str().unwrap().to_owned();
        assert_error((status, &error), 400, &code, name);
    }
    host.stop().await;
}

#[actix_rt::test]
async fn shutdown_ends_the_stream() {
    let host = Host::start(&[]).await;
    let mut reader = Events::open(&host, "", None).await;
    let id = launch(&host, "one", "ses_a").await;
    host.running(&id).await;
    let received = actix_rt::spawn(async move {
        let mut received = Vec::new();
        while let Some(event) = reader.next().await {
            received.push(event.data["to"].clone());
        }
        received
    });
    host.stop().await;
    let wanted = [json!("pending"), json!("running"), json!("cancelled")];
    assert_eq!(received.await.unwrap(), wanted);
}
