//! opencode's HTTP API as the [`AgentServer`] port. One attempt per call, with a time limit of its own as a net (the
//! system imposes the real ones), and an error that says what is known of the call's fate. Users build one
//! [`OpencodeServer`] per server and give it to [`greenroom::Greenroom`] and to [`crate::EventStream`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use greenroom::domain::ids::SessionId;
use greenroom::domain::task::AskKind;
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use reqwest::{Method, Response, Url};
use serde_json::{Value, json};

use crate::{failure, wire};

/// Nets under the time limits of the system, each a little longer than the real one.
const CREATE_LIMIT: Duration = Duration::from_secs(35);
const PROMPT_LIMIT: Duration = Duration::from_secs(125);
const NOTIFY_LIMIT: Duration = Duration::from_secs(35);
const OTHER_LIMIT: Duration = Duration::from_secs(15);
/// A server that is well answers a health call in milliseconds; one that boots may never answer.
const HEALTH_LIMIT: Duration = Duration::from_secs(3);
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long the rest of an answer is waited for whose status has said everything.
const TAIL_LIMIT: Duration = Duration::from_secs(1);

/// Messages of a session can be large: tool output and files are in them.
const MESSAGES_BOUND: usize = 64 << 20;
const ANSWER_BOUND: usize = 4 << 20;
/// opencode lists a hundred sessions unless told otherwise.
const SESSIONS_LISTED: &str = "1000";

/// Where an opencode server is and how to talk to it.
#[derive(Clone)]
pub struct ServerAddress {
    /// For instance `http://127.0.0.1:4096`; a path in it is kept as a prefix.
    pub url: String,
    /// The name for Basic auth; opencode's own default is `opencode`.
    pub username: String,
    /// What the server was started with as `OPENCODE_SERVER_PASSWORD`; without one no credentials are sent.
    pub password: Option<String>,
    /// Where sessions and toasts belong that name no directory.
    pub directory: String,
}

impl ServerAddress {
    /// An address without a password.
    pub fn new(url: impl Into<String>, directory: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            username: "opencode".to_owned(),
            password: None,
            directory: directory.into(),
        }
    }

    /// The same with a password.
    #[must_use]
    pub fn with_password(mut self, password: Option<String>) -> Self {
        self.password = password.filter(|password| !password.is_empty());
        self
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerAddress")
            .field("url", &self.url)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("directory", &self.directory)
            .finish()
    }
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is no `http://` URL.
    #[error(
        "`{url}` is no usable address of opencode: {problem}; it looks like http://127.0.0.1:4096"
    )]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The HTTP client could not be made.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// One opencode server. A cheap clone that may be used from any thread.
#[derive(Debug, Clone)]
pub struct OpencodeServer {
    http: reqwest::Client,
    base: Url,
    address: ServerAddress,
}

/// One call, before it is sent.
struct Call<'a> {
    /// For people, in errors.
    what: &'static str,
    method: Method,
    /// Percent-encoded one by one: ids come from outside.
    path: &'a [&'a str],
    directory: Option<&'a str>,
    query: &'a [(&'a str, &'a str)],
    body: Option<Value>,
    limit: Duration,
    bound: usize,
}

impl<'a> Call<'a> {
    fn get(what: &'static str, path: &'a [&'a str]) -> Self {
        let (limit, bound) = (OTHER_LIMIT, ANSWER_BOUND);
        Self {
            what,
            method: Method::GET,
            path,
            directory: None,
            query: &[],
            body: None,
            limit,
            bound,
        }
    }

    fn post(what: &'static str, path: &'a [&'a str], body: Option<Value>) -> Self {
        Self {
            method: Method::POST,
            body,
            ..Self::get(what, path)
        }
    }
}

impl OpencodeServer {
    /// A client for the server at that address; nothing is sent yet.
    ///
    /// # Errors
    /// The URL is not `http://host[:port]`.
    pub fn new(address: ServerAddress) -> Result<Self, AddressError> {
        let base = parse_url(&address.url)?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            // Kept short: an order sent on a connection the server is just closing has an unknown fate.
            .pool_idle_timeout(Duration::from_secs(4))
            // Credentials go to the address given and nowhere else, and a proxy for the web has no part in this.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(AddressError::Client)?;
        Ok(Self {
            http,
            base,
            address,
        })
    }

    /// Where this server is.
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// The version a healthy server says it is (empty if it says none), within `limit`.
    pub(crate) async fn version(&self, limit: Duration) -> Result<String, ServerError> {
        let call = Call {
            limit,
            ..Call::get("asking for its health", &["global", "health"])
        };
        let answer = self.ask(call).await?;
        Ok(answer
            .get("version")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned())
    }

    /// Opens the event stream; only the answer's head is waited for, up to `limit`.
    pub(crate) async fn open_events(&self, limit: Duration) -> Result<Response, ServerError> {
        let call = Call::get("opening the event stream", &["global", "event"]);
        let request = self.request(&call)?.header("accept", "text/event-stream");
        let sent = tokio::time::timeout(limit, request.send())
            .await
            .map_err(|_| ServerError::TimedOut(limit))?;
        let response = sent.map_err(|error| failure::unanswered(call.what, &error, limit))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(failure::refused(
            status.as_u16(),
            &[],
            self.address.password.is_some(),
        ))
    }

    fn request(&self, call: &Call<'_>) -> Result<reqwest::RequestBuilder, ServerError> {
        // A URL drops empty and dot segments, so such an id would address another route.
        if let Some(bad) = call
            .path
            .iter()
            .find(|segment| matches!(**segment, "" | "." | ".."))
        {
            return Err(ServerError::NotFound(format!("opencode has no id {bad:?}")));
        }
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| ServerError::Refused {
                status: None,
                message: "the address has no path".to_owned(),
            })?
            .pop_if_empty()
            .extend(call.path);
        let mut request = self
            .http
            .request(call.method.clone(), url)
            .query(call.query);
        if let Some(directory) = call.directory {
            // As a query, not a header: a path may hold any character.
            request = request.query(&[("directory", directory)]);
        }
        if let Some(password) = &self.address.password {
            request = request.basic_auth(&self.address.username, Some(password));
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        Ok(request)
    }

    async fn send(&self, call: &Call<'_>) -> Result<Response, ServerError> {
        let sent = self.request(call)?.timeout(call.limit).send().await;
        let mut response =
            sent.map_err(|error| failure::unanswered(call.what, &error, call.limit))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // The status says it is refused; the text is a help that may be missing.
        let body = read(&mut response, call).await.unwrap_or_default();
        Err(failure::refused(
            status.as_u16(),
            &body,
            self.address.password.is_some(),
        ))
    }

    /// A call whose answer is needed.
    async fn ask(&self, call: Call<'_>) -> Result<Value, ServerError> {
        let mut response = self.send(&call).await?;
        let body = read(&mut response, &call).await?;
        serde_json::from_slice(&body).map_err(|error| unreadable(call.what, &error.to_string()))
    }

    /// A call whose status says everything.
    async fn order(&self, call: Call<'_>) -> Result<(), ServerError> {
        let mut response = self.send(&call).await?;
        // Read only so that the connection can be used again.
        let _ = tokio::time::timeout(TAIL_LIMIT, read(&mut response, &call)).await;
        Ok(())
    }
}

fn parse_url(text: &str) -> Result<Url, AddressError> {
    let bad = |problem: String| AddressError::Url {
        url: text.to_owned(),
        problem,
    };
    let url = Url::parse(text.trim()).map_err(|error| bad(error.to_string()))?;
    if url.scheme() != "http" {
        return Err(bad(format!("{}:// is not supported", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad(
            "name and password have settings of their own".to_owned()
        ));
    }
    Ok(url)
}

/// Reads an answer up to its bound, so that a broken server cannot fill the memory.
async fn read(response: &mut Response, call: &Call<'_>) -> Result<Vec<u8>, ServerError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > call.bound => {
                return Err(unreadable(
                    call.what,
                    &format!("it is larger than {} MiB", call.bound >> 20),
                ));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(failure::unanswered(call.what, &error, call.limit)),
        }
    }
}

fn unreadable(what: &str, problem: &str) -> ServerError {
    ServerError::FateUnknown(format!("{what}: the answer cannot be read: {problem}"))
}

/// opencode answers 500, not 404, to an id that is none of its own; nothing of that id can exist.
fn or_not_found(session: &SessionId) -> impl FnOnce(ServerError) -> ServerError + '_ {
    move |error| match error {
        ServerError::Refused {
            status: Some(500), ..
        } if !is_session_id(session) => ServerError::NotFound(format!(
            "session not found: {session} (opencode's ids begin with ses_)"
        )),
        other => other,
    }
}

fn is_session_id(session: &SessionId) -> bool {
    session.as_str().starts_with("ses")
}

#[async_trait]
impl AgentServer for OpencodeServer {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        let path = ["session", session.as_str()];
        let answer = self
            .ask(Call::get("reading a session", &path))
            .await
            .map_err(or_not_found(session))?;
        Ok(wire::session(&answer))
    }

    async fn create(&self, session: NewSession) -> Result<SessionId, ServerError> {
        let call = Call {
            directory: Some(&session.directory),
            limit: CREATE_LIMIT,
            ..Call::post(
                "creating a session",
                &["session"],
                Some(wire::new_session(&session)),
            )
        };
        let answer = self
            .ask(call)
            .await
            .map_err(|error| match (error, &session.parent) {
                (
                    ServerError::Refused {
                        status: Some(400), ..
                    },
                    Some(parent),
                ) if !is_session_id(parent) => {
                    let message =
                        format!("{parent} is no session of opencode (its ids begin with ses_)");
                    ServerError::Refused {
                        status: Some(400),
                        message,
                    }
                }
                (other, _) => other,
            })?;
        wire::session(&answer)
            .id
            .ok_or_else(|| ServerError::Refused {
                status: None,
                message: "opencode made a session and did not say its id".to_owned(),
            })
    }

    async fn prompt(
        &self,
        session: &SessionId,
        directory: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError> {
        let path = ["session", session.as_str(), "prompt_async"];
        let call = Call {
            directory,
            limit: PROMPT_LIMIT,
            ..Call::post(
                "prompting a session",
                &path,
                Some(wire::task_prompt(&prompt)),
            )
        };
        self.order(call).await.map_err(or_not_found(session))
    }

    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError> {
        let path = ["session", parent.as_str(), "prompt_async"];
        let call = Call {
            limit: NOTIFY_LIMIT,
            ..Call::post(
                "sending a message to a parent",
                &path,
                Some(wire::notice(&notice)),
            )
        };
        self.order(call).await.map_err(or_not_found(parent))
    }

    async fn abort(&self, session: &SessionId) -> Result<(), ServerError> {
        let path = ["session", session.as_str(), "abort"];
        self.order(Call::post("aborting a session", &path, None))
            .await
            .map_err(or_not_found(session))
    }

    async fn statuses(
        &self,
        directory: &str,
    ) -> Result<BTreeMap<SessionId, SessionStatus>, ServerError> {
        let what = "reading what sessions do";
        let call = Call {
            directory: Some(directory),
            ..Call::get(what, &["session", "status"])
        };
        let answer = self.ask(call).await?;
        wire::statuses(&answer).ok_or_else(|| unreadable(what, "it is no map of sessions"))
    }

    async fn messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<Vec<Message>, ServerError> {
        let what = "reading messages";
        let path = ["session", session.as_str(), "message"];
        let limit = limit.map(|limit| limit.to_string());
        let query: Vec<(&str, &str)> = limit
            .iter()
            .map(|limit| ("limit", limit.as_str()))
            .collect();
        let call = Call {
            query: &query,
            bound: MESSAGES_BOUND,
            ..Call::get(what, &path)
        };
        let answer = self.ask(call).await.map_err(or_not_found(session))?;
        let messages = answer
            .as_array()
            .ok_or_else(|| unreadable(what, "it is no list"))?;
        Ok(messages.iter().map(Message::read).collect())
    }

    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError> {
        let what = "reading todos";
        let path = ["session", session.as_str(), "todo"];
        let answer = self
            .ask(Call::get(what, &path))
            .await
            .map_err(or_not_found(session))?;
        wire::todos(&answer).ok_or_else(|| unreadable(what, "it is no list"))
    }

    async fn sessions_below(
        &self,
        parent: Option<&SessionId>,
        directory: &str,
    ) -> Result<Vec<SessionRecord>, ServerError> {
        let what = "listing sessions";
        let answer = match parent {
            Some(parent) => {
                let path = ["session", parent.as_str(), "children"];
                let call = Call {
                    bound: MESSAGES_BOUND,
                    ..Call::get(what, &path)
                };
                self.ask(call).await.map_err(or_not_found(parent))?
            }
            None => {
                let query = [("limit", SESSIONS_LISTED)];
                let call = Call {
                    query: &query,
                    bound: MESSAGES_BOUND,
                    ..Call::get(what, &["session"])
                };
                self.ask(Call {
                    directory: Some(directory),
                    ..call
                })
                .await?
            }
        };
        let sessions = answer
            .as_array()
            .ok_or_else(|| unreadable(what, "it is no list"))?;
        Ok(sessions.iter().map(wire::session).collect())
    }

    async fn reject_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
    ) -> Result<(), ServerError> {
        // Requests are kept per directory, and unlike a session's id theirs does not lead there.
        let directory = self.session(session).await?.directory;
        let (path, body) = match kind {
            AskKind::Permission => (
                ["permission", ask, "reply"],
                Some(json!({"reply": "reject"})),
            ),
            AskKind::Question => (["question", ask, "reject"], None),
        };
        let call = Call {
            directory: directory.as_deref(),
            ..Call::post("rejecting a request", &path, body)
        };
        self.order(call).await
    }

    async fn toast(&self, toast: Toast) -> Result<(), ServerError> {
        let body = Some(wire::toast(&toast));
        let path = ["tui", "show-toast"];
        let directory = Some(self.address.directory.as_str());
        self.order(Call {
            directory,
            ..Call::post("showing a toast", &path, body)
        })
        .await
    }

    async fn health(&self) -> Result<(), ServerError> {
        self.version(HEALTH_LIMIT).await.map(|_| ())
    }
}
