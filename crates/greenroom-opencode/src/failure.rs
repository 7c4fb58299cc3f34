//! Converts failures of calls into [`ServerError`]s: opencode's error bodies of every shape, and lost connections. Each error
//! describes the known effect of the call.

use std::time::Duration;

use greenroom::domain::lenient_json;
use greenroom::domain::task::cut;
use greenroom::domain::transcript::without_stack;
use greenroom::ports::agent_server::ServerError;
use serde_json::Value;

/// The most characters kept of an error text.
const TEXT_LIMIT: usize = 2000;

/// Returns the error of a request without a complete response.
pub(crate) fn unanswered(what: &str, error: &reqwest::Error, limit: Duration) -> ServerError {
    let text = format!("{what}: {}", root_cause(error));
    if error.is_connect() {
        // Includes a connect that timed out: nothing was sent.
        ServerError::Unreachable(text)
    } else if error.is_timeout() {
        ServerError::TimedOut(limit)
    } else if error.is_builder() {
        ServerError::Refused {
            status: None,
            message: text,
        }
    } else {
        ServerError::OutcomeUnknown(text)
    }
}

/// Returns the error of a response that cannot be read.
pub(crate) fn unreadable(what: &str, problem: &str) -> ServerError {
    ServerError::OutcomeUnknown(format!("{what}: the answer cannot be read: {problem}"))
}

/// Returns the error of a response over the size limit.
pub(crate) fn too_large(what: &str, bound: usize) -> ServerError {
    unreadable(what, &format!("it is larger than {} MiB", bound >> 20))
}

/// Returns the error of a response with a status other than 2xx.
pub(crate) fn refused(status: u16, body: &[u8], password_given: bool) -> ServerError {
    let text = text_of(body);
    match status {
        401 => ServerError::Refused {
            status: Some(401),
            message: unauthorized(password_given).to_owned(),
        },
        404 => ServerError::NotFound(
            text.unwrap_or_else(|| "opencode knows no such thing (404)".to_owned()),
        ),
        _ => {
            let message = text.unwrap_or_else(|| {
                let hint = match status {
                    300..=399 => "; check that `opencode.url` is the server itself",
                    500 => "; it may be another version than the one this was made for",
                    _ => "",
                };
                format!("opencode answered {status} without a text{hint}")
            });
            ServerError::Refused {
                status: Some(status),
                message,
            }
        }
    }
}

fn unauthorized(password_given: bool) -> &'static str {
    if password_given {
        "opencode refused the name or password given (401); check `opencode.username` and OPENCODE_SERVER_PASSWORD"
    } else {
        "opencode wants a password (401); set OPENCODE_SERVER_PASSWORD to the password it was started with"
    }
}

/// Returns the text of an error body: `data.message`, else `message`, else its name or tag; a body that is not JSON unchanged;
/// none if there is no text.
fn text_of(body: &[u8]) -> Option<String> {
    let Ok(json) = lenient_json::read::<Value>(body) else {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        return (!text.is_empty()).then(|| cut(text, TEXT_LIMIT).to_owned());
    };
    let at = |place: &str| {
        json.pointer(place)
            .and_then(Value::as_str)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    };
    let text = ["/data/message", "/message", "/error/message", "/error"]
        .iter()
        .find_map(|place| at(place));
    let name = at("/name").or_else(|| at("/_tag"));
    let text = text.map(without_stack);
    let text = match (text, at("/data/ref")) {
        // The reference identifies the cause in opencode's log.
        (Some(text), Some(reference)) => format!("{text} ({reference})"),
        (Some(text), None) => text.to_owned(),
        (None, _) => match name {
            Some(name) => format!("opencode answered {name} without a text"),
            None => json
                .as_str()
                .map(str::trim)
                .filter(|text| !text.is_empty())?
                .to_owned(),
        },
    };
    Some(cut(&text, TEXT_LIMIT).to_owned())
}

/// Returns the innermost cause of an error, for instance "connection refused".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(status: u16, body: &str) -> String {
        match refused(status, body.as_bytes(), false) {
            ServerError::Refused {
                status: Some(given),
                message,
            } => {
                assert_eq!(given, status);
                message
            }
            other => panic!("{other:?} is not a refusal"),
        }
    }

    #[test]
    fn text_is_read_from_every_error_shape() {
        let named = r#"{"name":"BadRequest","data":{"message":"Missing key\n  at [\"parts\"]","kind":"Payload"}}"#;
        assert_eq!(message(400, named), "Missing key\n  at [\"parts\"]");
        let unknown = r#"{"name":"UnknownError","data":{"message":"Unexpected server error.","ref":"err_c8"}}"#;
        assert_eq!(message(500, unknown), "Unexpected server error. (err_c8)");
        assert_eq!(
            message(400, r#"{"_tag":"BadRequest"}"#),
            "opencode answered BadRequest without a text"
        );
        assert_eq!(
            message(409, r#"{"_tag":"Busy","message":"still busy"}"#),
            "still busy"
        );
        assert_eq!(message(502, "Bad gateway\n"), "Bad gateway");
        assert_eq!(message(400, r#""just a text""#), "just a text");
        assert!(message(503, "").starts_with("opencode answered 503 without a text"));
        assert!(message(500, "{}").contains("500"));
        assert!(message(302, "").contains("opencode.url"));
    }

    #[test]
    fn stack_trace_is_removed() {
        let body = |text: &str| serde_json::json!({"data": {"message": text}}).to_string();
        let trace = "No such directory: /x\n    at open (node:fs:12:3)\n    at async /$bunfs/root/a.js:1:2\n    at <anonymous>\n";
        assert_eq!(message(500, &body(trace)), "No such directory: /x");
        let frames = "at open (node:fs:12:3)";
        assert_eq!(message(500, &body(frames)), frames);
        let place = "Missing key\n  at [\"parts\"]";
        assert_eq!(message(400, &body(place)), place);
    }

    #[test]
    fn status_404_is_not_found() {
        let body = br#"{"name":"NotFoundError","data":{"message":"Session not found: ses_1"}}"#;
        assert_eq!(
            refused(404, body, false),
            ServerError::NotFound("Session not found: ses_1".to_owned())
        );
        assert!(matches!(refused(404, b"", false), ServerError::NotFound(_)));
    }

    #[test]
    fn status_401_has_a_hint() {
        assert!(message(401, "").contains("OPENCODE_SERVER_PASSWORD"));
        let ServerError::Refused { message, .. } = refused(401, b"", true) else {
            panic!("a 401 is a refusal")
        };
        assert!(message.contains("opencode.username"));
    }

    #[test]
    fn long_text_is_cut_by_characters() {
        let long = "ä".repeat(5000);
        assert_eq!(message(400, &long).chars().count(), 2000);
        let json = serde_json::json!({"data": {"message": long}}).to_string();
        assert_eq!(message(400, &json).chars().count(), 2000);
    }
}
