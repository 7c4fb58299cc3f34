//! An agent server on a port of loopback that speaks as much of opencode's HTTP API and event stream as the service asks
//! for. What a session does is said by the first words of its prompt: `answer MS`, `fail MS` or `hang`.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use actix_web::web::{Bytes, Data, Json, Path};
use actix_web::{App, HttpResponse, HttpServer, web};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Sessions remembered; older ones are not found any more.
const SESSIONS: usize = 5_000;
/// Events that a slow reader may be behind.
const BEHIND: usize = 8_192;
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Deltas of an answer.
const DELTAS: usize = 10;

#[derive(Debug, Default)]
struct Session {
    parent: Value,
    metadata: Value,
    messages: Vec<Value>,
    busy: bool,
    /// Which prompt it is at: what was begun before an abort or a further prompt goes no further.
    turn: u64,
}

#[derive(Debug, Default)]
struct Sessions {
    by_id: HashMap<String, Session>,
    order: VecDeque<String>,
    made: u64,
}

/// A running one; it ends with the process.
#[derive(Debug)]
pub struct Agent {
    /// Where it is.
    pub address: SocketAddr,
}

struct State {
    sessions: Mutex<Sessions>,
    events: broadcast::Sender<Bytes>,
}

impl Agent {
    /// Listens on a free port, on a thread of its own.
    ///
    /// # Errors
    /// There is no free port.
    pub fn start() -> Result<Self, String> {
        let listener =
            std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let state = Data::new(State {
            sessions: Mutex::default(),
            events: broadcast::Sender::new(BEHIND),
        });
        let server = move || {
            actix_web::rt::System::new().block_on(async move {
                HttpServer::new(move || App::new().app_data(state.clone()).configure(routes))
                    .workers(1)
                    .disable_signals()
                    .listen(listener)?
                    .run()
                    .await
            })
        };
        std::thread::spawn(server);
        Ok(Self { address })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn routes(cfg: &mut web::ServiceConfig) {
    let truth = || async { HttpResponse::Ok().json(true) };
    cfg.route("/global/health", web::get().to(healthy))
        .route("/global/event", web::get().to(events))
        .route("/session", web::post().to(create))
        .route("/session", web::get().to(nothing))
        .route("/session/status", web::get().to(statuses))
        .route("/session/{id}", web::get().to(session))
        .route("/session/{id}/message", web::get().to(messages))
        .route("/session/{id}/todo", web::get().to(nothing))
        .route("/session/{id}/children", web::get().to(nothing))
        .route("/session/{id}/prompt_async", web::post().to(prompt))
        .route("/session/{id}/abort", web::post().to(abort))
        .route("/tui/show-toast", web::post().to(truth));
}

async fn healthy() -> HttpResponse {
    HttpResponse::Ok().json(json!({"healthy": true, "version": "1.18.33"}))
}

async fn nothing() -> HttpResponse {
    HttpResponse::Ok().json(json!([]))
}

async fn events(state: Data<State>) -> HttpResponse {
    let told = state.events.subscribe();
    let first = futures::stream::once(async { wire("server.connected", &json!({})) });
    let rest = futures::stream::unfold(told, |mut told| async {
        let next = tokio::time::timeout(HEARTBEAT, told.recv()).await;
        let text = match next {
            Ok(Ok(text)) => text,
            Err(_) => wire("server.heartbeat", &json!({})),
            // Who is too far behind is cut off, and connects anew.
            Ok(Err(_)) => return None,
        };
        Some((text, told))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .streaming(first.chain(rest).map(Ok::<_, actix_web::Error>))
}

fn wire(kind: &str, properties: &Value) -> Bytes {
    let event = json!({"directory": "/", "payload": {"type": kind, "properties": properties}});
    Bytes::from(format!("data: {event}\n\n"))
}

fn millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn gone(id: &str) -> HttpResponse {
    let message = format!("Session not found: {id}");
    HttpResponse::NotFound().json(json!({"name": "NotFoundError", "data": {"message": message}}))
}

async fn create(state: Data<State>, body: Json<Value>) -> HttpResponse {
    let mut sessions = state.sessions();
    sessions.made += 1;
    let id = format!("ses_{:010}", sessions.made);
    let session = Session {
        parent: body["parentID"].clone(),
        metadata: body["metadata"].clone(),
        ..Session::default()
    };
    let answer = session.shown(&id);
    sessions.by_id.insert(id.clone(), session);
    sessions.order.push_back(id);
    if sessions.order.len() > SESSIONS
        && let Some(oldest) = sessions.order.pop_front()
    {
        sessions.by_id.remove(&oldest);
    }
    HttpResponse::Ok().json(answer)
}

async fn session(state: Data<State>, id: Path<String>) -> HttpResponse {
    match state.sessions().by_id.get(&*id) {
        Some(session) => HttpResponse::Ok().json(session.shown(&id)),
        // Parents were there before.
        None if id.starts_with("ses_parent") => {
            HttpResponse::Ok().json(Session::default().shown(&id))
        }
        None => gone(&id),
    }
}

async fn statuses(state: Data<State>) -> HttpResponse {
    let sessions = state.sessions();
    let busy = sessions.by_id.iter().filter(|(_, session)| session.busy);
    let busy: HashMap<&String, Value> = busy.map(|(id, _)| (id, json!({"type": "busy"}))).collect();
    HttpResponse::Ok().json(busy)
}

async fn messages(state: Data<State>, id: Path<String>) -> HttpResponse {
    match state.sessions().by_id.get(&*id) {
        Some(session) => HttpResponse::Ok().json(&session.messages),
        None if id.starts_with("ses_parent") => HttpResponse::Ok().json(json!([])),
        None => gone(&id),
    }
}

async fn abort(state: Data<State>, id: Path<String>) -> HttpResponse {
    let was_busy = state.sessions().by_id.get_mut(&*id).is_some_and(|session| {
        session.turn += 1;
        std::mem::take(&mut session.busy)
    });
    if was_busy {
        let error = json!({"name": "MessageAbortedError", "data": {"message": "Aborted"}});
        state.say("session.error", json!({"sessionID": *id, "error": error}));
        state.say("session.idle", json!({"sessionID": *id}));
    }
    HttpResponse::Ok().json(true)
}

async fn prompt(state: Data<State>, id: Path<String>, body: Json<Value>) -> HttpResponse {
    let id = id.into_inner();
    if id.starts_with("ses_parent") {
        return HttpResponse::NoContent().finish();
    }
    let part = body["parts"][0].clone();
    let text = part["text"].as_str().unwrap_or_default().to_owned();
    let turn = {
        let mut sessions = state.sessions();
        let Some(session) = sessions.by_id.get_mut(&id) else {
            return gone(&id);
        };
        session.turn += 1;
        session.busy = true;
        let number = session.messages.len();
        session.messages.push(json!({
            "info": {"id": format!("msg_{id}_{number:04}"), "role": "user", "time": {"created": millis()}},
            "parts": [part],
        }));
        session.turn
    };
    state.say(
        "session.status",
        json!({"sessionID": id, "status": {"type": "busy"}}),
    );
    let mut words = text.split_whitespace();
    let what = words.next().unwrap_or_default().to_owned();
    let wait = words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(10);
    if what != "hang" {
        actix_web::rt::spawn(go_on(state, id, turn, what, Duration::from_millis(wait)));
    }
    HttpResponse::NoContent().finish()
}

/// Works for a while, and comes to the end that it was told.
async fn go_on(state: Data<State>, id: String, turn: u64, what: String, wait: Duration) {
    let message = format!("msg_{id}_{turn:04}a");
    let began = millis();
    let info =
        json!({"id": message, "sessionID": id, "role": "assistant", "time": {"created": began}});
    state.say("message.updated", json!({"sessionID": id, "info": info}));
    for number in 0..DELTAS {
        tokio::time::sleep(wait / DELTAS as u32).await;
        if !state.is_at(&id, turn) {
            return;
        }
        let delta = json!({"sessionID": id, "messageID": message, "partID": format!("prt_{id}"),
            "field": "text", "delta": format!("word {number} ")});
        state.say("message.part.delta", delta);
    }
    let ended = match what.as_str() {
        "fail" => {
            let error = json!({"name": "APIError", "data": {"message": "the model said no"}});
            state.say("session.error", json!({"sessionID": id, "error": error}));
            state.finish(&id, turn, None)
        }
        _ => {
            let info = json!({"id": message, "sessionID": id, "role": "assistant", "finish": "stop",
                "time": {"created": began, "completed": millis()}});
            let part = json!({"id": format!("prt_{id}"), "sessionID": id, "messageID": message,
                "type": "text", "text": "This is what I found, in a few words."});
            state.say(
                "message.part.updated",
                json!({"sessionID": id, "part": part}),
            );
            state.say("message.updated", json!({"sessionID": id, "info": info}));
            state.finish(&id, turn, Some(json!({"info": info, "parts": [part]})))
        }
    };
    if ended {
        state.say("session.idle", json!({"sessionID": id}));
    }
}

impl Session {
    fn shown(&self, id: &str) -> Value {
        json!({"id": id, "parentID": self.parent, "metadata": self.metadata, "directory": "/"})
    }
}

impl State {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, kind: &str, properties: Value) {
        // Nobody may listen.
        let _ = self.events.send(wire(kind, &properties));
    }

    fn is_at(&self, id: &str, turn: u64) -> bool {
        let sessions = self.sessions();
        sessions
            .by_id
            .get(id)
            .is_some_and(|session| session.turn == turn)
    }

    /// True if it was still at that.
    fn finish(&self, id: &str, turn: u64, message: Option<Value>) -> bool {
        let mut sessions = self.sessions();
        let Some(session) = sessions
            .by_id
            .get_mut(id)
            .filter(|session| session.turn == turn)
        else {
            return false;
        };
        session.busy = false;
        session.messages.extend(message);
        true
    }
}
