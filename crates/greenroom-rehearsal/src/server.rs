//! Runs the provider: an actix-web server on a separate thread, so that it can be started from any runtime. It reads each
//! request, decides by the script, and sends the answer.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::web::{Bytes, Data, Json, JsonConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt, web};
use futures::{Stream, StreamExt, stream};
use serde_json::json;

use crate::conversation::{Request, RequestKind, first_words};
use crate::protocol::{Answer, AnswerEnd, Frame, ToolCall, refusal};
use crate::script::{Fault, Script};
use crate::stats::{InFlight, Stats, StatsReport};
use crate::{MODELS, PROVIDER};

/// The largest request in bytes. Each request contains its whole conversation, which can be a few megabytes.
const MAX_BODY: usize = 32 * 1024 * 1024;
/// The longest time between two writes of an answer.
const KEEP_ALIVE: Duration = Duration::from_millis(250);

/// Why the provider could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or does not belong to this machine.
    #[error(
        "cannot listen on {addr}: {source} (choose another with --listen, or port 0 for any free one)"
    )]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The thread could not be created.
    #[error("cannot start the provider's thread: {0}")]
    Thread(io::Error),
}

/// A running provider. Dropping it stops it.
#[derive(Debug)]
pub struct Rehearsal {
    addr: SocketAddr,
    stats: Stats,
    handle: ServerHandle,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Rehearsal {
    /// Starts a provider on that address; port 0 is any free port. It accepts requests when this returns.
    ///
    /// # Errors
    ///
    /// Returns [`StartError`] if the address cannot be bound or the thread cannot be started.
    pub fn start(addr: SocketAddr) -> Result<Self, StartError> {
        let refused = |source| StartError::Listen { addr, source };
        let listener = TcpListener::bind(addr).map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        let stats = Stats::default();
        let shared = stats.clone();
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            rt::System::new().block_on(async move {
                let app = move || {
                    App::new()
                        .app_data(Data::new(shared.clone()))
                        .app_data(
                            JsonConfig::default()
                                .limit(MAX_BODY)
                                .content_type_required(false),
                        )
                        .route("/v1/models", web::get().to(models))
                        .route("/v1/chat/completions", web::post().to(complete))
                        .route("/rehearsal/stats", web::get().to(show_stats))
                        .route("/rehearsal/reset", web::post().to(reset_stats))
                };
                let server = HttpServer::new(app)
                    .workers(1)
                    .disable_signals()
                    .shutdown_timeout(1)
                    .listen(listener);
                match server.map(HttpServer::run) {
                    Ok(server) => {
                        let _ = sender.send(Ok(server.handle()));
                        server.await
                    }
                    Err(source) => {
                        let _ = sender.send(Err(source));
                        Ok(())
                    }
                }
            })
        };
        let thread = std::thread::Builder::new()
            .name("rehearsal".to_owned())
            .spawn(run)
            .map_err(StartError::Thread)?;
        let handle = receiver
            .recv()
            .unwrap_or_else(|gone| Err(io::Error::other(gone)))
            .map_err(refused)?;
        Ok(Self {
            addr,
            stats,
            handle,
            thread: Some(thread),
        })
    }

    /// Returns the address on which it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the base URL for clients of the OpenAI protocol.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Returns the counters of the requests so far.
    pub fn stats(&self) -> StatsReport {
        self.stats.report()
    }

    /// Clears the counters, also of the counted failures.
    pub fn reset(&self) {
        self.stats.reset();
    }

    /// Stops the provider; answers in flight are cut.
    pub async fn stop(mut self) {
        self.handle.stop(false).await;
        if let Some(thread) = self.thread.take() {
            // The server has ended, so the thread is about to return.
            let _ = thread.join();
        }
    }

    /// Waits until the provider ends, for a process that does nothing else.
    ///
    /// # Errors
    ///
    /// Returns the error with which the server ended.
    pub fn wait(mut self) -> io::Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            _ => Err(io::Error::other("the provider's thread panicked")),
        }
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        // The stop command is sent at once; only waiting for the end needs a runtime.
        drop(self.handle.stop(false));
    }
}

async fn models() -> HttpResponse {
    let models: Vec<_> = MODELS
        .iter()
        .map(|id| json!({"id": id, "object": "model", "owned_by": PROVIDER}))
        .collect();
    HttpResponse::Ok().json(json!({"object": "list", "data": models}))
}

async fn show_stats(stats: Data<Stats>) -> HttpResponse {
    HttpResponse::Ok().json(stats.report())
}

async fn reset_stats(stats: Data<Stats>) -> HttpResponse {
    stats.reset();
    HttpResponse::NoContent().finish()
}

async fn complete(http: HttpRequest, stats: Data<Stats>, request: Json<Request>) -> HttpResponse {
    let session = http
        .headers()
        .get("x-session-id")
        .and_then(|id| id.to_str().ok())
        .unwrap_or("none");
    let kind = request.kind();
    let text = match &kind {
        RequestKind::Title { about } => {
            stats.title();
            let answer = Answer {
                text: format!("Rehearsal: {}", first_words(about, 5)),
                ..Answer::default()
            };
            return play(&request, answer, None);
        }
        RequestKind::Notice { first_line } => first_line.as_str(),
        RequestKind::Prompt { text, .. } | RequestKind::Summary { text } => text.as_str(),
    };
    let in_flight = stats.begin(&request.model, session, text);
    match decide(&stats, session, &kind, request.length()) {
        Decision::Answer(answer) => play(&request, answer, Some(in_flight)),
        Decision::Refuse {
            status,
            message,
            retry_after,
            wait,
        } => {
            tokio::time::sleep(wait).await;
            let mut response = HttpResponse::build(
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            );
            if let Some(time) = retry_after {
                // The header is in whole seconds, rounded up.
                response
                    .insert_header((RETRY_AFTER, (time.as_millis().div_ceil(1000)).to_string()));
            }
            response.json(refusal(status, &message))
        }
    }
}

/// The decision about a request.
enum Decision {
    Answer(Answer),
    Refuse {
        status: u16,
        message: String,
        retry_after: Option<Duration>,
        wait: Duration,
    },
}

fn decide(stats: &Stats, session: &str, kind: &RequestKind, length: usize) -> Decision {
    let (text, answers) = match kind {
        RequestKind::Title { about: line } | RequestKind::Notice { first_line: line } => {
            return Decision::Answer(Answer {
                text: format!("Noted: {line}"),
                ..Answer::default()
            });
        }
        RequestKind::Summary { .. } => {
            return Decision::Answer(Answer {
                text: "Rehearsal: a summary of the conversation.".to_owned(),
                ..Answer::default()
            });
        }
        RequestKind::Prompt { text, answers } => (text, *answers),
    };
    let turn = match Script::read(text) {
        Ok(script) => script.turn(answers),
        Err(error) => {
            let message = error.to_string();
            return Decision::Refuse {
                status: 400,
                message,
                retry_after: None,
                wait: Duration::ZERO,
            };
        }
    };
    let mut end = AnswerEnd::Complete;
    for (nth, fault) in turn.faults.iter().enumerate() {
        let times = match fault {
            Fault::Fail { times, .. } | Fault::Drop { times } => *times,
            Fault::Hang => None,
        };
        if !stats.use_fault(session, fingerprint(&(text, answers, nth)), times) {
            continue;
        }
        end = match fault {
            Fault::Fail { status, .. } => {
                let message = format!("rehearsed failure {status}");
                return Decision::Refuse {
                    status: *status,
                    message,
                    retry_after: turn.retry_after,
                    wait: turn.wait,
                };
            }
            Fault::Drop { .. } => AnswerEnd::Cut,
            Fault::Hang => AnswerEnd::Hang,
        };
        break;
    }
    let call = turn.call.map(|(tool, args)| ToolCall {
        id: format!("call_{length}_{answers}"),
        tool,
        args,
    });
    // A turn without a tool call needs a text.
    let answer = turn.text.unwrap_or_else(|| match call {
        Some(_) => String::new(),
        None => format!("Done: {}", first_words(&without_markers(text), 12)),
    });
    Decision::Answer(Answer {
        wait: turn.wait,
        slow: turn.slow,
        text: answer,
        call,
        end,
    })
}

/// Sends the answer. The request counts as in flight until its last word is sent or the client has disconnected.
fn play(request: &Request, answer: Answer, in_flight: Option<InFlight>) -> HttpResponse {
    let id = format!("rehearsal-{}", request.length());
    let frames = answer.frames(&id, &request.model);
    if request.stream {
        return HttpResponse::Ok()
            .content_type("text/event-stream")
            .streaming(body(frames, ":\n\n", in_flight));
    }
    let after = frames.iter().map(|frame| frame.after).sum();
    let whole =
        (answer.end == AnswerEnd::Complete).then(|| answer.whole(&id, &request.model).to_string());
    let frames = vec![Frame {
        after,
        bytes: whole,
    }];
    HttpResponse::Ok()
        .content_type("application/json")
        .streaming(body(frames, " ", in_flight))
}

/// Returns a stream of the frames at their times. Between them `keep_alive`, which clients ignore, is sent: the server
/// notices a disconnected client only when it writes.
fn body(
    frames: Vec<Frame>,
    keep_alive: &'static str,
    in_flight: Option<InFlight>,
) -> impl Stream<Item = io::Result<Bytes>> + use<> {
    let paced = frames.into_iter().flat_map(move |frame| {
        let writes =
            usize::try_from(frame.after.as_millis() / KEEP_ALIVE.as_millis()).unwrap_or(usize::MAX);
        let rest = frame
            .after
            .saturating_sub(KEEP_ALIVE.saturating_mul(u32::try_from(writes).unwrap_or(u32::MAX)));
        let waiting = std::iter::repeat_with(move || {
            (KEEP_ALIVE, Some(Bytes::from_static(keep_alive.as_bytes())))
        });
        waiting
            .take(writes)
            .chain(std::iter::once((rest, frame.bytes.map(Bytes::from))))
    });
    stream::iter(paced).then(move |(after, bytes)| {
        let _held = &in_flight;
        async move {
            tokio::time::sleep(after).await;
            bytes.ok_or_else(|| io::Error::other("the script cuts the connection here"))
        }
    })
}

/// Returns the prompt as the default answer repeats it. The markers are removed, since the agent that reads the answer
/// would play them again.
fn without_markers(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[[") {
        kept.push_str(before);
        rest = after.split_once("]]").map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept
}

fn fingerprint(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}
