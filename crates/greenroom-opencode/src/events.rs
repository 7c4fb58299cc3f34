//! The event stream of one server, from `GET /global/event` into an [`EventSink`]: one connection for all directories. It is
//! monitored by its heartbeat and reconnected when it breaks. The server does not replay missed events, so the sink is
//! notified of each break and each connect, and reconciles.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use greenroom::domain::event_filter::{EventFilter, FilteredEvent, ForwardedEvent};
use greenroom::domain::instance::Instance;
use greenroom::{EventLink, Greenroom};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::client::OpencodeServer;
use crate::sse::{Decoder, Frame};

/// Receives events.
pub trait EventSink: Send + Sync + 'static {
    /// Receives one event. The stream is not read until this returns.
    fn event(&self, event: ForwardedEvent<'_>) -> impl Future<Output = ()> + Send;

    /// Called once per change of the link.
    fn link(&self, link: EventLink);
}

impl EventSink for Greenroom {
    async fn event(&self, event: ForwardedEvent<'_>) {
        if let Some(disposed) = &event.decoded.disposed {
            self.instance_ended(Instance::in_directory(disposed.directory.as_deref()));
        }
        if let Some(event) = event.decoded.event() {
            self.ingest_event(event).await;
        }
    }

    fn link(&self, link: EventLink) {
        self.event_link(link);
    }
}

/// Time limits and sizes of the stream.
#[derive(Debug, Clone)]
pub struct StreamTuning {
    /// The stream is broken if no byte arrives for this time; opencode sends a heartbeat every 10 s.
    pub silence: Duration,
    /// The time limit of a connect, up to its first event.
    pub connect: Duration,
    /// The first wait before a reconnect.
    pub first_wait: Duration,
    /// The longest wait before a reconnect.
    pub longest_wait: Duration,
    /// At most one delta per session is forwarded in this time.
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
            event_bound: 4 << 20,
            seed: None,
        }
    }
}

/// The time limit of a probe before each connect. The first request after a boot may never be answered: it is the probe.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// A connection that lasted this long resets the backoff.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// A running event stream. Dropping it ends the stream.
#[derive(Debug)]
pub struct EventStream {
    task: JoinHandle<()>,
    reconnect: Arc<Notify>,
}

impl EventStream {
    /// Connects to `server`, and reconnects whenever the connection is lost. Must be called inside a tokio runtime.
    pub fn start(server: OpencodeServer, sink: impl EventSink, tuning: StreamTuning) -> Self {
        let reconnect = Arc::new(Notify::new());
        let task = tokio::spawn(run_stream(server, sink, tuning, Arc::clone(&reconnect)));
        Self { task, reconnect }
    }

    /// Ends the current wait before a reconnect. Called when the server is known to be up.
    pub fn reconnect_now(&self) {
        self.reconnect.notify_one();
    }

    /// Ends the stream. The sink is not called after this returns.
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
enum DisconnectReason {
    Exit,
    Silent(Duration),
    Failed(String),
}

impl std::fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DisconnectReason::Exit => f.write_str("the server ended it"),
            DisconnectReason::Silent(limit) => write!(f, "nothing came for {limit:?}"),
            DisconnectReason::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Notifies the sink of changes of the link.
struct LinkState<'a, S> {
    sink: &'a S,
    published: Option<EventLink>,
}

impl<S: EventSink> LinkState<'_, S> {
    fn publish(&mut self, link: EventLink) {
        if self.published != Some(link) {
            self.published = Some(link);
            self.sink.link(link);
        }
    }
}

async fn run_stream(
    server: OpencodeServer,
    sink: impl EventSink,
    tuning: StreamTuning,
    reconnect: Arc<Notify>,
) {
    let url = server.address().url.clone();
    let mut backoff = Backoff::new(tuning.first_wait, tuning.longest_wait, tuning.seed);
    let mut link = LinkState {
        sink: &sink,
        published: None,
    };
    let mut logged_reason = None;
    loop {
        let began = Instant::now();
        let disconnect = connect_and_read(&server, &mut link, &tuning).await;
        let was_connected = link.published == Some(EventLink::Connected);
        link.publish(EventLink::Broken);
        if was_connected && began.elapsed() >= STABLE_AFTER {
            backoff.reset();
        }
        let wait = backoff.wait();
        let reason = disconnect.to_string();
        if was_connected || logged_reason.as_ref() != Some(&reason) {
            warn!(%url, %reason, wait_ms = wait.as_millis(), "event stream broken");
            logged_reason = Some(reason);
        }
        if timeout(wait, reconnect.notified()).await.is_ok() {
            backoff.reset();
        }
    }
}

async fn connect_and_read<S: EventSink>(
    server: &OpencodeServer,
    link: &mut LinkState<'_, S>,
    tuning: &StreamTuning,
) -> DisconnectReason {
    if let Err(error) = server.version(PROBE_LIMIT).await {
        return DisconnectReason::Failed(error.to_string());
    }
    match server.open_events(tuning.connect).await {
        Ok(response) => read_events(response.bytes_stream(), link, tuning).await,
        Err(error) => DisconnectReason::Failed(error.to_string()),
    }
}

/// Reads one connection to its end; returns the reason.
async fn read_events<S, B, E>(
    mut pieces: impl Stream<Item = Result<B, E>> + Unpin,
    link: &mut LinkState<'_, S>,
    tuning: &StreamTuning,
) -> DisconnectReason
where
    S: EventSink,
    B: AsRef<[u8]>,
    E: std::error::Error,
{
    let mut decoder = Decoder::new(tuning.event_bound);
    let mut filter = EventFilter::new(tuning.delta_window);
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
                return DisconnectReason::Failed(format!("the connection was cut: {error}"));
            }
            Ok(None) => return DisconnectReason::Exit,
            Err(_) => {
                return DisconnectReason::Silent(if connected {
                    tuning.silence
                } else {
                    tuning.connect
                });
            }
        };
        for frame in decoder.feed(piece.as_ref()) {
            if !connected {
                // `server.connected` in the supported versions of opencode.
                connected = true;
                info!("event stream connected");
                link.publish(EventLink::Connected);
            }
            match frame {
                Frame::Data(data) => {
                    let now = std::time::Instant::now();
                    if let FilteredEvent::Forwarded(event) = filter.filter(&data, now) {
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
        async fn event(&self, event: ForwardedEvent<'_>) {
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

    async fn run_events(
        pieces: impl Stream<Item = Piece>,
        tuning: StreamTuning,
    ) -> (DisconnectReason, Vec<String>, Vec<EventLink>) {
        let seen = Seen::default();
        let mut link = LinkState {
            sink: &seen,
            published: None,
        };
        let disconnect = read_events(Box::pin(pieces), &mut link, &tuning).await;
        (
            disconnect,
            seen.events.into_inner().unwrap(),
            seen.links.into_inner().unwrap(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn stream_without_bytes_is_broken() {
        let begin = Instant::now();
        let beats = stream::iter(0..10).then(|beat| async move {
            tokio::time::sleep(Duration::from_secs(if beat == 0 { 0 } else { 10 })).await;
            line(if beat == 5 {
                "session.idle"
            } else {
                "server.heartbeat"
            })
        });
        let (disconnect, events, links) =
            run_events(beats.chain(stream::pending()), StreamTuning::default()).await;
        assert_eq!(
            disconnect,
            DisconnectReason::Silent(Duration::from_secs(30))
        );
        assert_eq!(events, ["session.idle"]);
        assert_eq!(links, [EventLink::Connected]);
        assert_eq!(begin.elapsed().as_secs(), 90 + 30);
    }

    #[tokio::test(start_paused = true)]
    async fn stream_without_a_first_event_is_not_connected() {
        let begin = Instant::now();
        let comments = stream::repeat(()).then(|()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(b": still booting\n".to_vec())
        });
        let (disconnect, events, links) = run_events(comments, StreamTuning::default()).await;
        assert_eq!(
            disconnect,
            DisconnectReason::Silent(Duration::from_secs(10))
        );
        assert_eq!((events.len(), links.len()), (0, 0));
        assert_eq!(begin.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn events_before_a_lost_connection_are_forwarded() {
        let cut = Err(std::io::Error::other("reset by peer"));
        let pieces = stream::iter([
            line("server.connected"),
            line("session.created"),
            cut,
            line("session.idle"),
        ]);
        let (disconnect, events, _) = run_events(pieces, StreamTuning::default()).await;
        assert_eq!(
            disconnect,
            DisconnectReason::Failed("the connection was cut: reset by peer".to_owned())
        );
        assert_eq!(events, ["session.created"]);
    }

    #[tokio::test]
    async fn oversized_event_is_skipped() {
        let tuning = StreamTuning {
            event_bound: 100,
            ..StreamTuning::default()
        };
        let giant = Ok(format!(
            "data: {{\"payload\":{{\"type\":\"session.error{}\n\n",
            "x".repeat(1000)
        )
        .into_bytes());
        let (disconnect, events, _) =
            run_events(stream::iter([giant, line("session.idle")]), tuning).await;
        assert_eq!(disconnect, DisconnectReason::Exit);
        assert_eq!(events, ["session.idle"]);
    }
}
