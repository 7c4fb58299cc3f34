//! The HTTP transport: builds the URL of a call, adds credentials, and enforces its time limit and size limit.

use std::time::Duration;

use greenroom::ports::agent_server::ServerError;
use reqwest::{Response, Url};

use crate::address::{AddressError, ServerAddress, parse_url};
use crate::failure;
use crate::transport::{ApiCall, ApiResponse, Method, Transport};

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The time limit for the body of a response whose status is sufficient.
const TAIL_LIMIT: Duration = Duration::from_secs(1);

/// Sends calls to one server over HTTP.
#[derive(Debug, Clone)]
pub struct HttpTransport {
    http: reqwest::Client,
    base: Url,
    pub(crate) address: ServerAddress,
}

impl HttpTransport {
    /// Returns a transport; nothing is sent yet.
    pub(crate) fn new(address: ServerAddress) -> Result<Self, AddressError> {
        let base = parse_url(&address.url)?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            // Short, because the effect of a `POST` on a connection that the server is closing is unknown.
            .pool_idle_timeout(Duration::from_secs(4))
            // Credentials are sent to the configured address only: no redirects, no proxy.
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

    /// Sends a call whose response is a stream; waits for the response headers only.
    pub(crate) async fn open(&self, call: &ApiCall<'_>) -> Result<Response, ServerError> {
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

    fn request(&self, call: &ApiCall<'_>) -> Result<reqwest::RequestBuilder, ServerError> {
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

impl Transport for HttpTransport {
    async fn send(&self, call: &ApiCall<'_>) -> Result<ApiResponse, ServerError> {
        let sent = self.request(call)?.timeout(call.limit).send().await;
        let mut response =
            sent.map_err(|error| failure::unanswered(call.what, &error, call.limit))?;
        let status = response.status();
        let body = if status.is_success() && !call.status_only {
            read(&mut response, call).await?
        } else {
            // The status is sufficient. The body is read if it is there, so that the connection can be reused.
            tail(&mut response, call).await
        };
        Ok(ApiResponse {
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

async fn tail(response: &mut Response, call: &ApiCall<'_>) -> Vec<u8> {
    let body = tokio::time::timeout(TAIL_LIMIT, read(response, call)).await;
    body.ok().and_then(Result::ok).unwrap_or_default()
}

/// Reads a body up to the size limit of the call, so that a faulty server cannot fill the memory.
async fn read(response: &mut Response, call: &ApiCall<'_>) -> Result<Vec<u8>, ServerError> {
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
