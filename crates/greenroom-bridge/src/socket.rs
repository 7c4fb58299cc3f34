//! One socket, from its hello to its close: frames are read here and handed to whoever they are for; what is said to the
//! bridge goes through the outbox to a writer of its own, so that a bridge that does not read holds up nobody.

use std::time::Duration;

use actix_web::rt;
use actix_ws::{AggregatedMessage, AggregatedMessageStream, Session};
use greenroom::EventLink;
use greenroom::domain::sift::{Passed, Sift};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout, timeout_at};

use crate::calls;
use crate::ending::{End, close, within, write};
use crate::frames::{Incoming, read};
use crate::options::BridgeOptions;
use crate::outbox::{Out, Outbox};
use crate::protocol::{FromBridge, Hello, PROTOCOL, ToBridge};
use crate::registry::{Left, Seat};

/// How long what was said last may take to be written, when the socket ends.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A text delta per session is passed on at most so often.
const DELTAS: Duration = Duration::from_millis(100);
/// A bridge is looked after at most so often, however often it asks.
const RECONCILE_EVERY: Duration = Duration::from_secs(1);

/// A socket that has been let in.
pub(crate) struct Socket {
    session: Session,
    messages: AggregatedMessageStream,
    options: BridgeOptions,
    heard: Instant,
}

impl Socket {
    pub(crate) fn new(
        session: Session,
        messages: AggregatedMessageStream,
        options: BridgeOptions,
    ) -> Self {
        Self {
            session,
            messages,
            options,
            heard: Instant::now(),
        }
    }

    /// Lives until it ends; `trusted` if its request brought the token.
    pub(crate) async fn run(mut self, trusted: bool) {
        let bridges = self.options.bridges.clone();
        let greeted = tokio::select! {
            greeted = self.greet(trusted) => greeted,
            () = bridges.closed() => Err(End::Leaving),
        };
        let end = match greeted {
            Err(end) => end,
            Ok(seat) => self.seated(seat).await,
        };
        close(self.session, end, self.options.limits.write_within).await;
    }

    async fn seated(&mut self, mut seat: Seat) -> End {
        let info = seat.info.clone();
        let sink = self.options.sink.clone();
        sink.arrived(&info);
        seat.open();
        // Events before this moment were lost: whatever runs is looked at.
        sink.link(EventLink::Connected);
        let (session, outbox) = (self.session.clone(), seat.outbox.clone());
        let mut writer = rt::spawn(write(
            session,
            outbox,
            seat.line.clone(),
            self.options.limits.write_within,
        ));
        let mut end = self.serve(&mut seat, &mut writer).await;
        if end == End::Slow && seat.is_evicted() {
            end = End::Evicted;
        }
        seat.outbox.finish();
        // Awaited once only: it may have been its end that ended this.
        if !writer.is_finished() && timeout(LAST_WORDS, &mut writer).await.is_err() {
            writer.abort();
        }
        let left = seat.leave();
        if left != Left::Replaced {
            sink.left(&info);
        }
        if left == Left::Nobody && self.options.only_source {
            sink.link(EventLink::Broken);
        }
        tracing::info!(bridge = info.id, ?end, "bridge disconnected");
        end
    }

    /// Waits for the hello and judges it.
    async fn greet(&mut self, trusted: bool) -> Result<Seat, End> {
        let limits = self.options.limits;
        let deadline = Instant::now() + limits.hello_within;
        let first = match timeout_at(deadline, self.next_text()).await {
            Ok(first) => first?,
            Err(_) => {
                return Err(End::Refused(format!(
                    "no hello within {:?}",
                    limits.hello_within
                )));
            }
        };
        let hello = match FromBridge::read(&first) {
            FromBridge::Hello(hello) => hello,
            FromBridge::Malformed(problem) => {
                return Err(End::Refused(format!(
                    "the first frame must be a hello: {problem}"
                )));
            }
            _ => return Err(End::Refused("the first frame must be a hello".to_owned())),
        };
        self.judge(&hello, trusted)?;
        let seat = self
            .options
            .bridges
            .take(&hello, &limits)
            .map_err(|_| End::Full)?;
        let welcome = ToBridge::Welcome {
            protocol: PROTOCOL,
            instance: &self.options.instance,
        }
        .text();
        if let Err(end) = within(self.options.limits.write_within, self.session.text(welcome)).await
        {
            seat.leave();
            return Err(end);
        }
        tracing::info!(bridge = seat.info.id, pid = hello.pid, directory = %hello.directory, "bridge connected");
        Ok(seat)
    }

    fn judge(&self, hello: &Hello, trusted: bool) -> Result<(), End> {
        if hello.protocol != PROTOCOL {
            return Err(End::Refused(format!(
                "this service speaks protocol {PROTOCOL}, not {}; install the plugin that came with it",
                hello.protocol
            )));
        }
        if hello.directory.trim().is_empty() || hello.directory.len() > 4096 {
            return Err(End::Refused(
                "hello: `directory` is the folder of the agent server's instance".to_owned(),
            ));
        }
        let known = match (&self.options.token, &hello.token) {
            (None, _) => true,
            (Some(token), Some(given)) => token.matches(given),
            (Some(_), None) => trusted,
        };
        if known {
            Ok(())
        } else {
            Err(End::Refused("the token is not this service's".to_owned()))
        }
    }

    /// Hands on what comes until the socket ends.
    async fn serve(&mut self, seat: &mut Seat, writer: &mut JoinHandle<()>) -> End {
        let limits = self.options.limits;
        let bridges = self.options.bridges.clone();
        let mut pings = interval_at(Instant::now() + limits.ping_every, limits.ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sift = Sift::of_wrapped(DELTAS);
        let mut reconcile = Reconcile::default();
        let outbox = seat.outbox.clone();
        self.heard = Instant::now();
        loop {
            let frame = tokio::select! {
                biased;
                () = seat.evicted() => return End::Evicted,
                () = bridges.closed() => return End::Leaving,
                _ = &mut *writer => return End::Slow,
                _ = pings.tick() => {
                    outbox.push(Out::Ping);
                    continue;
                }
                () = reconcile.due() => {
                    self.options.sink.link(EventLink::Connected);
                    reconcile.done();
                    continue;
                }
                frame = self.next_text_within(limits.silence, &outbox) => match frame {
                    Ok(frame) => frame,
                    Err(end) => return end,
                },
            };
            match read(&frame, &mut sift) {
                Incoming::Event(event) => {
                    if let Some(session) = &event.heard.session {
                        self.options.sink.named(seat.line.key(), session);
                    }
                    self.pass_on(event, &mut pings, &outbox).await;
                }
                Incoming::Nothing => {}
                Incoming::Reconcile => reconcile.wanted(),
                Incoming::Other(other) => self.hand_on(other, frame.len(), seat),
            }
        }
    }

    fn hand_on(&self, frame: FromBridge, size: usize, seat: &Seat) {
        let complain = |message: &str| {
            seat.outbox
                .push(Out::Text(ToBridge::Error { message }.text()));
        };
        let (tools, line) = (self.options.tools.as_ref(), &seat.line);
        match frame {
            FromBridge::ToolCall(call) => {
                self.options
                    .sink
                    .named(line.key(), &call.context.session_id);
                seat.calls.begin(call, size, tools, line);
            }
            FromBridge::BadToolCall { id, problem } => calls::refuse(line, &id, &problem),
            FromBridge::ToolAbort(id) => seat.calls.abort(&id),
            FromBridge::Response(response) => line.answered(response),
            FromBridge::Compaction { id, session } => {
                self.options.sink.named(line.key(), &session);
                seat.calls.compaction(id, session, tools, line);
            }
            FromBridge::Hello(_) => complain("this bridge has said hello already"),
            FromBridge::Malformed(problem) => complain(&problem),
            FromBridge::Unknown(_) | FromBridge::Event(_) | FromBridge::Reconcile => {}
        }
    }

    /// Hands one event to the sink. The socket is not read meanwhile, which holds the other side back, but it is
    /// pinged, and the wait does not count as its silence.
    async fn pass_on(
        &mut self,
        event: Passed<'_>,
        pings: &mut tokio::time::Interval,
        outbox: &Outbox,
    ) {
        let sink = self.options.sink.clone();
        let mut passed = std::pin::pin!(sink.event(event));
        loop {
            tokio::select! {
                () = &mut passed => break,
                _ = pings.tick() => outbox.push(Out::Ping),
            }
        }
        self.heard = Instant::now();
    }

    async fn next_text_within(
        &mut self,
        silence: Duration,
        outbox: &Outbox,
    ) -> Result<String, End> {
        loop {
            let heard = self.heard;
            match timeout_at(heard + silence, self.next_frame()).await {
                Err(_) => return Err(End::Silent),
                Ok(Ok(Heard::Text(text))) => return Ok(text),
                Ok(Ok(Heard::Ping(payload))) => outbox.push(Out::Pong(payload)),
                Ok(Ok(Heard::Pong)) => {}
                Ok(Err(end)) => return Err(end),
            }
        }
    }

    async fn next_text(&mut self) -> Result<String, End> {
        loop {
            match self.next_frame().await? {
                Heard::Text(text) => return Ok(text),
                Heard::Ping(payload) => {
                    within(
                        self.options.limits.write_within,
                        self.session.pong(&payload),
                    )
                    .await?
                }
                Heard::Pong => {}
            }
        }
    }

    /// The next frame. Cancel-safe: a frame is taken whole or not.
    async fn next_frame(&mut self) -> Result<Heard, End> {
        let frame = match self.messages.recv().await {
            None => return Err(End::Gone),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(End::of(&error)),
        };
        self.heard = Instant::now();
        match frame {
            AggregatedMessage::Text(text) => Ok(Heard::Text(text.to_string())),
            // Read as an empty text it is malformed, and answered as such.
            AggregatedMessage::Binary(_) => Ok(Heard::Text(String::new())),
            AggregatedMessage::Ping(payload) => Ok(Heard::Ping(payload)),
            AggregatedMessage::Pong(_) => Ok(Heard::Pong),
            AggregatedMessage::Close(_) => Err(End::Gone),
        }
    }
}

/// What a frame was.
enum Heard {
    Text(String),
    Ping(actix_web::web::Bytes),
    /// It only shows life.
    Pong,
}

/// When what runs is to be looked at because a bridge has asked for it.
#[derive(Default)]
struct Reconcile {
    at: Option<Instant>,
    last: Option<Instant>,
}

impl Reconcile {
    fn wanted(&mut self) {
        let now = Instant::now();
        let soonest = self.last.map_or(now, |last| last + RECONCILE_EVERY);
        self.at.get_or_insert(soonest.max(now));
    }

    async fn due(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn done(&mut self) {
        self.at = None;
        self.last = Some(Instant::now());
    }
}
