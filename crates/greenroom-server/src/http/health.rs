//! Liveness and readiness.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use greenroom::Readiness;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::Api;
use super::error::ApiError;
use super::operation::{Either, Json};

/// Time limit for the answer of the actors.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// A process whose actors answer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Alive {
    /// `ok`
    status: &'static str,
    /// Of the service.
    version: &'static str,
}

/// `GET /healthz`: the process is alive and its actors answer, else 503.
pub async fn healthz(api: Data<Api>) -> Result<Json<Alive>, ApiError> {
    if !api.greenroom.ping(PING_LIMIT).await {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "actors_unresponsive",
            format!(
                "the actors did not answer within {} s",
                PING_LIMIT.as_secs()
            ),
            "wait if the service is shutting down or restarting its actors; otherwise restart the service",
        ));
    }
    Ok(Json(Alive {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    }))
}

/// Whether tasks are started and watched, and the reasons if they are not.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ready {
    #[serde(flatten)]
    readiness: Readiness,
    /// Bridges connected.
    bridges: usize,
    /// `token` if callers need the secret, `none` if every local caller is served.
    auth: &'static str,
}

/// `GET /readyz`: 200 if tasks are started and watched, else 503 with the problems.
pub async fn readyz(api: Data<Api>) -> Either<Json<Ready>, Json<Ready, 503>> {
    let mut readiness = api.greenroom.readiness().await;
    let bridges = api.bridge.bridges.len();
    if api.bridge.only_source && bridges == 0 {
        readiness.ready = false;
        readiness
            .problems
            .push("no bridge is connected, and events come by bridges alone: start opencode with Greenroom's plugin".to_owned());
    }
    let is_ready = readiness.ready;
    let auth = match api.guard.token {
        Some(_) => "token",
        None => "none",
    };
    let answer = Ready {
        readiness,
        bridges,
        auth,
    };
    if is_ready {
        Either::Primary(Json(answer))
    } else {
        Either::Secondary(Json(answer))
    }
}
