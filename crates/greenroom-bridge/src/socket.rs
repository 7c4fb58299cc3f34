//! Runs one socket from its hello to its close. Frames are read and dispatched here. Frames to the bridge go through the
//! send queue to a separate writer, so that a bridge that does not read cannot block other code.

use std::time::Duration;

use actix_web::rt;
use actix_ws::{AggregatedMessage, AggregatedMessageStream, Session};
use greenroom::EventLink;
use greenroom::domain::decoded_event::InstanceDisposed;
use greenroom::domain::event_filter::{EventFilter, ForwardedEvent};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout, timeout_at};

use crate::close::{DisconnectReason, close, with_timeout, write};
use crate::frame_header::FrameGate;
use crate::frames::{Incoming, read};
use crate::options::BridgeOptions;
use crate::protocol::{FromBridge, Hello, PROTOCOL, ToBridge};
use crate::registry::{BridgeKey, Connection, Remaining};
use crate::send_queue::{Outgoing, SendQueue};
use crate::tool_calls;

/// The time limit for writing the rest of the send queue when the socket closes.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// At most one text delta per session is forwarded in this time.
const DELTA_WINDOW: Duration = Duration::from_millis(100);
/// The shortest time between two reconciliations that a bridge requests.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);

/// An accepted socket.
pub(crate) struct Socket {
    session: Session,
    messages: AggregatedMessageStream,
    gate: FrameGate,
    options: BridgeOptions,
    last_received: Instant,
}

impl Socket {
    pub(crate) fn new(
        session: Session,
        messages: AggregatedMessageStream,
        gate: FrameGate,
        options: BridgeOptions,
    ) -> Self {
        Self {
            session,
            messages,
            gate,
            options,
            last_received: Instant::now(),
        }
    }

    /// Runs the socket to its close. `authorized` is true if the HTTP request had the token.
    pub(crate) async fn run(mut self, authorized: bool) {
        let bridges = self.options.bridges.clone();
        let handshake = self
            .options
            .handshakes
            .begin(self.options.limits.handshakes);
        let accepted = tokio::select! {
            accepted = self.handshake(authorized) => accepted,
            () = bridges.closed() => Err(DisconnectReason::ShuttingDown),
            () = handshake.displaced() => Err(DisconnectReason::Displaced),
        };
        drop(handshake);
        let reason = match accepted {
            Err(reason) => reason,
            Ok(connection) => self.run_connection(connection).await,
        };
        close(self.session, reason, self.options.limits.write_timeout).await;
    }

    async fn run_connection(&mut self, mut connection: Connection) -> DisconnectReason {
        let info = connection.info.clone();
        let sink = self.options.sink.clone();
        sink.bridge_connected(&info);
        connection.attach();
        // Earlier events were lost: running tasks are reconciled.
        sink.link(EventLink::Connected);
        let (session, send_queue) = (self.session.clone(), connection.send_queue.clone());
        let mut writer = rt::spawn(write(
            session,
            send_queue,
            connection.channel.clone(),
            self.options.limits.write_timeout,
        ));
        let mut reason = self.serve(&mut connection, &mut writer).await;
        if reason == DisconnectReason::SlowReader && connection.is_replaced() {
            reason = DisconnectReason::Replaced;
        }
        connection.send_queue.finish();
        // A finished handle must not be awaited again: the end of the writer may have ended `serve`.
        if !writer.is_finished() && timeout(FLUSH_TIMEOUT, &mut writer).await.is_err() {
            writer.abort();
        }
        let remaining = connection.disconnect();
        if remaining != Remaining::Replaced {
            sink.bridge_disconnected(&info);
            // The instances live on if this service shuts down.
            if reason != DisconnectReason::ShuttingDown {
                sink.instance_ended(&info);
            }
        }
        if remaining == Remaining::None && self.options.only_source {
            sink.link(EventLink::Broken);
        }
        tracing::info!(bridge = info.id, ?reason, "bridge disconnected");
        reason
    }

    /// Waits for the hello, checks it and registers the bridge.
    async fn handshake(&mut self, authorized: bool) -> Result<Connection, DisconnectReason> {
        let limits = self.options.limits;
        let deadline = Instant::now() + limits.hello_timeout;
        let first = match timeout_at(deadline, self.next_text()).await {
            Ok(first) => first?,
            Err(_) => {
                return Err(DisconnectReason::HelloRejected(format!(
                    "no hello within {:?}",
                    limits.hello_timeout
                )));
            }
        };
        let hello = match FromBridge::read(&first) {
            FromBridge::Hello(hello) => hello,
            FromBridge::Malformed(problem) => {
                return Err(DisconnectReason::HelloRejected(format!(
                    "the first frame must be a hello: {problem}"
                )));
            }
            _ => {
                return Err(DisconnectReason::HelloRejected(
                    "the first frame must be a hello".to_owned(),
                ));
            }
        };
        self.check_hello(&hello, authorized)?;
        self.gate.open();
        let connection = self
            .options
            .bridges
            .connect(&hello, &limits)
            .map_err(|_| DisconnectReason::TooManyBridges)?;
        let welcome = ToBridge::Welcome {
            protocol: PROTOCOL,
            instance: &self.options.instance,
        }
        .text();
        if let Err(reason) = with_timeout(
            self.options.limits.write_timeout,
            self.session.text(welcome),
        )
        .await
        {
            connection.disconnect();
            return Err(reason);
        }
        tracing::info!(bridge = connection.info.id, pid = hello.pid, directory = %hello.directory, "bridge connected");
        Ok(connection)
    }

    fn check_hello(&self, hello: &Hello, authorized: bool) -> Result<(), DisconnectReason> {
        if hello.protocol != PROTOCOL {
            return Err(DisconnectReason::HelloRejected(format!(
                "this service uses protocol {PROTOCOL}, not {}; install the plugin that came with it",
                hello.protocol
            )));
        }
        if hello.directory.trim().is_empty() || hello.directory.len() > 4096 {
            return Err(DisconnectReason::HelloRejected(
                "hello: `directory` is the folder of the agent server's instance".to_owned(),
            ));
        }
        if let (Some(own), Some(uid)) = (self.options.uid, hello.uid)
            && own != uid
        {
            return Err(DisconnectReason::HelloRejected(format!(
                "this service belongs to user {own}, not to user {uid}; set `bridge.any_uid` to serve other users"
            )));
        }
        let is_authorized = match (&self.options.token, &hello.token) {
            (None, _) => true,
            (Some(token), Some(given)) => token.matches(given),
            (Some(_), None) => authorized,
        };
        if is_authorized {
            Ok(())
        } else {
            Err(DisconnectReason::HelloRejected(
                "the token is not this service's".to_owned(),
            ))
        }
    }

    /// Reads and dispatches frames until the socket ends; returns the reason.
    async fn serve(
        &mut self,
        connection: &mut Connection,
        writer: &mut JoinHandle<()>,
    ) -> DisconnectReason {
        let limits = self.options.limits;
        let bridges = self.options.bridges.clone();
        let mut pings = interval_at(Instant::now() + limits.ping_interval, limits.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut filter = EventFilter::for_wrapped(DELTA_WINDOW);
        let mut reconcile = Reconcile::default();
        let send_queue = connection.send_queue.clone();
        self.last_received = Instant::now();
        loop {
            let frame = tokio::select! {
                biased;
                () = connection.replaced() => return DisconnectReason::Replaced,
                () = bridges.closed() => return DisconnectReason::ShuttingDown,
                _ = &mut *writer => return DisconnectReason::SlowReader,
                _ = pings.tick() => {
                    send_queue.push(Outgoing::Ping);
                    continue;
                }
                () = reconcile.due() => {
                    self.options.sink.link(EventLink::Connected);
                    reconcile.finish();
                    continue;
                }
                frame = self.next_text_within(limits.idle_timeout, &send_queue) => match frame {
                    Ok(frame) => frame,
                    Err(reason) => return reason,
                },
            };
            match read(&frame, &mut filter) {
                Incoming::Event(mut event) => {
                    let sink = &self.options.sink;
                    restrict_to(&mut event, &connection.info.directory);
                    let named = event.decoded.session.as_ref();
                    // Only the owner of a session may speak for it.
                    if named.is_none_or(|it| sink.session_named(connection.channel.key(), it)) {
                        let by = connection.channel.key();
                        self.forward_event(by, event, &mut pings, &send_queue).await;
                    }
                }
                Incoming::Ignored => {}
                Incoming::Reconcile => reconcile.request(),
                Incoming::Other(other) => self.dispatch(other, frame.len(), connection),
            }
        }
    }

    fn dispatch(&self, frame: FromBridge, size: usize, connection: &Connection) {
        let send_error = |message: &str| {
            connection
                .send_queue
                .push(Outgoing::Text(ToBridge::Error { message }.text()));
        };
        let (tools, channel) = (self.options.tools.as_ref(), &connection.channel);
        match frame {
            FromBridge::ToolCall(call) => {
                let sink = &self.options.sink;
                connection.calls.start(call, size, tools, channel, sink);
            }
            FromBridge::BadToolCall { id, problem } => tool_calls::refuse(channel, &id, &problem),
            FromBridge::ToolAbort(id) => connection.calls.abort(&id),
            FromBridge::Response(response) => channel.receive_response(response),
            FromBridge::Compaction { id, session } => {
                // Only the owner of a session reads its tasks.
                let is_owner = self.options.sink.session_named(channel.key(), &session);
                let tools = tools.filter(|_| is_owner);
                connection.calls.compaction(id, session, tools, channel);
            }
            FromBridge::Disposing => self.options.sink.instance_ended(&connection.info),
            FromBridge::Hello(_) => send_error("this bridge has sent its hello already"),
            FromBridge::Malformed(problem) => send_error(&problem),
            FromBridge::Unknown(_) | FromBridge::Event(_) | FromBridge::Reconcile => {}
        }
    }

    /// Passes one event to the sink. Meanwhile the socket is not read, which slows the bridge down, but it is pinged, and
    /// the wait does not count as idle time.
    async fn forward_event(
        &mut self,
        by: &BridgeKey,
        event: ForwardedEvent<'_>,
        pings: &mut tokio::time::Interval,
        send_queue: &SendQueue,
    ) {
        let sink = self.options.sink.clone();
        let mut passed = std::pin::pin!(sink.event(by, event));
        loop {
            tokio::select! {
                () = &mut passed => break,
                _ = pings.tick() => send_queue.push(Outgoing::Ping),
            }
        }
        self.last_received = Instant::now();
    }

    async fn next_text_within(
        &mut self,
        idle_timeout: Duration,
        send_queue: &SendQueue,
    ) -> Result<String, DisconnectReason> {
        loop {
            let last_received = self.last_received;
            match timeout_at(last_received + idle_timeout, self.next_frame()).await {
                Err(_) => return Err(DisconnectReason::IdleTimeout),
                Ok(Ok(ReceivedFrame::Text(text))) => return Ok(text),
                Ok(Ok(ReceivedFrame::Ping(payload))) => send_queue.push(Outgoing::Pong(payload)),
                Ok(Ok(ReceivedFrame::Pong)) => {}
                Ok(Err(reason)) => return Err(reason),
            }
        }
    }

    async fn next_text(&mut self) -> Result<String, DisconnectReason> {
        loop {
            match self.next_frame().await? {
                ReceivedFrame::Text(text) => return Ok(text),
                ReceivedFrame::Ping(payload) => {
                    with_timeout(
                        self.options.limits.write_timeout,
                        self.session.pong(&payload),
                    )
                    .await?
                }
                ReceivedFrame::Pong => {}
            }
        }
    }

    /// Returns the next frame. Cancel-safe.
    async fn next_frame(&mut self) -> Result<ReceivedFrame, DisconnectReason> {
        let frame = match self.messages.recv().await {
            None => return Err(DisconnectReason::PeerClosed),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(DisconnectReason::of(&error)),
        };
        self.last_received = Instant::now();
        match frame {
            AggregatedMessage::Text(text) => Ok(ReceivedFrame::Text(text.to_string())),
            // An empty text is a malformed frame, which is answered with an error.
            AggregatedMessage::Binary(_) => Ok(ReceivedFrame::Text(String::new())),
            AggregatedMessage::Ping(payload) => Ok(ReceivedFrame::Ping(payload)),
            AggregatedMessage::Pong(_) => Ok(ReceivedFrame::Pong),
            AggregatedMessage::Close(_) => Err(DisconnectReason::PeerClosed),
        }
    }
}

/// Restricts the end of an instance to the directory of the bridge that reports it: each directory has its own bridge.
fn restrict_to(event: &mut ForwardedEvent<'_>, directory: &str) {
    event.decoded.disposed = event.decoded.disposed.take().and_then(|disposed| {
        let of_other = disposed.directory.is_some_and(|of| *of != *directory);
        (!of_other).then(|| InstanceDisposed {
            directory: Some(directory.into()),
        })
    });
}

/// A received websocket frame.
enum ReceivedFrame {
    Text(String),
    Ping(actix_web::web::Bytes),
    /// A pong; it only resets the idle time.
    Pong,
}

/// Limits how often a bridge can have running tasks reconciled.
#[derive(Default)]
struct Reconcile {
    at: Option<Instant>,
    last: Option<Instant>,
}

impl Reconcile {
    fn request(&mut self) {
        let now = Instant::now();
        let soonest = self.last.map_or(now, |last| last + RECONCILE_INTERVAL);
        self.at.get_or_insert(soonest.max(now));
    }

    async fn due(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn finish(&mut self) {
        self.at = None;
        self.last = Some(Instant::now());
    }
}
