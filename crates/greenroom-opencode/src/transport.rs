//! The interface between opencode's API and the connection to a server. [`crate::OpencodeServer`] defines the calls and
//! interprets the responses; a transport sends each call once. There are two: the HTTP client of this crate and, in the
//! service, the bridge.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use greenroom::ports::agent_server::ServerError;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

/// A fallback time limit, slightly longer than the limits that the actor system enforces.
const OTHER_LIMIT: Duration = Duration::from_secs(15);
const ANSWER_BOUND: usize = 4 << 20;

/// The HTTP method of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads; may be repeated.
    Get,
    /// Changes something; never repeated.
    Post,
}

impl Method {
    /// Returns the name of the method in HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// One call of opencode's API.
#[derive(Debug, Clone)]
pub struct ApiCall<'a> {
    /// A description for error texts.
    pub what: &'static str,
    /// The HTTP method.
    pub method: Method,
    /// The path segments, to be percent-encoded one by one: ids come from outside.
    pub path: &'a [&'a str],
    /// The directory of the call, unless the path implies it; sent as a query parameter.
    pub directory: Option<&'a str>,
    /// The query parameters.
    pub query: &'a [(&'a str, &'a str)],
    /// The JSON body.
    pub body: Option<Value>,
    /// The time limit of the response.
    pub limit: Duration,
    /// The size limit of the response, in bytes.
    pub bound: usize,
    /// True if the status is sufficient: the body of a successful response is not needed.
    pub status_only: bool,
}

impl<'a> ApiCall<'a> {
    /// Returns a `GET` call.
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

    /// Returns a `POST` call.
    pub(crate) fn post(what: &'static str, path: &'a [&'a str], body: Option<Value>) -> Self {
        Self {
            method: Method::Post,
            body,
            ..Self::get(what, path)
        }
    }

    /// Fails if a path segment is empty or a dot segment: a URL drops those, so that such an id would address another
    /// route.
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

/// The response of a server, of any status.
#[derive(Debug, Default)]
pub struct ApiResponse {
    /// The HTTP status.
    pub status: u16,
    /// The raw body.
    pub body: Vec<u8>,
    /// Held until a large body is interpreted: few are in memory at once.
    pub large_body: Option<OwnedSemaphorePermit>,
}

impl ApiResponse {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Sends calls to one server.
pub trait Transport: Clone + Debug + Send + Sync + 'static {
    /// Sends one call, once. A response of any status is a success.
    ///
    /// # Errors
    /// Fails if there is no response; the error describes the known effect of the call.
    fn send(
        &self,
        call: &ApiCall<'_>,
    ) -> impl Future<Output = Result<ApiResponse, ServerError>> + Send;

    /// Returns true if calls are sent with credentials, so that a 401 means wrong credentials, not missing ones.
    fn has_credentials(&self) -> bool {
        false
    }

    /// Returns true if the process of the server has certainly ended. Called after a call that did not reach it.
    fn process_has_ended(&self) -> impl Future<Output = bool> + Send {
        std::future::ready(false)
    }
}
