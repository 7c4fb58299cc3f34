//! An opencode in memory behind a bridge. As with the real one, processes share the stored sessions, and each knows the
//! status of its own sessions only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::Host;

pub const TIMEOUT: Duration = Duration::from_secs(20);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The sessions that all processes of a user share.
#[derive(Debug, Clone, Default)]
pub struct Storage(Arc<Mutex<Stored>>);

#[derive(Debug, Default)]
struct Stored {
    made: usize,
    sessions: BTreeMap<String, Value>,
    messages: BTreeMap<String, Vec<Value>>,
}

impl Storage {
    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().unwrap()
    }

    /// Adds an existing session.
    pub fn open(&self, session: &str, directory: &str) {
        let record = json!({"id": session, "directory": directory});
        self.stored().sessions.insert(session.to_owned(), record);
    }

    /// Reverts a session to a message, as its user does.
    pub fn revert(&self, session: &str) {
        let mut stored = self.stored();
        let record = stored.sessions.get_mut(session).expect("a session");
        record["revert"] = json!({"messageID": "msg_1"});
    }

    /// Returns the texts sent to a session, each with whether it woke the session.
    pub fn user_messages(&self, session: &str) -> Vec<(String, bool)> {
        let stored = self.stored();
        let messages = stored.messages.get(session).into_iter().flatten();
        let user_messages = messages.filter(|message| message["info"]["role"] == "user");
        user_messages
            .map(|message| {
                let text = message["parts"][0]["text"].as_str().unwrap().to_owned();
                (text, message["noReply"] != json!(true))
            })
            .collect()
    }

    /// Adds an assistant message with a running tool call.
    pub fn open_call(&self, session: &str, message: &str, call: &str) {
        let part = json!({"type": "tool", "tool": "background_list", "callID": call, "state": {"status": "running"}});
        let info = json!({"id": message, "sessionID": session, "role": "assistant"});
        let mut stored = self.stored();
        let messages = stored.messages.entry(session.to_owned()).or_default();
        messages.push(json!({"info": info, "parts": [part]}));
    }

    fn push_message(&self, session: &str, role: &str, parts: Value, more: Value) {
        let now = greenroom::clock::Clock::system().now().as_millis();
        let mut stored = self.stored();
        let messages = stored.messages.entry(session.to_owned()).or_default();
        let id = format!("msg_{session}_{}", messages.len());
        let mut info =
            json!({"id": id, "sessionID": session, "role": role, "time": {"created": now}});
        if role == "assistant" {
            info["time"]["completed"] = json!(now);
            info["finish"] = json!("stop");
        }
        messages.push(json!({"info": info, "parts": parts, "noReply": more["noReply"]}));
    }
}

#[derive(Debug, Default)]
struct Process {
    working: BTreeSet<String>,
    request_count: Vec<(String, Value)>,
    /// True while sessions do not answer by themselves.
    held: bool,
    deaf: bool,
}

/// One opencode process with a bridge.
pub struct Plugin {
    pid: u32,
    directory: String,
    storage: Storage,
    process: Arc<Mutex<Process>>,
    link: Option<Link>,
}

struct Link {
    out: mpsc::UnboundedSender<Value>,
    user_messages: mpsc::UnboundedReceiver<Value>,
    pump: JoinHandle<()>,
}

impl Plugin {
    /// Creates a process that is not connected.
    pub fn new(storage: &Storage, pid: u32, directory: &str) -> Self {
        Self {
            pid,
            directory: directory.to_owned(),
            storage: storage.clone(),
            process: Arc::default(),
            link: None,
        }
    }

    /// Creates a connected process.
    pub async fn connect_new(host: &Host, storage: &Storage, pid: u32, directory: &str) -> Self {
        let mut plugin = Self::new(storage, pid, directory);
        plugin.connect(host).await;
        plugin
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap()
    }

    /// Sessions stay busy until [`Plugin::finish`].
    pub fn pause_answers(&self) {
        self.process().held = true;
    }

    /// Sessions answer by themselves again.
    pub fn resume_answers(&self) {
        self.process().held = false;
    }

    /// Requests are not answered, as by a plugin that only delivers events.
    pub fn events_only(&self) {
        self.process().deaf = true;
    }

    pub async fn connect(&mut self, host: &Host) {
        let url = format!("ws://{}/v1/bridge", host.address);
        let (mut socket, _) = connect_async(url).await.unwrap();
        let hello =
            json!({"type": "hello", "protocol": 1, "directory": self.directory, "pid": self.pid});
        socket.send(Message::text(hello.to_string())).await.unwrap();
        let welcome = socket.next().await.unwrap().unwrap();
        assert!(
            welcome.to_text().unwrap().contains("welcome"),
            "{welcome:?}"
        );
        let (out, actions) = mpsc::unbounded_channel();
        let (tell, user_messages) = mpsc::unbounded_channel();
        let (write, read) = socket.split();
        let (storage, process) = (self.storage.clone(), self.process.clone());
        let server = Server {
            directory: self.directory.clone(),
            storage,
            process,
            out: out.clone(),
        };
        let pump = actix_rt::spawn(pump(server, write, read, actions, tell));
        self.link = Some(Link {
            out,
            user_messages,
            pump,
        });
    }

    /// Cuts the socket; the process stays alive.
    pub async fn disconnect(&mut self, host: &Host) {
        let link = self.link.take().unwrap();
        link.pump.abort();
        let _ = link.pump.await;
        let bridges = host.bridges();
        let gone = || !bridges.list().iter().any(|bridge| bridge.pid == self.pid);
        wait_until("the bridge is known to be gone", gone).await;
    }

    fn link(&mut self) -> &mut Link {
        self.link.as_mut().expect("it is connected")
    }

    /// Sends an event of a session.
    pub fn name_session(&mut self, session: &str) {
        let event = json!({"type": "session.updated", "properties": {"info": {"id": session}}});
        self.link()
            .out
            .send(json!({"type": "event", "event": event}))
            .unwrap();
    }

    /// Sends an event of a session and waits until the service has processed it.
    pub async fn name_and_sync(&mut self, session: &str) {
        self.name_session(session);
        self.sync().await;
    }

    /// Waits until the service has processed all sent frames: they are read in order, and this one is answered.
    pub async fn sync(&mut self) {
        let last = json!({"type": "compactionContext", "sessionID": "ses_none"});
        self.link().out.send(last).unwrap();
        while self.next().await["type"] != "compactionContext" {}
    }

    /// Lets a session call a tool, and waits for the answer.
    pub async fn call_tool(&mut self, session: &str, message: &str, call: &str) {
        let context = json!({"sessionID": session, "messageID": message, "callID": call, "directory": self.directory});
        let frame = json!({"type": "toolCall", "id": format!("{message} {call}"), "tool": "background_list",
            "args": {}, "context": context});
        self.link().out.send(frame).unwrap();
        while self.next().await["type"] != "toolResult" {}
    }

    /// Sends an event as opencode has it.
    pub fn send_event(&mut self, event: Value) {
        let frame = json!({"type": "event", "event": event});
        self.link().out.send(frame).unwrap();
    }

    /// Lets a session call a tool by a message that nothing shows, and returns the output.
    pub async fn call_tool_with(&mut self, session: &str, tool: &str, args: Value) -> String {
        let context =
            json!({"sessionID": session, "messageID": "msg_forged", "callID": "call_forged"});
        let frame = json!({"type": "toolCall", "id": format!("{session} {tool}"), "tool": tool,
            "args": args, "context": context});
        self.link().out.send(frame).unwrap();
        loop {
            let frame = self.next().await;
            if frame["type"] == "toolResult" {
                return frame["output"].as_str().unwrap().to_owned();
            }
        }
    }

    /// Returns the next frame that is not a request.
    pub async fn next(&mut self) -> Value {
        let user_messages = &mut self.link().user_messages;
        let next = tokio::time::timeout(TIMEOUT, user_messages.recv());
        next.await.expect("a frame comes").unwrap()
    }

    /// Lets a session answer and become idle.
    pub fn finish(&mut self, session: &str) {
        let server = Server {
            directory: self.directory.clone(),
            storage: self.storage.clone(),
            process: self.process.clone(),
            out: self.link().out.clone(),
        };
        server.finish(session);
    }

    /// Disposes the instance: it announces that, then aborts the session.
    pub async fn dispose_with(&mut self, session: &str) {
        self.process().working.remove(session);
        let out = self.link().out.clone();
        out.send(json!({"type": "disposing"})).unwrap();
        let aborted = json!({"name": "MessageAbortedError", "data": {"message": "Aborted"}});
        let error = json!({"sessionID": session, "error": aborted});
        for (kind, properties) in [
            ("session.error", error),
            ("session.idle", json!({"sessionID": session})),
        ] {
            let event = json!({"type": kind, "properties": properties});
            out.send(json!({"type": "event", "event": event})).unwrap();
        }
        self.sync().await;
    }

    /// Lets a session answer without an event.
    pub fn finish_silently(&self, session: &str) {
        self.process().working.remove(session);
        let parts = json!([{"type": "text", "text": "done meanwhile"}]);
        self.storage
            .push_message(session, "assistant", parts, Value::Null);
    }

    /// Returns the number of requests with this method and path prefix.
    pub fn request_count(&self, what: &str) -> usize {
        let process = self.process();
        let request_count = process.request_count.iter();
        request_count
            .filter(|(call, _)| call.starts_with(what))
            .count()
    }

    /// Returns the bodies of these requests.
    pub fn request_bodies(&self, what: &str) -> Vec<Value> {
        let process = self.process();
        let request_count = process
            .request_count
            .iter()
            .filter(|(call, _)| call == what);
        request_count.map(|(_, body)| body.clone()).collect()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            link.pump.abort();
        }
    }
}

async fn pump(
    server: Server,
    mut write: SplitSink<Socket, Message>,
    mut read: SplitStream<Socket>,
    mut actions: mpsc::UnboundedReceiver<Value>,
    tell: mpsc::UnboundedSender<Value>,
) {
    loop {
        let push_message = tokio::select! {
            frame = read.next() => {
                let Some(Ok(frame)) = frame else { return };
                let Message::Text(text) = frame else { continue };
                let frame: Value = serde_json::from_str(&text).unwrap();
                if frame["type"] != "request" {
                    let _ = tell.send(frame);
                    continue;
                }
                match server.answer(&frame) {
                    Some((status, body)) =>
                        json!({"type": "response", "id": frame["id"], "status": status, "body": body}),
                    None => continue,
                }
            }
            order = actions.recv() => match order {
                Some(order) => order,
                None => return,
            },
        };
        if write
            .send(Message::text(push_message.to_string()))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// The API of one process.
struct Server {
    directory: String,
    storage: Storage,
    process: Arc<Mutex<Process>>,
    out: mpsc::UnboundedSender<Value>,
}

impl Server {
    fn event(&self, event: Value) {
        let _ = self.out.send(json!({"type": "event", "event": event}));
    }

    fn status(&self, session: &str, status: &str) {
        let status = json!({"sessionID": session, "status": {"type": status}});
        self.event(json!({"type": "session.status", "properties": status}));
    }

    fn finish(&self, session: &str) {
        self.process.lock().unwrap().working.remove(session);
        let parts = json!([{"type": "text", "text": format!("answer of {session}")}]);
        self.storage
            .push_message(session, "assistant", parts, Value::Null);
        self.status(session, "idle");
        self.event(json!({"type": "session.idle", "properties": {"sessionID": session}}));
    }

    fn answer(&self, request: &Value) -> Option<(u16, Value)> {
        let text = |key: &str| request[key].as_str().unwrap().to_owned();
        let (method, path, body) = (text("method"), text("path"), &request["body"]);
        {
            let mut process = self.process.lock().unwrap();
            process
                .request_count
                .push((format!("{method} {path}"), body.clone()));
            if process.deaf {
                return None;
            }
        }
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        Some(match (method.as_str(), segments.as_slice()) {
            ("GET", ["session", "status"]) => {
                let process = self.process.lock().unwrap();
                let working = process.working.iter();
                let map: BTreeMap<&String, Value> = working
                    .map(|session| (session, json!({"type": "busy"})))
                    .collect();
                (200, json!(map))
            }
            ("POST", ["session"]) => {
                let mut stored = self.storage.stored();
                stored.made += 1;
                let id = format!("ses_c{}", stored.made);
                let directory = request["query"]["directory"].clone();
                let mut record = body.clone();
                record["id"] = json!(id);
                record["directory"] = match directory {
                    Value::Null => json!(self.directory),
                    given => given,
                };
                stored.sessions.insert(id.clone(), record.clone());
                drop(stored);
                self.event(json!({"type": "session.created", "properties": {"info": record}}));
                (200, record)
            }
            (_, ["session", session, ..])
                if !self.storage.stored().sessions.contains_key(*session) =>
            {
                let message = format!("Session not found: {session}");
                (
                    404,
                    json!({"name": "NotFoundError", "data": {"message": message}}),
                )
            }
            ("GET", ["session", session]) => {
                (200, self.storage.stored().sessions[*session].clone())
            }
            ("GET", ["session", session, "message"]) => {
                let stored = self.storage.stored();
                (
                    200,
                    json!(stored.messages.get(*session).cloned().unwrap_or_default()),
                )
            }
            ("GET", ["session", session, "children"]) => {
                let stored = self.storage.stored();
                let sessions = stored.sessions.values();
                let children = sessions.filter(|record| record["parentID"] == json!(session));
                (200, children.cloned().collect())
            }
            ("GET", ["session", _, "todo"]) => (200, json!([])),
            ("POST", ["session", session, "prompt_async"]) => {
                self.storage
                    .push_message(session, "user", body["parts"].clone(), body.clone());
                if body["noReply"] != json!(true) {
                    self.process
                        .lock()
                        .unwrap()
                        .working
                        .insert((*session).to_owned());
                    self.status(session, "busy");
                    if !self.process.lock().unwrap().held {
                        self.finish(session);
                    }
                }
                (204, Value::Null)
            }
            ("POST", ["session", session, "abort"]) => {
                self.process.lock().unwrap().working.remove(*session);
                (200, json!(true))
            }
            ("POST", ["tui", "show-toast"]) => (200, json!(true)),
            _ => (500, Value::Null),
        })
    }
}

/// Waits until a condition holds.
pub async fn wait_until(what: &str, so: impl Fn() -> bool) {
    let watch = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let so = tokio::time::timeout(TIMEOUT, watch).await;
    so.unwrap_or_else(|_| panic!("not in time: {what}"));
}
