//! Reads requests: JSON bodies and query strings with limits for size and time. Unknown fields are errors, and all
//! errors have the common format.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest};
use futures::StreamExt;
use futures::future::{LocalBoxFuture, Ready, ready};
use greenroom::domain::lenient_json;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::error::ApiError;

/// Maximum size of a body, in bytes.
pub const BODY_LIMIT: usize = 1024 * 1024;
/// Maximum number of bytes that are drained from an oversized body, so that its sender receives the response.
const DRAIN_LIMIT: usize = 32 * 1024 * 1024;
/// Time limit for writing the response to an unfinished request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body; an empty body is `{}`.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move { parse_json(&read_body(payload).await?).map(Body) })
    }
}

/// A raw body.
#[derive(Debug)]
pub struct RawBody(pub Vec<u8>);

impl FromRequest for RawBody {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move { read_body(payload).await.map(RawBody) })
    }
}

async fn read_body(mut payload: Payload) -> Result<Vec<u8>, ApiError> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, collect(&mut payload)).await;
    let bytes = collected.unwrap_or_else(|_| {
        Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            format!("the body did not come within {BODY_TIMEOUT:?}"),
            "send the body with the request",
        ))
    });
    if bytes.is_err() {
        hold_connection(payload);
    }
    bytes
}

/// Holds an unfinished body until the response is written. actix would first read a dropped body to its end.
fn hold_connection(payload: Payload) {
    actix_web::rt::spawn(async move {
        tokio::time::sleep(ANSWER_TIMEOUT).await;
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
    // JavaScript programs may send lone surrogates.
    Ok(lenient_json::repair(&bytes).unwrap_or(bytes))
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let bytes = if bytes.iter().all(u8::is_ascii_whitespace) {
        b"{}"
    } else {
        bytes
    };
    // serde would read a list as the fields of an object.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(unreadable_json("expected an object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // The position in the text helps for invalid JSON; otherwise the field name is better.
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
            _ => unreadable_json(&text),
        }
    })?;
    json.end()
        .map_err(|error| unreadable_json(&error.to_string()))?;
    Ok(value)
}

fn unreadable_json(problem: &str) -> ApiError {
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

/// Parses a query flag: `true`, `1` or empty; `false` or `0`.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(D::Error::custom(format!(
            "expected true or false, found {other:?}"
        ))),
    }
}

/// Returns the schema of [`flag`].
pub fn flag_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["boolean", "string"],
        "enum": [true, false, "true", "false", "1", "0", ""],
    })
}
