//! opencode's HTTP API as the [`AgentServer`] port. Each call is attempted once, with a fallback time limit (the actor system
//! enforces the regular ones), and an error that describes the known effect of the call. Users create one
//! [`OpencodeServer`] per server, for [`greenroom::Greenroom`] and [`crate::EventStream`]. A transport sends the calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use greenroom::domain::ids::{ModelRef, SessionId};
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use reqwest::Response;
use serde_json::{Value, json};

use crate::address::{AddressError, ServerAddress};
use crate::body;
use crate::failure::{self, unreadable};
use crate::http_transport::HttpTransport;
use crate::messages;
use crate::transport::{ApiCall, ApiResponse, Transport};
use crate::wire;

/// Fallback time limits, each slightly longer than the limit that the actor system enforces.
const CREATE_LIMIT: Duration = Duration::from_secs(35);
const PROMPT_LIMIT: Duration = Duration::from_secs(125);
const NOTIFY_LIMIT: Duration = Duration::from_secs(35);
/// A healthy server answers a health call in milliseconds; a starting one may never answer.
const HEALTH_LIMIT: Duration = Duration::from_secs(3);

/// Messages of a session may be large: they contain tool output and files.
const MESSAGES_BOUND: usize = 64 << 20;
const READING_MESSAGES: &str = "reading messages";
/// The number of newest messages to request after all of them were too many.
const ALL_BUT_TOO_MANY: usize = 100;
/// opencode lists a hundred sessions by default.
const SESSIONS_LISTED: &str = "1000";

/// A client of one opencode server. Cheap to clone; usable from any thread.
#[derive(Debug, Clone)]
pub struct OpencodeServer<C = HttpTransport> {
    transport: C,
    directory: Arc<str>,
}

impl OpencodeServer {
    /// Returns a client for the server at that address; nothing is sent yet.
    ///
    /// # Errors
    /// Fails if the URL is not `http://host[:port]`.
    pub fn new(address: ServerAddress) -> Result<Self, AddressError> {
        let directory = address.directory.clone();
        Ok(Self::with_transport(
            HttpTransport::new(address)?,
            directory,
        ))
    }

    /// Returns the address of the server.
    pub fn address(&self) -> &ServerAddress {
        &self.transport.address
    }

    /// Opens the event stream. Waits for the response headers only, up to `limit`.
    pub(crate) async fn open_events(&self, limit: Duration) -> Result<Response, ServerError> {
        let call = ApiCall {
            limit,
            ..ApiCall::get("opening the event stream", &["global", "event"])
        };
        self.transport.open(&call).await
    }
}

impl<C: Transport> OpencodeServer<C> {
    /// Returns a client that sends its calls over `transport`. Toasts are shown in `directory`.
    pub fn with_transport(transport: C, directory: impl Into<Arc<str>>) -> Self {
        Self {
            transport,
            directory: directory.into(),
        }
    }

    /// Returns the version of a healthy server, within `limit`; empty if the server reports none.
    pub(crate) async fn version(&self, limit: Duration) -> Result<String, ServerError> {
        let call = ApiCall {
            limit,
            ..ApiCall::get("asking for its health", &["global", "health"])
        };
        let answer = self.fetch(call).await?;
        Ok(answer
            .get("version")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned())
    }

    async fn send(&self, call: &ApiCall<'_>) -> Result<ApiResponse, ServerError> {
        call.check()?;
        let answer = self.transport.send(call).await?;
        if !answer.is_success() {
            let with_credentials = self.transport.has_credentials();
            return Err(failure::refused(
                answer.status,
                &answer.body,
                with_credentials,
            ));
        }
        if answer.body.len() > call.bound {
            return Err(failure::too_large(call.what, call.bound));
        }
        Ok(answer)
    }

    /// Sends a call and returns the JSON of its response.
    async fn fetch(&self, call: ApiCall<'_>) -> Result<Value, ServerError> {
        let answer = self.send(&call).await?;
        let value = body::read_value(answer.body).await;
        value.map_err(|error| unreadable(call.what, error.problem()))
    }

    /// Sends a call whose status is sufficient.
    async fn submit(&self, call: ApiCall<'_>) -> Result<(), ServerError> {
        let call = ApiCall {
            status_only: true,
            ..call
        };
        self.send(&call).await.map(|_| ())
    }

    /// Returns the answer with the newest messages of a session; fewer than `limit` if they exceed the size limit of the transport.
    async fn newest_messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<ApiResponse, ServerError> {
        let path = ["session", session.as_str(), "message"];
        let mut limit = limit;
        loop {
            let text = limit.map(|limit| limit.to_string());
            let query: Vec<(&str, &str)> =
                text.iter().map(|text| ("limit", text.as_str())).collect();
            let call = ApiCall {
                query: &query,
                bound: MESSAGES_BOUND,
                ..ApiCall::get(READING_MESSAGES, &path)
            };
            match (self.send(&call).await, limit) {
                (
                    Err(ServerError::Refused {
                        status: Some(413), ..
                    }),
                    None | Some(2..),
                ) => limit = Some(limit.map_or(ALL_BUT_TOO_MANY, |limit| limit.div_ceil(4))),
                (answer, _) => return answer.map_err(or_not_found(session)),
            }
        }
    }
}

/// Maps the 500 that opencode returns for an id without its prefix to "not found": no such session can exist.
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

/// Returns true for the characters and the length of an id. Any other text could be read as a sentence of Greenroom.
fn is_plain_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=256).contains(&id.len()) && id.bytes().all(is_plain)
}

fn is_session_id(session: &SessionId) -> bool {
    session.as_str().starts_with("ses")
}

#[async_trait]
impl<C: Transport> AgentServer for OpencodeServer<C> {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        let path = ["session", session.as_str()];
        let answer = self
            .fetch(ApiCall::get("reading a session", &path))
            .await
            .map_err(or_not_found(session))?;
        Ok(wire::session(&answer))
    }

    async fn create(&self, session: NewSession) -> Result<SessionId, ServerError> {
        let call = ApiCall {
            directory: Some(&session.directory),
            limit: CREATE_LIMIT,
            ..ApiCall::post(
                "creating a session",
                &["session"],
                Some(wire::new_session(&session)),
            )
        };
        let answer = self
            .fetch(call)
            .await
            .map_err(|error| match (error, &session.parent) {
                (
                    ServerError::Refused {
                        status: Some(400), ..
                    },
                    Some(parent),
                ) if !is_session_id(parent) => {
                    let message =
                        format!("{parent} is not a session of opencode (its ids begin with ses_)");
                    ServerError::Refused {
                        status: Some(400),
                        message,
                    }
                }
                (other, _) => other,
            })?;
        let refused = |message: &str| ServerError::Refused {
            status: None,
            message: message.to_owned(),
        };
        let id = wire::session(&answer)
            .id
            .ok_or_else(|| refused("opencode created a session without returning its id"))?;
        if is_plain_id(id.as_str()) {
            Ok(id)
        } else {
            Err(refused("opencode returned an id that is not a session id"))
        }
    }

    async fn prompt(
        &self,
        session: &SessionId,
        directory: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError> {
        let path = ["session", session.as_str(), "prompt_async"];
        let call = ApiCall {
            directory,
            limit: PROMPT_LIMIT,
            ..ApiCall::post(
                "prompting a session",
                &path,
                Some(wire::task_prompt(&prompt)),
            )
        };
        self.submit(call).await.map_err(or_not_found(session))
    }

    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError> {
        let path = ["session", parent.as_str(), "prompt_async"];
        let call = ApiCall {
            limit: NOTIFY_LIMIT,
            ..ApiCall::post(
                "sending a message to a parent",
                &path,
                Some(wire::notice(&notice)),
            )
        };
        self.submit(call).await.map_err(or_not_found(parent))
    }

    async fn abort(&self, session: &SessionId) -> Result<(), ServerError> {
        let path = ["session", session.as_str(), "abort"];
        self.submit(ApiCall::post("aborting a session", &path, None))
            .await
            .map_err(or_not_found(session))
    }

    async fn statuses(
        &self,
        directory: &str,
    ) -> Result<BTreeMap<SessionId, SessionStatus>, ServerError> {
        let what = "reading what sessions do";
        let call = ApiCall {
            directory: Some(directory),
            ..ApiCall::get(what, &["session", "status"])
        };
        let answer = match self.fetch(call).await {
            Err(ServerError::Unreachable(why)) if self.transport.process_has_ended().await => {
                return Err(ServerError::ProcessEnded(why));
            }
            answer => answer?,
        };
        wire::statuses(&answer).ok_or_else(|| unreadable(what, "it is not a map of sessions"))
    }

    async fn messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<Vec<Message>, ServerError> {
        let answer = self.newest_messages(session, limit).await?;
        let messages = messages::read(answer.body).await;
        messages.map_err(|error| unreadable(READING_MESSAGES, error.problem()))
    }

    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError> {
        let what = "reading todos";
        let path = ["session", session.as_str(), "todo"];
        let answer = self
            .fetch(ApiCall::get(what, &path))
            .await
            .map_err(or_not_found(session))?;
        wire::todos(&answer).ok_or_else(|| unreadable(what, "it is not a list"))
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
                let call = ApiCall {
                    bound: MESSAGES_BOUND,
                    ..ApiCall::get(what, &path)
                };
                self.fetch(call).await.map_err(or_not_found(parent))?
            }
            None => {
                let query = [("limit", SESSIONS_LISTED)];
                let call = ApiCall {
                    query: &query,
                    bound: MESSAGES_BOUND,
                    ..ApiCall::get(what, &["session"])
                };
                self.fetch(ApiCall {
                    directory: Some(directory),
                    ..call
                })
                .await?
            }
        };
        let sessions = answer
            .as_array()
            .ok_or_else(|| unreadable(what, "it is not a list"))?;
        Ok(sessions.iter().map(wire::session).collect())
    }

    async fn answer_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
        answer: &AskAnswer,
    ) -> Result<(), ServerError> {
        // Requests are kept per directory; unlike a session id, the id of a request does not lead to its directory.
        let directory = self.session(session).await?.directory;
        let reply = |reply: &str| (["permission", ask, "reply"], Some(json!({"reply": reply})));
        let (path, body) = match (answer, kind) {
            (AskAnswer::Once, _) => reply("once"),
            (AskAnswer::Always, _) => reply("always"),
            (AskAnswer::Reject, AskKind::Permission) => reply("reject"),
            (AskAnswer::Reject, AskKind::Question) => (["question", ask, "reject"], None),
            (AskAnswer::Answers(answers), _) => (
                ["question", ask, "reply"],
                Some(json!({"answers": answers})),
            ),
        };
        let call = ApiCall {
            directory: directory.as_deref(),
            ..ApiCall::post("answering a request", &path, body)
        };
        self.submit(call).await
    }

    async fn toast(&self, toast: Toast) -> Result<(), ServerError> {
        let body = Some(wire::toast(&toast));
        let path = ["tui", "show-toast"];
        let directory = Some(&*self.directory);
        self.submit(ApiCall {
            directory,
            ..ApiCall::post("showing a toast", &path, body)
        })
        .await
    }

    async fn models(&self, directory: &str) -> Result<Vec<String>, ServerError> {
        let what = "listing models";
        let call = ApiCall {
            directory: Some(directory),
            bound: MESSAGES_BOUND,
            ..ApiCall::get(what, &["config", "providers"])
        };
        let answer = self.fetch(call).await?;
        wire::models(&answer).ok_or_else(|| unreadable(what, "it names no providers"))
    }

    async fn default_model(&self, directory: &str) -> Result<Option<ModelRef>, ServerError> {
        let read = |what, path| ApiCall {
            directory: Some(directory),
            bound: MESSAGES_BOUND,
            ..ApiCall::get(what, path)
        };
        let config = self
            .fetch(read("reading the configuration", &["config"]))
            .await?;
        if let Some(model) = wire::configured_model(&config) {
            return Ok(Some(model));
        }
        let providers = self
            .fetch(read("listing models", &["config", "providers"]))
            .await?;
        Ok(wire::provider_default(&providers))
    }

    async fn health(&self) -> Result<(), ServerError> {
        self.version(HEALTH_LIMIT).await.map(|_| ())
    }
}
