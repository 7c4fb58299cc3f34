//! MCP over streamable HTTP at `/mcp`: connects rmcp to actix. The guard checks each request first.

use std::sync::Arc;

use actix_web::http::{Method, StatusCode, header};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use http_body_util::{BodyDataStream, Full};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio_util::sync::CancellationToken;

use super::server::McpServer;
use super::sessions::{BoundedSessions, RestorableSessions};
use crate::http::ApiError;
use crate::http::input::{BODY_LIMIT, RawBody};
use crate::tools::Tools;

/// The path of the endpoint.
pub const PATH: &str = "/mcp";

type Service = StreamableHttpService<McpServer, BoundedSessions>;

/// The endpoint, shared by all HTTP workers.
#[derive(Clone)]
pub struct Mcp {
    service: Service,
    end: CancellationToken,
}

impl Mcp {
    /// Creates the endpoint for the tools.
    pub fn new(tools: Tools) -> Self {
        let end = CancellationToken::new();
        let server = McpServer::new(Arc::new(tools));
        let mut config = StreamableHttpServerConfig::default()
            // The guard has checked host and origin already.
            .disable_allowed_hosts()
            .disable_allowed_origins()
            .with_max_request_body_bytes(BODY_LIMIT)
            .with_cancellation_token(end.clone());
        config.session_store = Some(Arc::new(RestorableSessions::default()));
        let sessions = Arc::new(BoundedSessions::default());
        Self {
            service: StreamableHttpService::new(move || Ok(server.clone()), sessions, config),
            end,
        }
    }

    /// Mounts the endpoint.
    pub fn configure(&self, cfg: &mut ServiceConfig) {
        let resource = web::resource(PATH)
            .app_data(Data::new(self.service.clone()))
            .default_service(web::to(handle));
        cfg.service(resource);
    }

    /// Ends all sessions and streams.
    pub fn close(&self) {
        self.end.cancel();
    }
}

async fn handle(
    request: HttpRequest,
    body: RawBody,
    service: Data<Service>,
) -> Result<HttpResponse, ApiError> {
    let is_end = request.method() == Method::DELETE;
    let request = to_rmcp(&request, body.0)?;
    let (head, body) = service.handle(request).await.into_parts();
    // Some clients treat other success codes than 200 and 204 as errors.
    let status = match head.status.as_u16() {
        202 if is_end => Ok(StatusCode::NO_CONTENT),
        status => StatusCode::from_u16(status),
    };
    let mut response = HttpResponse::build(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    for (name, value) in &head.headers {
        response.append_header((name.as_str(), value.as_bytes()));
    }
    Ok(response.streaming(BodyDataStream::new(body)))
}

/// Converts the request to the types of the `http` version that rmcp uses.
fn to_rmcp(request: &HttpRequest, body: Vec<u8>) -> Result<http::Request<Full<Bytes>>, ApiError> {
    let method: &Method = request.method();
    let mut built = http::Request::builder()
        .method(method.as_str())
        .uri(request.uri().to_string());
    // rmcp does not need the secret.
    let headers = request.headers().iter();
    for (name, value) in headers.filter(|(name, _)| *name != header::AUTHORIZATION) {
        built = built.header(name.as_str(), value.as_bytes());
    }
    built.body(Full::new(Bytes::from(body))).map_err(|error| {
        ApiError::unreadable(
            "unreadable_request",
            format!("the request cannot be read: {error}"),
            "send a plain HTTP request with headers of plain text",
        )
    })
}

impl std::fmt::Debug for Mcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mcp").finish_non_exhaustive()
    }
}
