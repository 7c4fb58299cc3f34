//! Whether the service lives, and whether it can do its work.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::json;

use super::app::Api;

/// `GET /healthz`: the process answers.
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /readyz`: 200 if tasks are started and watched, else 503 with what is in the way.
pub async fn readyz(api: Data<Api>) -> HttpResponse {
    let mut readiness = api.greenroom.readiness().await;
    let bridges = api.bridge.bridges.len();
    if api.bridge.only_source && bridges == 0 {
        readiness.ready = false;
        readiness
            .problems
            .push("no bridge is connected, and opencode.events is \"bridge\"".to_owned());
    }
    let mut response = if readiness.ready {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    response.json(json!({
        "ready": readiness.ready,
        "problems": readiness.problems,
        "tasks": readiness.tasks,
        "running": readiness.running,
        "waiting": readiness.waiting,
        "bridges": bridges,
    }))
}
