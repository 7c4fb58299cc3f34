//! Records the events of the agent server with their times: for measurements, and for stories that implement a bridge.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Opencode;

/// The recorded events of one directory.
#[derive(Debug)]
pub struct EventTap {
    seen: Arc<Mutex<Vec<(Instant, Value)>>>,
    reader: JoinHandle<()>,
}

impl EventTap {
    /// Subscribes to the events; returns when the stream is open.
    pub async fn start(server: &Opencode, directory: &Path) -> Self {
        Self::start_into(server, directory, None).await
    }

    /// Subscribes to the events, and forwards each. The channel is bounded by the events of one story.
    pub async fn start_into(
        server: &Opencode,
        directory: &Path,
        forward_to: Option<mpsc::UnboundedSender<Value>>,
    ) -> Self {
        let url = format!("{}/event?directory={}", server.url(), directory.display());
        let answer = reqwest::get(url)
            .await
            .expect("opencode has an event stream");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let reader = tokio::spawn(async move {
            let mut bytes = answer.bytes_stream();
            let mut pending: Vec<u8> = Vec::new();
            while let Some(Ok(chunk)) = bytes.next().await {
                let now = Instant::now();
                pending.extend_from_slice(&chunk);
                while let Some(end) = pending.windows(2).position(|pair| pair == b"\n\n") {
                    let block: Vec<u8> = pending.drain(..end + 2).collect();
                    let block = String::from_utf8_lossy(&block);
                    let event = block
                        .trim()
                        .strip_prefix("data: ")
                        .and_then(|json| serde_json::from_str::<Value>(json).ok());
                    let Some(event) = event else { continue };
                    if let Some(forward_to) = &forward_to {
                        // The receiver is gone when the story is over.
                        let _ = forward_to.send(event.clone());
                    }
                    kept.lock().expect("no holder panics").push((now, event));
                }
            }
        });
        Self { seen, reader }
    }

    /// Returns the time of the first event that satisfies `fits`.
    pub fn first(&self, fits: impl Fn(&Value) -> bool) -> Option<Instant> {
        let seen = self.seen.lock().expect("no holder panics");
        seen.iter()
            .find(|(_, event)| fits(event))
            .map(|(at, _)| *at)
    }

    /// Returns the number of events since that time that satisfy `fits`.
    pub fn since(&self, from: Instant, fits: impl Fn(&Value) -> bool) -> usize {
        let seen = self.seen.lock().expect("no holder panics");
        let since = seen.iter().filter(|(at, _)| *at >= from);
        since.filter(|(_, event)| fits(event)).count()
    }
}

impl Drop for EventTap {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
