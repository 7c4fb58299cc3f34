//! The seam under opencode's API: one call, carried to a server by whatever way there is. [`crate::OpencodeServer`] says
//! which calls there are and what their answers mean; a carrier makes each once. Carriers are the HTTP client of this crate
//! and, in the service, the bridge.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use greenroom::ports::agent_server::ServerError;
use serde_json::Value;

/// A net under the time limits of the system, a little longer than the real ones.
const OTHER_LIMIT: Duration = Duration::from_secs(15);
const ANSWER_BOUND: usize = 4 << 20;

/// How a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// It reads, and may be repeated.
    Get,
    /// It orders something, and is never made twice.
    Post,
}

impl Method {
    /// As HTTP says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// One call, before it is made.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// For people, in errors.
    pub what: &'static str,
    /// How it is made.
    pub method: Method,
    /// To be percent-encoded one by one: ids come from outside.
    pub path: &'a [&'a str],
    /// The directory it is about, where the path does not say; carried in the query.
    pub directory: Option<&'a str>,
    /// Texts by name.
    pub query: &'a [(&'a str, &'a str)],
    /// JSON.
    pub body: Option<Value>,
    /// How long its answer may take.
    pub limit: Duration,
    /// Of the answer, in bytes.
    pub bound: usize,
    /// True if the status says everything: the body of an answer that is well is not waited for.
    pub status_only: bool,
}

impl<'a> Call<'a> {
    /// A call that reads.
    pub(crate) fn get(what: &'static str, path: &'a [&'a str]) -> Self {
        Self {
            what,
            method: Method::Get,
            path,
            directory: None,
            query: &[],
            body: None,
            limit: OTHER_LIMIT,
            bound: ANSWER_BOUND,
            status_only: false,
        }
    }

    /// A call that orders something.
    pub(crate) fn post(what: &'static str, path: &'a [&'a str], body: Option<Value>) -> Self {
        Self {
            method: Method::Post,
            body,
            ..Self::get(what, path)
        }
    }

    /// True if its path can be one: a URL drops empty and dot segments, so such an id would address another route.
    pub(crate) fn check(&self) -> Result<(), ServerError> {
        match self
            .path
            .iter()
            .find(|segment| matches!(**segment, "" | "." | ".."))
        {
            Some(bad) => Err(ServerError::NotFound(format!("opencode has no id {bad:?}"))),
            None => Ok(()),
        }
    }
}

/// What a server has answered, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body as it came.
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A way to one server.
pub trait Carrier: Clone + Debug + Send + Sync + 'static {
    /// Makes one call, once. Every answer is one, also a refusal.
    ///
    /// # Errors
    /// No answer came; the error says what is known of the call's effect.
    fn carry(&self, call: &Call<'_>) -> impl Future<Output = Result<Answer, ServerError>> + Send;

    /// True if calls bring credentials: a server that refuses them was given wrong ones, not none.
    fn has_credentials(&self) -> bool {
        false
    }
}
