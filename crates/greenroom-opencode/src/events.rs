//! The event stream of one server, from `GET /global/event` into an [`EventSink`]: one connection for all directories,
//! watched by its heartbeat, reconnected when it breaks. Missed events are not replayed by the server, so the sink is
//! told of each break and each connect and reconciles by itself.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use greenroom::domain::sift::{Passed, Sift, Sifted};
use greenroom::{EventLink, Greenroom};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::client::OpencodeServer;
use crate::sse::{Decoder, Frame};

/// Who takes the events.
pub trait EventSink: Send + Sync + 'static {
    /// Takes one event; the stream is not read on meanwhile.
    fn event(&self, event: Passed<'_>) -> impl Future<Output = ()> + Send;

    /// Told once per change whether events flow.
    fn link(&self, link: EventLink);
}

impl EventSink for Greenroom {
    async fn event(&self, event: Passed<'_>) {
        if let Some(event) = event.heard.event() {
            self.happened(event).await;
        }
    }

    fn link(&self, link: EventLink) {
        self.event_link(link);
    }
}

/// How the stream is watched.
#[derive(Debug, Clone)]
pub struct StreamTuning {
    /// No byte for so long, and the stream is broken; opencode sends a heartbeat every 10 s.
    pub silence: Duration,
    /// How long a connect may take until its first event.
    pub connect: Duration,
    /// The first wait before a reconnect.
    pub first_wait: Duration,
    /// The longest.
    pub longest_wait: Duration,
    /// At most one delta per session is passed on in this time.
    pub delta_window: Duration,
    /// An event larger than this, in bytes, is skipped.
    pub event_bound: usize,
    /// Makes the jitter repeatable.
    pub seed: Option<u64>,
}

impl Default for StreamTuning {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(30),
            connect: Duration::from_secs(10),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(10),
            delta_window: Duration::from_millis(200),
            event_bound: 16 << 20,
            seed: None,
        }
    }
}

/// The first request of a boot may never be answered; this one is made to be that.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// A connection that lived so long was a good one: the waits begin again.
const STEADY: Duration = Duration::from_secs(10);

/// A running event stream; it ends when this is dropped.
#[derive(Debug)]
pub struct EventStream {
    task: JoinHandle<()>,
    hurry: Arc<Notify>,
}

impl EventStream {
    /// Connects to `server` and keeps doing so. Must be called inside a tokio runtime.
    pub fn start(server: OpencodeServer, sink: impl EventSink, tuning: StreamTuning) -> Self {
        let hurry = Arc::new(Notify::new());
        let task = tokio::spawn(keep_connected(server, sink, tuning, Arc::clone(&hurry)));
        Self { task, hurry }
    }

    /// Connects now if the stream waits to reconnect: whoever started the server knows that it is up.
    pub fn reconnect_now(&self) {
        self.hurry.notify_one();
    }

    /// Ends the stream; no call to the sink is made after this returns.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum Lost {
    Ended,
    Silent(Duration),
    Failed(String),
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lost::Ended => f.write_str("the server ended it"),
            Lost::Silent(limit) => write!(f, "nothing came for {limit:?}"),
            Lost::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Tells the sink of changes only.
struct Link<'a, S> {
    sink: &'a S,
    told: Option<EventLink>,
}

impl<S: EventSink> Link<'_, S> {
    fn is(&mut self, link: EventLink) {
        if self.told != Some(link) {
            self.told = Some(link);
            self.sink.link(link);
        }
    }
}

async fn keep_connected(
    server: OpencodeServer,
    sink: impl EventSink,
    tuning: StreamTuning,
    hurry: Arc<Notify>,
) {
    let url = server.address().url.clone();
    let mut backoff = Backoff::new(tuning.first_wait, tuning.longest_wait, tuning.seed);
    let mut link = Link {
        sink: &sink,
        told: None,
    };
    let mut said = None;
    loop {
        let began = Instant::now();
        let lost = connect_and_pump(&server, &mut link, &tuning).await;
        let was_connected = link.told == Some(EventLink::Connected);
        link.is(EventLink::Broken);
        if was_connected && began.elapsed() >= STEADY {
            backoff.reset();
        }
        let wait = backoff.wait();
        let reason = lost.to_string();
        if was_connected || said.as_ref() != Some(&reason) {
            warn!(%url, %reason, wait_ms = wait.as_millis(), "event stream broken");
            said = Some(reason);
        }
        if timeout(wait, hurry.notified()).await.is_ok() {
            backoff.reset();
        }
    }
}

async fn connect_and_pump<S: EventSink>(
    server: &OpencodeServer,
    link: &mut Link<'_, S>,
    tuning: &StreamTuning,
) -> Lost {
    if let Err(error) = server.version(PROBE_LIMIT).await {
        return Lost::Failed(error.to_string());
    }
    match server.open_events(tuning.connect).await {
        Ok(response) => pump(response.bytes_stream(), link, tuning).await,
        Err(error) => Lost::Failed(error.to_string()),
    }
}

/// Reads one connection to its end.
async fn pump<S, B, E>(
    mut pieces: impl Stream<Item = Result<B, E>> + Unpin,
    link: &mut Link<'_, S>,
    tuning: &StreamTuning,
) -> Lost
where
    S: EventSink,
    B: AsRef<[u8]>,
    E: std::error::Error,
{
    let mut decoder = Decoder::new(tuning.event_bound);
    let mut sift = Sift::new(tuning.delta_window);
    let mut connected = false;
    let first_event = Instant::now() + tuning.connect;
    loop {
        let limit = if connected {
            tuning.silence
        } else {
            first_event.saturating_duration_since(Instant::now())
        };
        let piece = match timeout(limit, pieces.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(error))) => {
                return Lost::Failed(format!("the connection was cut: {error}"));
            }
            Ok(None) => return Lost::Ended,
            Err(_) => {
                return Lost::Silent(if connected {
                    tuning.silence
                } else {
                    tuning.connect
                });
            }
        };
        for frame in decoder.feed(piece.as_ref()) {
            if !connected {
                // `server.connected`, or whatever another version begins with.
                connected = true;
                info!("event stream connected");
                link.is(EventLink::Connected);
            }
            match frame {
                Frame::Data(data) => {
                    let now = std::time::Instant::now();
                    if let Sifted::Passed(event) = sift.sift(&data, now) {
                        link.sink.event(event).await;
                    }
                }
                Frame::TooLarge => {
                    debug!(bound = tuning.event_bound, "event skipped: it is too large")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::stream;

    use super::*;

    #[derive(Default)]
    struct Seen {
        events: Mutex<Vec<String>>,
        links: Mutex<Vec<EventLink>>,
    }

    impl EventSink for Seen {
        async fn event(&self, event: Passed<'_>) {
            let event = event.value().unwrap();
            self.events
                .lock()
                .unwrap()
                .push(event["type"].as_str().unwrap_or("?").to_owned());
        }

        fn link(&self, link: EventLink) {
            self.links.lock().unwrap().push(link);
        }
    }

    type Piece = Result<Vec<u8>, std::io::Error>;

    fn line(kind: &str) -> Piece {
        Ok(
            format!("data: {{\"payload\":{{\"type\":\"{kind}\",\"properties\":{{}}}}}}\n\n")
                .into_bytes(),
        )
    }

    async fn pumped(
        pieces: impl Stream<Item = Piece>,
        tuning: StreamTuning,
    ) -> (Lost, Vec<String>, Vec<EventLink>) {
        let seen = Seen::default();
        let mut link = Link {
            sink: &seen,
            told: None,
        };
        let lost = pump(Box::pin(pieces), &mut link, &tuning).await;
        (
            lost,
            seen.events.into_inner().unwrap(),
            seen.links.into_inner().unwrap(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_keep_a_stream_and_silence_breaks_it() {
        let begin = Instant::now();
        let beats = stream::iter(0..10).then(|beat| async move {
            tokio::time::sleep(Duration::from_secs(if beat == 0 { 0 } else { 10 })).await;
            line(if beat == 5 {
                "session.idle"
            } else {
                "server.heartbeat"
            })
        });
        let (lost, events, links) =
            pumped(beats.chain(stream::pending()), StreamTuning::default()).await;
        assert_eq!(lost, Lost::Silent(Duration::from_secs(30)));
        assert_eq!(events, ["session.idle"]);
        assert_eq!(links, [EventLink::Connected]);
        assert_eq!(begin.elapsed().as_secs(), 90 + 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_a_first_event_never_was_connected() {
        let begin = Instant::now();
        let comments = stream::repeat(()).then(|()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(b": still booting\n".to_vec())
        });
        let (lost, events, links) = pumped(comments, StreamTuning::default()).await;
        assert_eq!(lost, Lost::Silent(Duration::from_secs(10)));
        assert_eq!((events.len(), links.len()), (0, 0));
        assert_eq!(begin.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn events_before_a_cut_are_passed_on_and_the_cut_is_told() {
        let cut = Err(std::io::Error::other("reset by peer"));
        let pieces = stream::iter([
            line("server.connected"),
            line("session.created"),
            cut,
            line("session.idle"),
        ]);
        let (lost, events, _) = pumped(pieces, StreamTuning::default()).await;
        assert_eq!(
            lost,
            Lost::Failed("the connection was cut: reset by peer".to_owned())
        );
        assert_eq!(events, ["session.created"]);
    }

    #[tokio::test]
    async fn an_event_over_the_bound_is_skipped() {
        let tuning = StreamTuning {
            event_bound: 100,
            ..StreamTuning::default()
        };
        let giant = Ok(format!(
            "data: {{\"payload\":{{\"type\":\"session.error{}\n\n",
            "x".repeat(1000)
        )
        .into_bytes());
        let (lost, events, _) = pumped(stream::iter([giant, line("session.idle")]), tuning).await;
        assert_eq!(lost, Lost::Ended);
        assert_eq!(events, ["session.idle"]);
    }
}
