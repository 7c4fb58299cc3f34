//! Mounts the API: all operations of [`super::operations`], and error responses for unknown routes and methods.

use std::sync::Arc;

use actix_web::http::header::ALLOW;
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Data, PathConfig, ServiceConfig};
use actix_web::{HttpRequest, Resource, ResponseError};
use greenroom::Greenroom;
use greenroom_bridge::BridgeOptions;
use greenroom_sqlite::SqliteJournal;

use super::connection::StreamPermits;
use super::error::ApiError;
use super::guard::Guard;
use super::metrics::Requests;
use super::operations::operations;
use crate::tools::Tools;

/// The state of the handlers.
#[derive(Debug, Clone)]
pub struct Api {
    /// The actor system.
    pub greenroom: Greenroom,
    /// The access check.
    pub guard: Guard,
    /// The bridge.
    pub bridge: BridgeOptions,
    /// The tools of agents.
    pub tools: Tools,
    /// The permits of event streams.
    pub streams: StreamPermits,
    /// The counter of requests.
    pub requests: Requests,
    /// The journal on disk, if configured.
    pub journal: Option<Arc<SqliteJournal>>,
}

/// Mounts all routes. The app must be wrapped in [`super::guard::guard`].
pub fn configure(cfg: &mut ServiceConfig, api: Api) {
    let bridge = api.bridge.clone();
    cfg.app_data(Data::new(api));
    cfg.app_data(PathConfig::default().error_handler(|error, _| {
        let hint = "percent-encode all but plain text";
        ApiError::unreadable(
            "invalid_path",
            format!("the path cannot be read: {error}"),
            hint,
        )
        .into()
    }));
    let operations = operations();
    let mut paths: Vec<&str> = operations.iter().map(|operation| operation.path).collect();
    paths.dedup();
    paths.sort_by_key(|path| path.contains('{'));
    let mut mounted: Vec<&str> = Vec::new();
    for path in paths {
        if mounted.contains(&path) {
            continue;
        }
        mounted.push(path);
        let with_path = || {
            operations
                .iter()
                .filter(move |operation| operation.path == path)
        };
        let methods = with_path()
            .map(|operation| operation.method.clone())
            .collect();
        let mut resource = resource_for(path, methods);
        for operation in with_path() {
            resource = resource.route(operation.route());
        }
        cfg.service(resource);
    }
    cfg.configure(|cfg| greenroom_bridge::configure(cfg, bridge))
        .default_service(web::to(route_not_found));
}

/// Returns a resource that answers other methods with 405 and the allowed ones.
fn resource_for(path: &str, methods: Vec<Method>) -> Resource {
    let allowed = methods
        .iter()
        .map(Method::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    web::resource(path).default_service(web::to(move |request: HttpRequest| {
        let refusal = ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("{} {} is no call", request.method(), request.path()),
            format!("use {allowed}"),
        );
        let allowed = allowed.clone();
        async move {
            let mut response = refusal.error_response();
            if let Ok(value) = allowed.parse() {
                response.headers_mut().insert(ALLOW, value);
            }
            response
        }
    }))
}

async fn route_not_found(request: HttpRequest) -> Result<String, ApiError> {
    Err(ApiError::new(
        StatusCode::NOT_FOUND,
        "no_such_route",
        format!(
            "{} {} is no call",
            request.method(),
            greenroom::domain::task::cut(request.path(), 200)
        ),
        "the calls stand below /v1, for instance GET /v1/tasks",
    ))
}
