//! Listens to what the agent server tells, with the moment of each event: for measuring, and for a bridge that a story
//! plays itself.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Opencode;

/// The events of one directory, from its start on.
#[derive(Debug)]
pub struct EventTap {
    seen: Arc<Mutex<Vec<(Instant, Value)>>>,
    reader: JoinHandle<()>,
}

impl EventTap {
    /// Listens; returns when the server has begun to tell.
    pub async fn start(server: &Opencode, directory: &Path) -> Self {
        Self::start_into(server, directory, None).await
    }

    /// The same, and hands every event on. The channel is bounded by what one story causes.
    pub async fn start_into(
        server: &Opencode,
        directory: &Path,
        onward: Option<mpsc::UnboundedSender<Value>>,
    ) -> Self {
        let url = format!("{}/event?directory={}", server.url(), directory.display());
        let answer = reqwest::get(url).await.expect("opencode tells events");
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
                    if let Some(onward) = &onward {
                        // A story that is over does not listen any more.
                        let _ = onward.send(event.clone());
                    }
                    kept.lock().expect("nobody panics here").push((now, event));
                }
            }
        });
        Self { seen, reader }
    }

    /// When the first event came that fits.
    pub fn first(&self, fits: impl Fn(&Value) -> bool) -> Option<Instant> {
        let seen = self.seen.lock().expect("nobody panics here");
        seen.iter()
            .find(|(_, event)| fits(event))
            .map(|(at, _)| *at)
    }

    /// How many events came since that moment that fit.
    pub fn since(&self, from: Instant, fits: impl Fn(&Value) -> bool) -> usize {
        let seen = self.seen.lock().expect("nobody panics here");
        let since = seen.iter().filter(|(at, _)| *at >= from);
        since.filter(|(_, event)| fits(event)).count()
    }
}

impl Drop for EventTap {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
