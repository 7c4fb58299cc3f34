//! Follows the changes of tasks as a browser does: it reconnects with its last id whenever the stream breaks. Used by stories
//! that kill the service, to check that no change is lost or duplicated.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::Caller;

/// A received event.
#[derive(Debug, Clone)]
pub struct Event {
    id: u64,
    kind: String,
    change: Value,
}

/// A reader of `/v1/events` from the first change on.
#[derive(Debug)]
pub struct Follower {
    seen: Arc<Mutex<Vec<Event>>>,
    reader: JoinHandle<()>,
}

impl Follower {
    /// Starts to follow from the first change on.
    pub fn start(caller: Caller) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let reader = tokio::spawn(async move {
            let mut last = 0;
            loop {
                read(&caller, &mut last, &kept).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { seen, reader }
    }

    /// Returns the events so far.
    pub fn seen(&self) -> Vec<Event> {
        self.seen.lock().expect("no holder panics").clone()
    }

    /// Returns the last state of each task.
    pub fn newest(&self) -> BTreeMap<String, String> {
        let seen = self.seen();
        seen.iter()
            .map(|event| {
                let change = &event.change;
                (text(&change["task"]["id"]), text(&change["to"]))
            })
            .collect()
    }

    /// Fails if a change is missing or duplicated: ids rise, and each change of a task begins with the state in which the
    /// previous change ended. Returns the number of changes.
    pub fn assert_complete(&self) -> usize {
        let seen = self.seen();
        let mut states: BTreeMap<String, String> = BTreeMap::new();
        for (at, Event { id, kind, change }) in seen.iter().enumerate() {
            assert_eq!(kind, "task", "{id}: {change}");
            if let Some(before) = at.checked_sub(1).map(|before| seen[before].id) {
                assert!(*id > before, "after {before}: {id} {change}");
            }
            let task = text(&change["task"]["id"]);
            let before = states.insert(task, text(&change["to"]));
            let from = change.get("from").map(text);
            assert_eq!(from, before, "{id}: {change}");
        }
        seen.len()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads one connection until it breaks. Only complete events count.
async fn read(caller: &Caller, last: &mut u64, kept: &Mutex<Vec<Event>>) {
    let mut request = caller.request(Method::GET, "/v1/events?since=0");
    if *last > 0 {
        request = request.header("last-event-id", *last);
    }
    let Ok(answer) = request.send().await else {
        return;
    };
    assert!(answer.status().is_success(), "{}", answer.status());
    let mut bytes = answer.bytes_stream();
    let mut pending: Vec<u8> = Vec::new();
    while let Some(Ok(chunk)) = bytes.next().await {
        pending.extend_from_slice(&chunk);
        while let Some(end) = pending.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = pending.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block);
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            if let Some(id) = field("id: ").and_then(|id| id.parse().ok()) {
                *last = id;
            }
            if let (Some(kind), Some(data)) = (field("event: "), field("data: ")) {
                let event = Event {
                    id: *last,
                    kind: kind.to_owned(),
                    change: serde_json::from_str(data).unwrap_or_default(),
                };
                kept.lock().expect("no holder panics").push(event);
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
