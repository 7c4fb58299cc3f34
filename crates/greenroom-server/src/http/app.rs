//! Mounts the API: every call of [`super::calls`], and answers in the shape of errors for what is no call.

use std::sync::Arc;

use actix_web::http::header::ALLOW;
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Data, PathConfig, ServiceConfig};
use actix_web::{HttpRequest, Resource, ResponseError};
use greenroom::Greenroom;
use greenroom_bridge::BridgeOptions;
use greenroom_sqlite::SqliteJournal;

use super::calls::calls;
use super::error::ApiError;
use super::guard::Guard;
use super::metrics::Requests;
use crate::tools::Tools;

/// What the handlers work with.
#[derive(Debug, Clone)]
pub struct Api {
    /// The actor system.
    pub greenroom: Greenroom,
    /// Who may call.
    pub guard: Guard,
    /// The bridge.
    pub bridge: BridgeOptions,
    /// What agents call.
    pub tools: Tools,
    /// Requests answered so far.
    pub requests: Requests,
    /// The journal on disk, if there is one.
    pub journal: Option<Arc<SqliteJournal>>,
}

/// Mounts everything. The app must be wrapped in [`super::guard::guard`].
pub fn configure(cfg: &mut ServiceConfig, api: Api) {
    let bridge = api.bridge.clone();
    cfg.app_data(Data::new(api));
    cfg.app_data(PathConfig::default().error_handler(|error, _| {
        let hint = "percent-encode what is no plain text";
        ApiError::unreadable(
            "invalid_path",
            format!("the path cannot be read: {error}"),
            hint,
        )
        .into()
    }));
    let calls = calls();
    let mut paths: Vec<&str> = calls.iter().map(|call| call.path).collect();
    paths.dedup();
    paths.sort_by_key(|path| path.contains('{'));
    let mut mounted: Vec<&str> = Vec::new();
    for path in paths {
        if mounted.contains(&path) {
            continue;
        }
        mounted.push(path);
        let of_path = || calls.iter().filter(move |call| call.path == path);
        let methods = of_path().map(|call| call.method.clone()).collect();
        let mut resource = at(path, methods);
        for call in of_path() {
            resource = resource.route(call.route());
        }
        cfg.service(resource);
    }
    cfg.configure(|cfg| greenroom_bridge::configure(cfg, bridge))
        .default_service(web::to(no_route));
}

/// A resource that names the methods it takes when it is called with another.
fn at(path: &str, methods: Vec<Method>) -> Resource {
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

async fn no_route(request: HttpRequest) -> Result<String, ApiError> {
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
