//! The HTTP client as a carrier of calls: URL, credentials, time limit and bound of each.

use std::time::Duration;

use greenroom::ports::agent_server::ServerError;
use reqwest::{Response, Url};

use crate::address::{AddressError, ServerAddress, parse_url};
use crate::carrier::{Answer, Call, Carrier, Method};
use crate::failure;

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long the rest of an answer is waited for whose status has said everything.
const TAIL_LIMIT: Duration = Duration::from_secs(1);

/// The way to one server by HTTP.
#[derive(Debug, Clone)]
pub struct Transport {
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
        let mut response =
            sent.map_err(|error| failure::unanswered(call.what, &error, call.limit))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = tail(&mut response, call).await;
        Err(failure::refused(status, &body, self.has_credentials()))
    }

    fn request(&self, call: &Call<'_>) -> Result<reqwest::RequestBuilder, ServerError> {
        call.check()?;
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
            .request(method_of(call.method), url)
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
}

impl Carrier for Transport {
    async fn carry(&self, call: &Call<'_>) -> Result<Answer, ServerError> {
        let sent = self.request(call)?.timeout(call.limit).send().await;
        let mut response =
            sent.map_err(|error| failure::unanswered(call.what, &error, call.limit))?;
        let status = response.status();
        let body = match status.is_success() && !call.status_only {
            true => read(&mut response, call).await?,
            // The status says it; the rest is a help that may be missing, and lets the connection be used again.
            false => tail(&mut response, call).await,
        };
        Ok(Answer {
            status: status.as_u16(),
            body,
        })
    }

    fn has_credentials(&self) -> bool {
        self.address.password.is_some()
    }
}

fn method_of(method: Method) -> reqwest::Method {
    match method {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
    }
}

async fn tail(response: &mut Response, call: &Call<'_>) -> Vec<u8> {
    let body = tokio::time::timeout(TAIL_LIMIT, read(response, call)).await;
    body.ok().and_then(Result::ok).unwrap_or_default()
}

/// Reads an answer up to its bound, so that a broken server cannot fill the memory.
async fn read(response: &mut Response, call: &Call<'_>) -> Result<Vec<u8>, ServerError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > call.bound => {
                return Err(failure::too_large(call.what, call.bound));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(failure::unanswered(call.what, &error, call.limit)),
        }
    }
}
