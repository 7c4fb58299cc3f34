//! How requests are read: JSON bodies and query strings, bounded in size and time, unknown fields refused with their
//! name, and every problem in the one shape of errors.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest};
use futures::StreamExt;
use futures::future::{LocalBoxFuture, Ready, ready};
use greenroom::domain::halves;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::error::ApiError;

/// Bytes of a body.
pub const BODY_LIMIT: usize = 1024 * 1024;
/// How much of a body that is too large is still read, so that its sender gets to see the answer.
const DRAIN_LIMIT: usize = 32 * 1024 * 1024;
/// How long an answer to an unfinished request may take to be written.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long a body may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// A JSON body; an empty one reads as `{}`.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move { read(&in_time(payload).await?).map(Body) })
    }
}

/// A body as it is.
#[derive(Debug)]
pub struct Raw(pub Vec<u8>);

impl FromRequest for Raw {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move { in_time(payload).await.map(Raw) })
    }
}

async fn in_time(mut payload: Payload) -> Result<Vec<u8>, ApiError> {
    let read_in_time = tokio::time::timeout(BODY_WITHIN, collect(&mut payload)).await;
    let bytes = read_in_time.unwrap_or_else(|_| {
        Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            format!("the body did not come within {BODY_WITHIN:?}"),
            "send the body with the request",
        ))
    });
    if bytes.is_err() {
        leave_unread(payload);
    }
    bytes
}

/// Has the connection closed after the answer. A chunked body that is dropped unfinished would be read to its end first,
/// however long that takes; one that is still held is not.
fn leave_unread(payload: Payload) {
    actix_web::rt::spawn(async move {
        tokio::time::sleep(ANSWER_WITHIN).await;
        drop(payload);
    });
}

async fn collect(payload: &mut Payload) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let mut total: usize = 0;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::unreadable(
                "unreadable_body",
                format!("the body broke off: {error}"),
                "send it again",
            )
        })?;
        total = total.saturating_add(chunk.len());
        if total <= BODY_LIMIT {
            bytes.extend_from_slice(&chunk);
        } else if total > DRAIN_LIMIT {
            break;
        }
    }
    if total > BODY_LIMIT {
        let hint = "put long texts into files that the agent can read";
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body is larger than {BODY_LIMIT} bytes"),
            hint,
        ));
    }
    // As programs in JavaScript write it; what is whole stays as it came.
    Ok(halves::mended(&bytes).unwrap_or(bytes))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let bytes = if bytes.iter().all(u8::is_ascii_whitespace) {
        b"{}"
    } else {
        bytes
    };
    // A list would be read as an object's fields in their order.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(unreadable("expected an object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // The place in the text helps with broken JSON; a field is better named.
        let text = inner.to_string();
        let problem = text.split(" at line ").next().unwrap_or(&text);
        let problem = if path == "." {
            problem.to_owned()
        } else {
            format!("{path}: {problem}")
        };
        match inner.classify() {
            serde_json::error::Category::Data if text.starts_with("unknown field") => {
                ApiError::unreadable(
                    "unknown_field",
                    problem,
                    "remove the field, or correct its name",
                )
            }
            serde_json::error::Category::Data => ApiError::invalid(problem),
            _ => unreadable(&text),
        }
    })?;
    json.end().map_err(|error| unreadable(&error.to_string()))?;
    Ok(value)
}

fn unreadable(problem: &str) -> ApiError {
    ApiError::unreadable(
        "unreadable_json",
        format!("the body is no JSON object: {problem}"),
        "send one JSON object",
    )
}

/// A query string.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Params<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(read_query(request.query_string()).map(Params))
    }
}

fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner().to_string();
        if problem.starts_with("unknown field") {
            let hint = "correct the parameter, or leave it out";
            return ApiError::unreadable("unknown_field", format!("query: {problem}"), hint);
        }
        match path.as_str() {
            "." => ApiError::query(problem),
            path => ApiError::query(format!("{path}: {problem}")),
        }
    })
}

/// A switch in a query: `true`, `1` or nothing after its name; `false` or `0`.
pub fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(D::Error::custom(format!(
            "expected true or false, found {other:?}"
        ))),
    }
}

/// What [`switch`] reads.
pub fn switch_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["boolean", "string"],
        "enum": [true, false, "true", "false", "1", "0", ""],
    })
}
