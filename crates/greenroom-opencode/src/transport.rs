//! One HTTP call: its URL, credentials, time limit, bound and status check. [`crate::OpencodeServer`] says which calls
//! there are; this sends them, once each.

use std::time::Duration;

use greenroom::ports::agent_server::ServerError;
use reqwest::{Method, Response, Url};
use serde_json::Value;

use crate::address::{AddressError, ServerAddress, parse_url};
use crate::failure;

/// A net under the time limits of the system, a little longer than the real ones.
const OTHER_LIMIT: Duration = Duration::from_secs(15);
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long the rest of an answer is waited for whose status has said everything.
const TAIL_LIMIT: Duration = Duration::from_secs(1);
const ANSWER_BOUND: usize = 4 << 20;

/// One call, before it is sent.
pub(crate) struct Call<'a> {
    /// For people, in errors.
    pub(crate) what: &'static str,
    pub(crate) method: Method,
    /// Percent-encoded one by one: ids come from outside.
    pub(crate) path: &'a [&'a str],
    pub(crate) directory: Option<&'a str>,
    pub(crate) query: &'a [(&'a str, &'a str)],
    pub(crate) body: Option<Value>,
    pub(crate) limit: Duration,
    /// Of the answer, in bytes.
    pub(crate) bound: usize,
}

impl<'a> Call<'a> {
    /// A call that reads.
    pub(crate) fn get(what: &'static str, path: &'a [&'a str]) -> Self {
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

    /// A call that orders something.
    pub(crate) fn post(what: &'static str, path: &'a [&'a str], body: Option<Value>) -> Self {
        Self {
            method: Method::POST,
            body,
            ..Self::get(what, path)
        }
    }
}

/// The way to one server.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    http: reqwest::Client,
    base: Url,
    pub(crate) address: ServerAddress,
}

impl Transport {
    /// Sends nothing yet.
    pub(crate) fn new(address: ServerAddress) -> Result<Self, AddressError> {
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

    /// Sends a call whose answer has no end; only its head is waited for.
    pub(crate) async fn open(&self, call: &Call<'_>) -> Result<Response, ServerError> {
        let sent = tokio::time::timeout(call.limit, self.request(call)?.send()).await;
        let sent = sent.map_err(|_| ServerError::TimedOut(call.limit))?;
        let response = sent.map_err(|error| failure::unanswered(call.what, &error, call.limit))?;
        self.accepted(response, call).await
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
        let response = sent.map_err(|error| failure::unanswered(call.what, &error, call.limit))?;
        self.accepted(response, call).await
    }

    async fn accepted(
        &self,
        mut response: Response,
        call: &Call<'_>,
    ) -> Result<Response, ServerError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // The status says it is refused; the text is a help that may be missing.
        let body = tokio::time::timeout(TAIL_LIMIT, read(&mut response, call)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        Err(failure::refused(
            status.as_u16(),
            &body,
            self.address.password.is_some(),
        ))
    }

    /// A call whose answer is needed.
    pub(crate) async fn ask(&self, call: Call<'_>) -> Result<Value, ServerError> {
        let mut response = self.send(&call).await?;
        let body = read(&mut response, &call).await?;
        serde_json::from_slice(&body).map_err(|error| unreadable(call.what, &error.to_string()))
    }

    /// A call whose status says everything.
    pub(crate) async fn order(&self, call: Call<'_>) -> Result<(), ServerError> {
        let mut response = self.send(&call).await?;
        // Read only so that the connection can be used again.
        let _ = tokio::time::timeout(TAIL_LIMIT, read(&mut response, &call)).await;
        Ok(())
    }
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

/// An answer came, and does not say what happened.
pub(crate) fn unreadable(what: &str, problem: &str) -> ServerError {
    ServerError::FateUnknown(format!("{what}: the answer cannot be read: {problem}"))
}
