//! The HTTP route that accepts websockets: it checks the bearer token. A host mounts it with
//! [`configure`]; an accepted socket is run by [`crate::socket`].

use actix_web::http::header::{ALLOW, AUTHORIZATION};
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use crate::frame_header::limit_frames;
use crate::options::BridgeOptions;
use crate::socket::Socket;

/// The path of the bridge.
pub const PATH: &str = "/v1/bridge";

/// Mounts the bridge at [`PATH`].
pub fn configure(cfg: &mut ServiceConfig, options: BridgeOptions) {
    cfg.app_data(Data::new(options)).service(
        web::resource(PATH)
            .route(web::get().to(upgrade))
            .default_service(web::to(wrong_method)),
    );
}

async fn wrong_method(request: HttpRequest) -> HttpResponse {
    let mut builder = HttpResponse::MethodNotAllowed();
    builder.insert_header((ALLOW, "GET"));
    let message = format!("{} {PATH} is no call", request.method());
    refuse(builder, "method_not_allowed", &message, "use GET")
}

async fn upgrade(
    request: HttpRequest,
    body: Payload,
    options: Data<BridgeOptions>,
) -> HttpResponse {
    let header = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let authorized = match (&options.token, header) {
        (Some(token), Some(given)) if !token.matches_header(given) => {
            let hint = "send the service's token as `Authorization: Bearer …`, or in the hello";
            return refuse(
                HttpResponse::Unauthorized(),
                "unauthorized",
                "the token is not this service's",
                hint,
            );
        }
        (None, _) | (Some(_), Some(_)) => true,
        (Some(_), None) => false,
    };
    let frame = options.limits.frame;
    let upgraded = match limit_frames(&request, body, frame).await {
        Ok((body, gate)) => actix_ws::handle(&request, body).map(|upgraded| (upgraded, gate)),
        Err(error) => Err(error),
    };
    let ((response, session, messages), gate) = match upgraded {
        Ok(upgraded) => upgraded,
        Err(error) => {
            let hint = "connect with a websocket client";
            return refuse(
                HttpResponse::BadRequest(),
                "not_a_websocket",
                &error.to_string(),
                hint,
            );
        }
    };
    let messages = messages
        .max_frame_size(frame)
        .aggregate_continuations()
        .max_continuation_size(frame);
    let socket = Socket::new(session, messages, gate, options.get_ref().clone());
    actix_web::rt::spawn(socket.run(authorized));
    response
}

fn refuse(
    mut builder: actix_web::HttpResponseBuilder,
    code: &str,
    message: &str,
    hint: &str,
) -> HttpResponse {
    builder.json(json!({ "error": { "code": code, "message": message, "hint": hint } }))
}
