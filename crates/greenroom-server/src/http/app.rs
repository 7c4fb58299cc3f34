//! Mounts the API: one route per line of the contract, and answers in the shape of errors for what is no route.

use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, Resource};
use greenroom::Greenroom;
use greenroom_bridge::BridgeOptions;

use super::error::ApiError;
use super::guard::Guard;
use super::{events, health, limits, sessions, tasks};

/// What the handlers work with.
#[derive(Debug, Clone)]
pub struct Api {
    /// The actor system.
    pub greenroom: Greenroom,
    /// Who may call.
    pub guard: Guard,
    /// The bridge.
    pub bridge: BridgeOptions,
}

/// Mounts everything. The app must be wrapped in [`super::guard::guard`].
pub fn configure(cfg: &mut ServiceConfig, api: Api) {
    let bridge = api.bridge.clone();
    cfg.app_data(Data::new(api))
        .service(at("/healthz", &[Method::GET]).route(web::get().to(health::healthz)))
        .service(at("/readyz", &[Method::GET]).route(web::get().to(health::readyz)))
        .service(
            at("/v1/tasks", &[Method::GET, Method::POST])
                .route(web::get().to(tasks::list))
                .route(web::post().to(tasks::launch)),
        )
        // Before `{id}`, which would take their names for ids.
        .service(
            at("/v1/tasks/cancel", &[Method::POST]).route(web::post().to(tasks::cancel_several)),
        )
        .service(at("/v1/tasks/track", &[Method::POST]).route(web::post().to(tasks::track)))
        .service(at("/v1/tasks/{id}", &[Method::GET]).route(web::get().to(tasks::get)))
        .service(at("/v1/tasks/{id}/output", &[Method::GET]).route(web::get().to(tasks::output)))
        .service(at("/v1/tasks/{id}/cancel", &[Method::POST]).route(web::post().to(tasks::cancel)))
        .service(at("/v1/tasks/{id}/send", &[Method::POST]).route(web::post().to(tasks::send)))
        .service(
            at("/v1/sessions/{session}/resume", &[Method::POST])
                .route(web::post().to(sessions::resume)),
        )
        .service(
            at("/v1/sessions/{session}/tasks", &[Method::GET])
                .route(web::get().to(sessions::tasks)),
        )
        .service(
            at("/v1/sessions/{session}/history", &[Method::GET])
                .route(web::get().to(sessions::history)),
        )
        .service(at("/v1/session-events", &[Method::POST]).route(web::post().to(sessions::events)))
        .service(at("/v1/events", &[Method::GET]).route(web::get().to(events::stream)))
        .service(
            at("/v1/limits", &[Method::GET, Method::PUT])
                .route(web::get().to(limits::show))
                .route(web::put().to(limits::change)),
        )
        .configure(|cfg| greenroom_bridge::configure(cfg, bridge))
        .default_service(web::to(no_route));
}

/// A resource that names the methods it takes when it is called with another.
fn at(path: &str, methods: &'static [Method]) -> Resource {
    web::resource(path).default_service(web::to(move |request: HttpRequest| {
        let allowed = methods
            .iter()
            .map(Method::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        let refusal = ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("{} {} is no call", request.method(), request.path()),
            format!("use {allowed}"),
        );
        async move {
            let mut response = actix_web::ResponseError::error_response(&refusal);
            if let Ok(value) = allowed.parse() {
                response
                    .headers_mut()
                    .insert(actix_web::http::header::ALLOW, value);
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
