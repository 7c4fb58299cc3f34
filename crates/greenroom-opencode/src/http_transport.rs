//! The HTTP transport: builds the URL of a call, adds credentials, and enforces its time limit and size limit.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use greenroom::ports::agent_server::ServerError;
use reqwest::{Response, Url};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::address::{AddressError, ServerAddress, parse_url};
use crate::failure;
use crate::transport::{ApiCall, ApiResponse, Method, Transport};

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The time limit for the body of a response whose status is sufficient.
const TAIL_LIMIT: Duration = Duration::from_secs(1);
/// A body that is larger, in bytes, counts as large.
const LARGE_BODY: usize = 4 << 20;
/// Maximum number of large bodies in memory. A further one is read once another is interpreted.
const MAX_LARGE_BODIES: usize = 3;

/// Sends calls to one server over HTTP.
#[derive(Debug, Clone)]
pub struct HttpTransport {
    http: reqwest::Client,
    base: Url,
    pub(crate) address: ServerAddress,
    large_bodies: Arc<Semaphore>,
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
            large_bodies: Arc::new(Semaphore::new(MAX_LARGE_BODIES)),
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
        if !status.is_success() || call.status_only {
            // The status is sufficient. The body is read if it is there, so that the connection can be reused.
            return Ok(ApiResponse {
                status: status.as_u16(),
                body: tail(&mut response, call).await,
                large_body: None,
            });
        }
        let mut body = Vec::new();
        let mut large_body = None;
        if !read(&mut response, call, &mut body, LARGE_BODY).await? {
            let wait = Arc::clone(&self.large_bodies).acquire_owned();
            let permit = tokio::time::timeout(call.limit, wait).await;
            large_body = permit.map_err(|_| ServerError::TimedOut(call.limit))?.ok();
            read(&mut response, call, &mut body, usize::MAX).await?;
        }
        Ok(ApiResponse {
            status: status.as_u16(),
            body,
            large_body,
        })
    }

    fn has_credentials(&self) -> bool {
        self.address.password.is_some()
    }

    /// True if this machine refuses connections at the address: a living server keeps its port. Another machine, or what
    /// stands before it, may refuse for other reasons.
    async fn process_has_ended(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default();
        let host = host.trim_matches(['[', ']']);
        let is_here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let Some(port) = self.base.port_or_known_default().filter(|_| is_here) else {
            return false;
        };
        let connect = TcpStream::connect((host, port));
        let connected = tokio::time::timeout(CONNECT_LIMIT, connect).await;
        matches!(connected, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
    }
}

fn method_of(method: Method) -> reqwest::Method {
    match method {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
    }
}

async fn tail(response: &mut Response, call: &ApiCall<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    let read = read(response, call, &mut body, LARGE_BODY);
    match tokio::time::timeout(TAIL_LIMIT, read).await {
        Ok(Ok(_)) => body,
        _ => Vec::new(),
    }
}

/// Reads a body up to the size limit of the call, so that a faulty server cannot fill the memory. Returns false if `pause_at`
/// bytes are reached before its end.
async fn read(
    response: &mut Response,
    call: &ApiCall<'_>,
    body: &mut Vec<u8>,
    pause_at: usize,
) -> Result<bool, ServerError> {
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > call.bound => {
                return Err(failure::too_large(call.what, call.bound));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(true),
            Err(error) => return Err(failure::unanswered(call.what, &error, call.limit)),
        }
        if body.len() >= pause_at {
            return Ok(false);
        }
    }
}
