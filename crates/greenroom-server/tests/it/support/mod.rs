//! A service for tests on a scripted agent server in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use greenroom::ResourceCounts;
use greenroom::domain::ids::{MessageId, SessionId};
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::time::Timestamp;
use greenroom::domain::transcript::{Message, Part};
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use greenroom_server::agents::{Timeouts, Upstream};
use greenroom_server::config::{Environment, Settings, Sources, load};
use greenroom_server::host::{HostError, Service};
use reqwest::Method;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(20);

/// An agent server in memory. Sessions stay busy until [`Host::finish`].
#[derive(Debug, Default)]
pub struct FakeServer {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    made: usize,
    prompts: BTreeMap<SessionId, String>,
    busy: BTreeSet<SessionId>,
    answered: BTreeMap<SessionId, Timestamp>,
    aborted: BTreeSet<SessionId>,
    answers: Vec<(SessionId, String, AskAnswer)>,
    tools: bool,
    /// Messages of sessions that are not tasks.
    histories: BTreeMap<SessionId, Vec<Value>>,
    /// Stored messages to parents.
    notices: BTreeMap<SessionId, Vec<Message>>,
}

impl FakeServer {
    /// Adds an existing session.
    pub fn open(&self, session: &str) {
        self.state
            .lock()
            .unwrap()
            .prompts
            .insert(session.into(), String::new());
    }

    fn answer(&self, session: &str) {
        let now = greenroom::clock::Clock::system().now();
        self.state
            .lock()
            .unwrap()
            .answered
            .insert(session.into(), now);
    }

    /// Returns the number of created sessions.
    pub fn session_count(&self) -> usize {
        self.state.lock().unwrap().made
    }

    /// Returns the answers to requests, in order.
    pub fn answers(&self) -> Vec<(String, AskAnswer)> {
        let state = self.state.lock().unwrap();
        let answers = state.answers.iter();
        answers
            .map(|(_, ask, answer)| (ask.clone(), answer.clone()))
            .collect()
    }

    /// Adds a tool call before each answer.
    pub fn call_tools(&self) {
        self.state.lock().unwrap().tools = true;
    }

    /// Returns true if the session was aborted.
    pub fn set_history(&self, session: &str, messages: Vec<Value>) {
        let mut state = self.state.lock().unwrap();
        state.histories.insert(SessionId::from(session), messages);
    }

    pub fn aborted(&self, session: &str) -> bool {
        self.state
            .lock()
            .unwrap()
            .aborted
            .contains(&SessionId::from(session))
    }
}

#[async_trait]
impl AgentServer for FakeServer {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        Ok(SessionRecord {
            id: Some(session.clone()),
            ..SessionRecord::default()
        })
    }

    async fn create(&self, _: NewSession) -> Result<SessionId, ServerError> {
        let mut state = self.state.lock().unwrap();
        state.made += 1;
        let session = SessionId::from(format!("ses_{}", state.made));
        Ok(session)
    }

    async fn prompt(
        &self,
        session: &SessionId,
        _: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError> {
        let mut state = self.state.lock().unwrap();
        state
            .prompts
            .insert(session.clone(), prompt.text.to_string());
        state.busy.insert(session.clone());
        state.answered.remove(session);
        Ok(())
    }

    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError> {
        let stored = Message::read(&json!({
            "info": {"role": "user"},
            "parts": [{"type": "text", "text": notice.text, "synthetic": true, "metadata": {"greenroom": {"id": notice.id}}}],
        }));
        let mut state = self.state.lock().unwrap();
        let history = state.notices.entry(parent.clone()).or_default();
        history.push(stored);
        if !notice.silent {
            history.push(Message::read(&json!({
                "info": {"role": "assistant", "finish": "stop", "time": {"completed": 1}},
            })));
        }
        Ok(())
    }

    async fn abort(&self, session: &SessionId) -> Result<(), ServerError> {
        let mut state = self.state.lock().unwrap();
        state.aborted.insert(session.clone());
        state.busy.remove(session);
        Ok(())
    }

    async fn statuses(&self, _: &str) -> Result<BTreeMap<SessionId, SessionStatus>, ServerError> {
        let state = self.state.lock().unwrap();
        let busy = state.busy.iter();
        Ok(busy
            .map(|session| (session.clone(), SessionStatus::Busy))
            .collect())
    }

    async fn messages(
        &self,
        session: &SessionId,
        _: Option<usize>,
    ) -> Result<Vec<Message>, ServerError> {
        let state = self.state.lock().unwrap();
        let notices = state.notices.get(session).cloned().unwrap_or_default();
        if let Some(messages) = state.histories.get(session) {
            let messages = messages.iter().map(Message::read);
            return Ok(messages.chain(notices).collect());
        }
        let Some(at) = state.answered.get(session) else {
            return Ok(notices);
        };
        let text = format!(
            "answer to: {}",
            state.prompts.get(session).cloned().unwrap_or_default()
        );
        let called = Message::read(&json!({
            "info": {"id": format!("msg_{session}_0"), "role": "assistant", "finish": "tool-calls",
                     "time": {"created": at.as_millis(), "completed": at.as_millis()}},
            "parts": [{"type": "tool", "callID": "call_1", "tool": "bash",
                       "state": {"status": "completed", "input": {}, "output": "42 files"}}],
        }));
        let before = state.tools.then_some(called);
        let answer = Message {
            id: Some(MessageId::from(format!("msg_{session}_{}", at.as_millis()))),
            role: Some("assistant".to_owned()),
            created: Some(*at),
            completed: Some(*at),
            finish: Some("stop".to_owned()),
            parts: vec![Part {
                kind: "text".to_owned(),
                text: Some(text),
                ..Part::default()
            }],
            ..Message::default()
        };
        Ok(before.into_iter().chain([answer]).collect())
    }

    async fn todos(&self, _: &SessionId) -> Result<Vec<Todo>, ServerError> {
        Ok(Vec::new())
    }

    async fn sessions_below(
        &self,
        _: Option<&SessionId>,
        _: &str,
    ) -> Result<Vec<SessionRecord>, ServerError> {
        Ok(Vec::new())
    }

    async fn answer_ask(
        &self,
        session: &SessionId,
        ask: &str,
        _: AskKind,
        answer: &AskAnswer,
    ) -> Result<(), ServerError> {
        // Like opencode, the server accepts the first of two answers.
        let mut state = self.state.lock().unwrap();
        if state.answers.iter().any(|(_, known, _)| known == ask) {
            return Err(ServerError::NotFound(format!("Request not found: {ask}")));
        }
        let answer = (session.clone(), ask.to_owned(), answer.clone());
        state.answers.push(answer);
        Ok(())
    }

    async fn toast(&self, _: Toast) -> Result<(), ServerError> {
        Ok(())
    }

    async fn health(&self) -> Result<(), ServerError> {
        Ok(())
    }
}

/// A running service with an HTTP client.
pub struct Host {
    pub address: SocketAddr,
    pub client: reqwest::Client,
    pub fake: Arc<FakeServer>,
    service: Service,
}

impl Host {
    /// Starts a service with configuration keys.
    pub async fn start(set: &[(&str, &str)]) -> Self {
        let host = Self::start_service(set, |settings, fake| Service::start(settings, fake)).await;
        host.service
            .greenroom()
            .event_link(greenroom::EventLink::Connected);
        host
    }

    /// Starts a service for bridges, optionally with the agent server in memory as the server at the URL.
    pub async fn on_bridges(with_url: bool, timeouts: Timeouts, set: &[(&str, &str)]) -> Self {
        Self::start_service(set, |settings, fake| {
            let upstream = with_url.then_some(Upstream {
                server: fake,
                url: None,
                has_events: false,
            });
            Service::start_with_timeouts(settings, upstream, timeouts)
        })
        .await
    }

    async fn start_service(
        set: &[(&str, &str)],
        start: impl FnOnce(&Settings, Arc<FakeServer>) -> Result<Service, HostError>,
    ) -> Self {
        let usual = [
            ("listen", "127.0.0.1:0"),
            ("journal", ""),
            ("lifecycle.min_idle", "0"),
            ("lifecycle.poll_interval", "50ms"),
        ];
        let set = usual
            .iter()
            .chain(set)
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let environment = Environment {
            folder: std::env::temp_dir(),
            ..Environment::default()
        };
        let settings = load(
            &Sources {
                set,
                ..Sources::default()
            },
            &environment,
        )
        .unwrap()
        .settings;
        let fake = Arc::new(FakeServer::default());
        let service = start(&settings, fake.clone()).unwrap();
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .unwrap();
        Self {
            address: service.address(),
            client,
            fake,
            service,
        }
    }

    /// Returns the tools of the service.
    pub fn tools(&self) -> greenroom_server::tools::Tools {
        greenroom_server::tools::Tools::new(self.service.greenroom().clone())
    }

    /// Returns the connected bridges.
    pub fn bridges(&self) -> greenroom_bridge::BridgeRegistry {
        self.service.bridges().clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn request(&self, method: Method, path: &str, body: &str) -> (u16, Value) {
        let answer = self
            .client
            .request(method, self.url(path))
            .body(body.to_owned())
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (
            status,
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {status} {text}")),
        )
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.request(Method::GET, path, "").await
    }

    pub async fn text(&self, path: &str) -> String {
        self.client
            .get(self.url(path))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.request(Method::POST, path, &body.to_string()).await
    }

    /// Starts a GET request in the background.
    pub fn spawn_get(&self, path: &str) -> tokio::task::JoinHandle<(u16, Value)> {
        let request = self.client.get(self.url(path));
        actix_rt::spawn(async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json().await.unwrap())
        })
    }

    /// Waits for a task and returns the id of the newest one.
    pub async fn newest(&self) -> String {
        let watch = async {
            loop {
                let (_, page) = self.get("/v1/tasks?limit=1").await;
                if let Some(id) = page["tasks"][0]["id"].as_str() {
                    return id.to_owned();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, watch)
            .await
            .expect("a task comes")
    }

    /// Waits until the task runs and returns its session.
    pub async fn running(&self, id: &str) -> String {
        let task = self.until(id, |task| task["status"] == "running").await;
        task["sessionID"].as_str().unwrap().to_owned()
    }

    /// Waits until the run of the task has ended.
    pub async fn ended(&self, id: &str) -> Value {
        self.until(id, |task| {
            !matches!(task["status"].as_str(), Some("pending" | "running"))
        })
        .await
    }

    pub async fn until(&self, id: &str, there: impl Fn(&Value) -> bool) -> Value {
        let last = Mutex::new(Value::Null);
        let watch = async {
            loop {
                let (_, task) = self.get(&format!("/v1/tasks/{id}")).await;
                if there(&task) {
                    return task;
                }
                *last.lock().unwrap() = task;
                tokio::task::yield_now().await;
            }
        };
        match tokio::time::timeout(TIMEOUT, watch).await {
            Ok(task) => task,
            Err(_) => {
                let (_, why) = self.get(&format!("/v1/tasks/{id}/why")).await;
                panic!("{id} does not get there: {}, {why}", last.lock().unwrap())
            }
        }
    }

    /// Waits until a message to a parent is delivered and returns all its messages.
    pub async fn delivered_messages(&self, parent: &str) -> String {
        let path = format!("/v1/sessions/{parent}/notifications");
        let watch = async {
            loop {
                let (_, messages) = self.get(&path).await;
                if messages["notifications"][0]["fate"] == "delivered" {
                    return messages.to_string();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, watch)
            .await
            .unwrap_or_else(|_| panic!("{parent} is not notified"))
    }

    /// Sends one event.
    pub async fn event(&self, event: Value) {
        let (status, _) = self
            .post("/v1/session-events", json!({"events": [event]}))
            .await;
        assert_eq!(status, 202);
    }

    /// Lets a session answer and become idle.
    pub async fn finish(&self, session: &str) {
        self.fake.answer(session);
        let idle = json!({"type": "session.idle", "properties": {"sessionID": session}});
        let (status, _) = self
            .post("/v1/session-events", json!({"events": [idle]}))
            .await;
        assert_eq!(status, 202);
    }

    /// Waits until the actor system holds exactly these resources.
    pub async fn wait_for_counts(&self, wanted: &ResourceCounts) {
        let last = Mutex::new(ResourceCounts::default());
        let watch = async {
            loop {
                let counts = self.service.greenroom().resource_counts().await;
                if counts == *wanted {
                    return;
                }
                *last.lock().unwrap() = counts;
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, watch)
            .await
            .unwrap_or_else(|_| panic!("it still keeps {:?}", last.lock().unwrap()));
    }

    /// Gives an earlier request time to arrive: later requests on other connections are answered.
    pub async fn let_request_arrive(&self) {
        for _ in 0..3 {
            self.get("/healthz").await;
        }
    }

    pub async fn stop(self) {
        let mode = self.service.shutdown_mode();
        self.service.stop(mode).await;
    }
}

/// Starts an HTTP server that answers only health checks. It stops with the actix system of the test.
pub async fn healthy_opencode() -> String {
    use actix_web::{App, HttpResponse, HttpServer, web};
    let healthy =
        || async { HttpResponse::Ok().json(json!({"healthy": true, "version": "1.18.33"})) };
    let server =
        HttpServer::new(move || App::new().route("/global/health", web::get().to(healthy)))
            .workers(1)
            .disable_signals()
            .bind("127.0.0.1:0")
            .unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    actix_rt::spawn(server.run());
    // The server starts at its first poll, so one request is made here.
    reqwest::get(format!("{url}/global/health")).await.unwrap();
    url
}

/// Asserts an error response.
pub fn assert_error((status, error): (u16, &Value), wanted: u16, code: &str, text: &str) {
    assert_eq!(
        (status, &error["error"]["code"]),
        (wanted, &json!(code)),
        "{error}"
    );
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains(text), "{message}");
    assert!(!error["error"]["hint"].as_str().unwrap().is_empty());
}
