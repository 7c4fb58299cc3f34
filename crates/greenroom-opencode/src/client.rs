//! opencode's HTTP API as the [`AgentServer`] port. One attempt per call, with a time limit of its own as a net (the
//! system imposes the real ones), and an error that says what is known of the call's fate. Users build one
//! [`OpencodeServer`] per server and give it to [`greenroom::Greenroom`] and to [`crate::EventStream`]. How a call gets to
//! the server is its carrier's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use greenroom::domain::halves;
use greenroom::domain::ids::SessionId;
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use reqwest::Response;
use serde_json::{Value, json};

use crate::address::{AddressError, ServerAddress};
use crate::carrier::{Answer, Call, Carrier};
use crate::failure::{self, unreadable};
use crate::transport::Transport;
use crate::wire;

/// Nets under the time limits of the system, each a little longer than the real one.
const CREATE_LIMIT: Duration = Duration::from_secs(35);
const PROMPT_LIMIT: Duration = Duration::from_secs(125);
const NOTIFY_LIMIT: Duration = Duration::from_secs(35);
/// A server that is well answers a health call in milliseconds; one that boots may never answer.
const HEALTH_LIMIT: Duration = Duration::from_secs(3);

/// Messages of a session can be large: tool output and files are in them.
const MESSAGES_BOUND: usize = 64 << 20;
const READING_MESSAGES: &str = "reading messages";
/// So many newest messages are asked for where all of them are too many.
const ALL_BUT_TOO_MANY: usize = 100;
/// opencode lists a hundred sessions unless told otherwise.
const SESSIONS_LISTED: &str = "1000";

/// One opencode server, reached by a carrier. A cheap clone that may be used from any thread.
#[derive(Debug, Clone)]
pub struct OpencodeServer<C = Transport> {
    carrier: C,
    directory: Arc<str>,
}

impl OpencodeServer {
    /// A client for the server at that address; nothing is sent yet.
    ///
    /// # Errors
    /// The URL is not `http://host[:port]`.
    pub fn new(address: ServerAddress) -> Result<Self, AddressError> {
        let directory = address.directory.clone();
        Ok(Self::over(Transport::new(address)?, directory))
    }

    /// Where this server is.
    pub fn address(&self) -> &ServerAddress {
        &self.carrier.address
    }

    /// Opens the event stream; only the answer's head is waited for, up to `limit`.
    pub(crate) async fn open_events(&self, limit: Duration) -> Result<Response, ServerError> {
        let call = Call {
            limit,
            ..Call::get("opening the event stream", &["global", "event"])
        };
        self.carrier.open(&call).await
    }
}

impl<C: Carrier> OpencodeServer<C> {
    /// A client for the server that `carrier` leads to; toasts are shown where `directory` is open.
    pub fn over(carrier: C, directory: impl Into<Arc<str>>) -> Self {
        Self {
            carrier,
            directory: directory.into(),
        }
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

    async fn carry(&self, call: &Call<'_>) -> Result<Answer, ServerError> {
        call.check()?;
        let answer = self.carrier.carry(call).await?;
        if !answer.is_success() {
            let with_credentials = self.carrier.has_credentials();
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

    /// A call whose answer is needed.
    async fn ask(&self, call: Call<'_>) -> Result<Value, ServerError> {
        let answer = self.carry(&call).await?;
        halves::read(&answer.body).map_err(|error| unreadable(call.what, &error.to_string()))
    }

    /// A call whose status says everything.
    async fn order(&self, call: Call<'_>) -> Result<(), ServerError> {
        let call = Call {
            status_only: true,
            ..call
        };
        self.carry(&call).await.map(|_| ())
    }

    /// The newest messages of a session as they came; fewer if so many are more than the carrier takes at once.
    async fn newest_messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<Value, ServerError> {
        let path = ["session", session.as_str(), "message"];
        let mut limit = limit;
        loop {
            let text = limit.map(|limit| limit.to_string());
            let query: Vec<(&str, &str)> =
                text.iter().map(|text| ("limit", text.as_str())).collect();
            let call = Call {
                query: &query,
                bound: MESSAGES_BOUND,
                ..Call::get(READING_MESSAGES, &path)
            };
            match (self.ask(call).await, limit) {
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
impl<C: Carrier> AgentServer for OpencodeServer<C> {
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
        let what = READING_MESSAGES;
        let answer = self.newest_messages(session, limit).await?;
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

    async fn answer_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
        answer: &AskAnswer,
    ) -> Result<(), ServerError> {
        // Requests are kept per directory, and unlike a session's id theirs does not lead there.
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
        let call = Call {
            directory: directory.as_deref(),
            ..Call::post("answering a request", &path, body)
        };
        self.order(call).await
    }

    async fn toast(&self, toast: Toast) -> Result<(), ServerError> {
        let body = Some(wire::toast(&toast));
        let path = ["tui", "show-toast"];
        let directory = Some(&*self.directory);
        self.order(Call {
            directory,
            ..Call::post("showing a toast", &path, body)
        })
        .await
    }

    async fn models(&self, directory: &str) -> Result<Vec<String>, ServerError> {
        let what = "listing models";
        let call = Call {
            directory: Some(directory),
            bound: MESSAGES_BOUND,
            ..Call::get(what, &["config", "providers"])
        };
        let answer = self.ask(call).await?;
        wire::models(&answer).ok_or_else(|| unreadable(what, "it names no providers"))
    }

    async fn health(&self) -> Result<(), ServerError> {
        self.version(HEALTH_LIMIT).await.map(|_| ())
    }
}
