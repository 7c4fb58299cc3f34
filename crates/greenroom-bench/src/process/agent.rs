//! A scripted agent server on a loopback port. It implements the part of opencode's HTTP API and event stream that the
//! service uses. The first words of a prompt choose the action of its session: `answer MS`, `fail MS` or `hang`.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use actix_web::web::{Bytes, Data, Json, Path};
use actix_web::{App, HttpResponse, HttpServer, web};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::lock;

/// The number of sessions kept; older sessions are removed.
const SESSIONS: usize = 5_000;
/// The number of events that are buffered for a slow reader.
const BEHIND: usize = 8_192;
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The number of deltas of an answer.
const DELTAS: usize = 10;

#[derive(Debug, Default)]
struct Session {
    parent: Value,
    metadata: Value,
    messages: Vec<Value>,
    busy: bool,
    /// The number of the current prompt or abort; work of an earlier number stops.
    turn: u64,
}

#[derive(Debug, Default)]
struct Sessions {
    by_id: HashMap<String, Session>,
    order: VecDeque<String>,
    made: u64,
}

/// A running agent server; it ends with the process.
#[derive(Debug)]
pub struct Agent {
    /// Its address.
    pub address: SocketAddr,
}

struct State {
    sessions: Mutex<Sessions>,
    events: broadcast::Sender<Bytes>,
}

impl Agent {
    /// Starts an agent server on a free port, on another thread.
    ///
    /// # Errors
    /// Returns a text if no port is free.
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

    /// Returns its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn routes(cfg: &mut web::ServiceConfig) {
    let accept = || async { HttpResponse::Ok().json(true) };
    cfg.route("/global/health", web::get().to(healthy))
        .route("/global/event", web::get().to(events))
        .route("/session", web::post().to(create))
        .route("/session", web::get().to(empty_list))
        .route("/session/status", web::get().to(statuses))
        .route("/session/{id}", web::get().to(session))
        .route("/session/{id}/message", web::get().to(messages))
        .route("/session/{id}/todo", web::get().to(empty_list))
        .route("/session/{id}/children", web::get().to(empty_list))
        .route("/session/{id}/prompt_async", web::post().to(prompt))
        .route("/session/{id}/abort", web::post().to(abort))
        .route("/tui/show-toast", web::post().to(accept));
}

async fn healthy() -> HttpResponse {
    HttpResponse::Ok().json(json!({"healthy": true, "version": "1.18.33"}))
}

async fn empty_list() -> HttpResponse {
    HttpResponse::Ok().json(json!([]))
}

async fn events(state: Data<State>) -> HttpResponse {
    let receiver = state.events.subscribe();
    let first = futures::stream::once(async { event_frame("server.connected", &json!({})) });
    let rest = futures::stream::unfold(receiver, |mut receiver| async {
        let next = tokio::time::timeout(HEARTBEAT, receiver.recv()).await;
        let text = match next {
            Ok(Ok(text)) => text,
            Err(_) => event_frame("server.heartbeat", &json!({})),
            // A reader that is too far behind is cut off, and connects again.
            Ok(Err(_)) => return None,
        };
        Some((text, receiver))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .streaming(first.chain(rest).map(Ok::<_, actix_web::Error>))
}

fn event_frame(kind: &str, properties: &Value) -> Bytes {
    let event = json!({"directory": "/", "payload": {"type": kind, "properties": properties}});
    Bytes::from(format!("data: {event}\n\n"))
}

fn millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn not_found(id: &str) -> HttpResponse {
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
    let answer = session.to_json(&id);
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
        Some(session) => HttpResponse::Ok().json(session.to_json(&id)),
        // Parent sessions always exist.
        None if id.starts_with("ses_parent") => {
            HttpResponse::Ok().json(Session::default().to_json(&id))
        }
        None => not_found(&id),
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
        None => not_found(&id),
    }
}

async fn abort(state: Data<State>, id: Path<String>) -> HttpResponse {
    let was_busy = state.sessions().by_id.get_mut(&*id).is_some_and(|session| {
        session.turn += 1;
        std::mem::take(&mut session.busy)
    });
    if was_busy {
        let error = json!({"name": "MessageAbortedError", "data": {"message": "Aborted"}});
        state.publish("session.error", json!({"sessionID": *id, "error": error}));
        state.publish("session.idle", json!({"sessionID": *id}));
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
            return not_found(&id);
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
    state.publish(
        "session.status",
        json!({"sessionID": id, "status": {"type": "busy"}}),
    );
    let mut words = text.split_whitespace();
    let action = words.next().unwrap_or_default().to_owned();
    let wait = words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(10);
    if action != "hang" {
        actix_web::rt::spawn(run_turn(
            state,
            id,
            turn,
            action,
            Duration::from_millis(wait),
        ));
    }
    HttpResponse::NoContent().finish()
}

/// Runs a turn: works for that time, and ends as the prompt demands.
async fn run_turn(state: Data<State>, id: String, turn: u64, action: String, wait: Duration) {
    let message = format!("msg_{id}_{turn:04}a");
    let began = millis();
    let info =
        json!({"id": message, "sessionID": id, "role": "assistant", "time": {"created": began}});
    state.publish("message.updated", json!({"sessionID": id, "info": info}));
    for number in 0..DELTAS {
        tokio::time::sleep(wait / DELTAS as u32).await;
        if !state.is_current(&id, turn) {
            return;
        }
        let delta = json!({"sessionID": id, "messageID": message, "partID": format!("prt_{id}"),
            "field": "text", "delta": format!("word {number} ")});
        state.publish("message.part.delta", delta);
    }
    let ended = match action.as_str() {
        "fail" => {
            let error = json!({"name": "APIError", "data": {"message": "the model refused"}});
            state.publish("session.error", json!({"sessionID": id, "error": error}));
            state.finish(&id, turn, None)
        }
        _ => {
            let info = json!({"id": message, "sessionID": id, "role": "assistant", "finish": "stop",
                "time": {"created": began, "completed": millis()}});
            let part = json!({"id": format!("prt_{id}"), "sessionID": id, "messageID": message,
                "type": "text", "text": "This is action I found, in a few words."});
            state.publish(
                "message.part.updated",
                json!({"sessionID": id, "part": part}),
            );
            state.publish("message.updated", json!({"sessionID": id, "info": info}));
            state.finish(&id, turn, Some(json!({"info": info, "parts": [part]})))
        }
    };
    if ended {
        state.publish("session.idle", json!({"sessionID": id}));
    }
}

impl Session {
    fn to_json(&self, id: &str) -> Value {
        json!({"id": id, "parentID": self.parent, "metadata": self.metadata, "directory": "/"})
    }
}

impl State {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.sessions)
    }

    fn publish(&self, kind: &str, properties: Value) {
        // There may be no reader.
        let _ = self.events.send(event_frame(kind, &properties));
    }

    fn is_current(&self, id: &str, turn: u64) -> bool {
        let sessions = self.sessions();
        sessions
            .by_id
            .get(id)
            .is_some_and(|session| session.turn == turn)
    }

    /// Ends a turn; returns whether it was still the current turn.
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
