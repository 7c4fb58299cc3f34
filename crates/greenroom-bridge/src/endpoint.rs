//! One socket, from its upgrade to its close: the hello, then events, pings and the rules of silence and size. The host
//! mounts it with [`configure`]; events go to the sink of its [`BridgeOptions`].

use std::time::Duration;

use actix_web::http::header::{ALLOW, AUTHORIZATION};
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use actix_ws::{
    AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, ProtocolError, Session,
};
use greenroom::EventLink;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};

use crate::options::{BridgeOptions, SocketCount};
use crate::protocol::{FromBridge, Hello, PROTOCOL, ToBridge};
use crate::registry::Seat;

/// Where the bridge is mounted.
pub const PATH: &str = "/v1/bridge";
/// How long one write to a bridge may take: one that reads nothing any more is gone.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// The close code for a bridge whose process has said hello again; it must not reconnect, or the two would evict each
/// other for ever.
pub const REPLACED: u16 = 4001;

/// Mounts the bridge at [`PATH`].
pub fn configure(cfg: &mut ServiceConfig, options: BridgeOptions) {
    cfg.app_data(Data::new(options)).service(
        web::resource(PATH)
            .route(web::get().to(upgrade))
            .default_service(web::to(wrong_method)),
    );
}

async fn wrong_method(request: HttpRequest) -> HttpResponse {
    let mut builder = HttpResponse::MethodNotAllowed();
    builder.insert_header((ALLOW, "GET"));
    let message = format!("{} {PATH} is no call", request.method());
    refuse(builder, "method_not_allowed", &message, "use GET")
}

async fn upgrade(
    request: HttpRequest,
    body: Payload,
    options: Data<BridgeOptions>,
) -> HttpResponse {
    let header = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let trusted = match (&options.token, header) {
        (Some(token), Some(given)) if !token.matches_header(given) => {
            let hint = "send the service's token as `Authorization: Bearer …`, or in the hello";
            return refuse(
                HttpResponse::Unauthorized(),
                "unauthorized",
                "the token is not this service's",
                hint,
            );
        }
        (None, _) | (Some(_), Some(_)) => true,
        (Some(_), None) => false,
    };
    let Some(socket_count) =
        SocketCount::enter(&options.sockets, options.limits.bridges.saturating_mul(2))
    else {
        let hint = "close bridges that are not needed, or try again later";
        return refuse(
            HttpResponse::ServiceUnavailable(),
            "too_many_bridges",
            "too many sockets are open",
            hint,
        );
    };
    let (response, session, messages) = match actix_ws::handle(&request, body) {
        Ok(upgraded) => upgraded,
        Err(error) => {
            let hint = "connect with a websocket client";
            return refuse(
                HttpResponse::BadRequest(),
                "not_a_websocket",
                &error.to_string(),
                hint,
            );
        }
    };
    let frame = options.limits.frame;
    let messages = messages
        .max_frame_size(frame)
        .aggregate_continuations()
        .max_continuation_size(frame);
    let socket = Socket {
        session,
        messages,
        options: options.get_ref().clone(),
        heard: Instant::now(),
    };
    actix_web::rt::spawn(async move {
        socket.run(trusted).await;
        drop(socket_count);
    });
    response
}

fn refuse(
    mut builder: actix_web::HttpResponseBuilder,
    code: &str,
    message: &str,
    hint: &str,
) -> HttpResponse {
    builder.json(json!({ "error": { "code": code, "message": message, "hint": hint } }))
}

/// Why a socket ends.
#[derive(Debug, PartialEq)]
enum End {
    /// The other side closed it, or it broke.
    Gone,
    /// A frame was too large.
    TooLarge,
    /// A frame broke the rules of websockets.
    Broken,
    /// Nothing was heard for too long.
    Silent,
    /// The same process has said hello again.
    Evicted,
    /// Its hello was not accepted.
    Refused(String),
    /// There are too many bridges.
    Full,
    /// The service goes away.
    Leaving,
}

struct Socket {
    session: Session,
    messages: AggregatedMessageStream,
    options: BridgeOptions,
    heard: Instant,
}

impl Socket {
    async fn run(mut self, trusted: bool) {
        let bridges = self.options.bridges.clone();
        let greeted = tokio::select! {
            greeted = self.greet(trusted) => greeted,
            () = bridges.closed() => Err(End::Leaving),
        };
        let end = match greeted {
            Err(end) => end,
            Ok(mut seat) => {
                let end = self.serve(&mut seat).await;
                let id = seat.id();
                if seat.leave() && self.options.only_source {
                    self.options.sink.link(EventLink::Broken);
                }
                tracing::info!(bridge = id, ?end, "bridge disconnected");
                end
            }
        };
        self.close(end).await;
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
            _ => {
                return Err(End::Refused("the first frame must be a hello".to_owned()));
            }
        };
        self.judge(&hello, trusted)?;
        let seat = self
            .options
            .bridges
            .take(&hello, limits.bridges)
            .map_err(|_| End::Full)?;
        let welcome = ToBridge::Welcome {
            protocol: PROTOCOL,
            instance: &self.options.instance,
        }
        .text();
        if let Err(end) = self.say(welcome).await {
            seat.leave();
            return Err(end);
        }
        tracing::info!(bridge = seat.id(), pid = hello.pid, directory = %hello.directory, "bridge connected");
        // Events before this moment were lost: whatever runs is looked at.
        self.options.sink.link(EventLink::Connected);
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

    /// Passes events on until the socket ends.
    async fn serve(&mut self, seat: &mut Seat) -> End {
        let limits = self.options.limits;
        let bridges = self.options.bridges.clone();
        let mut pings = interval_at(Instant::now() + limits.ping_every, limits.ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.heard = Instant::now();
        loop {
            let frame = tokio::select! {
                frame = self.next_text_within(limits.silence) => frame,
                () = seat.evicted() => return End::Evicted,
                () = bridges.closed() => return End::Leaving,
                _ = pings.tick() => match self.ping().await {
                    Ok(()) => continue,
                    Err(end) => return end,
                },
            };
            let handled = match frame {
                Err(end) => return end,
                Ok(frame) => match FromBridge::read(&frame) {
                    FromBridge::Event(event) => self.pass_on(&event, &mut pings).await,
                    // Tools and requests are not carried yet.
                    FromBridge::Unknown(_)
                    | FromBridge::ToolCall(_)
                    | FromBridge::BadToolCall { .. }
                    | FromBridge::ToolAbort(_)
                    | FromBridge::Response(_)
                    | FromBridge::Compaction { .. }
                    | FromBridge::Reconcile => Ok(()),
                    FromBridge::Hello(_) => {
                        self.complain("this bridge has said hello already").await
                    }
                    FromBridge::Malformed(problem) => self.complain(&problem).await,
                },
            };
            if let Err(end) = handled {
                return end;
            }
        }
    }

    /// Hands one event to the sink. The socket is not read meanwhile, which holds the other side back, but it is
    /// pinged, and the wait does not count as its silence.
    async fn pass_on(
        &mut self,
        event: &serde_json::Value,
        pings: &mut tokio::time::Interval,
    ) -> Result<(), End> {
        let sink = self.options.sink.clone();
        let mut passed = std::pin::pin!(sink.event(event));
        loop {
            tokio::select! {
                () = &mut passed => break,
                _ = pings.tick() => self.ping().await?,
            }
        }
        self.heard = Instant::now();
        Ok(())
    }

    async fn next_text_within(&mut self, silence: Duration) -> Result<String, End> {
        loop {
            let heard = self.heard;
            match timeout_at(heard + silence, self.next_frame()).await {
                Err(_) => return Err(End::Silent),
                Ok(Ok(Some(text))) => return Ok(text),
                Ok(Ok(None)) => {}
                Ok(Err(end)) => return Err(end),
            }
        }
    }

    async fn next_text(&mut self) -> Result<String, End> {
        loop {
            if let Some(text) = self.next_frame().await? {
                return Ok(text);
            }
        }
    }

    /// The next frame: its text, or none for one that only shows life. Cancel-safe: a frame is taken whole or not.
    async fn next_frame(&mut self) -> Result<Option<String>, End> {
        let frame = match self.messages.recv().await {
            None => return Err(End::Gone),
            Some(Ok(frame)) => frame,
            Some(Err(ProtocolError::Overflow)) => return Err(End::TooLarge),
            // A message of many frames that is too large comes as an untyped error of kind `Other`, as does a cut
            // connection, to which a close frame does no harm.
            Some(Err(ProtocolError::Io(error))) if error.kind() == std::io::ErrorKind::Other => {
                return Err(End::TooLarge);
            }
            Some(Err(_)) => return Err(End::Broken),
        };
        self.heard = Instant::now();
        match frame {
            AggregatedMessage::Text(text) => Ok(Some(text.to_string())),
            // Read as an empty text it is malformed, and answered as such.
            AggregatedMessage::Binary(_) => Ok(Some(String::new())),
            AggregatedMessage::Ping(payload) => {
                within(self.session.pong(&payload)).await?;
                Ok(None)
            }
            AggregatedMessage::Pong(_) => Ok(None),
            AggregatedMessage::Close(_) => Err(End::Gone),
        }
    }

    async fn say(&mut self, text: String) -> Result<(), End> {
        within(self.session.text(text)).await
    }

    async fn complain(&mut self, message: &str) -> Result<(), End> {
        self.say(ToBridge::Error { message }.text()).await
    }

    async fn ping(&mut self) -> Result<(), End> {
        within(self.session.ping(b"")).await
    }

    async fn close(mut self, end: End) {
        let (code, reason) = match end {
            End::Gone => (CloseCode::Normal, "closed"),
            End::TooLarge => (CloseCode::Size, "frames are at most 4 MiB"),
            End::Broken => (CloseCode::Protocol, "a frame broke the rules of websockets"),
            End::Silent => (CloseCode::Away, "nothing heard for too long"),
            End::Evicted => (
                CloseCode::Other(REPLACED),
                "replaced by a newer bridge of this process and directory",
            ),
            End::Leaving => (CloseCode::Away, "the service goes away"),
            End::Full => {
                let _ = self
                    .complain("too many bridges are connected; close some, or try again later")
                    .await;
                (CloseCode::Again, "too many bridges")
            }
            End::Refused(problem) => {
                let _ = self.complain(&problem).await;
                (CloseCode::Policy, "hello not accepted")
            }
        };
        // A bridge that is gone cannot be told so.
        let _ = within(self.session.close(Some(CloseReason {
            code,
            description: Some(reason.to_owned()),
        })))
        .await;
    }
}

async fn within(write: impl Future<Output = Result<(), actix_ws::Closed>>) -> Result<(), End> {
    match timeout(WRITE_WITHIN, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Gone),
    }
}
