//! Sends requests to opencode over a bridge. The plugin makes the call with its own client, so opencode needs no open
//! port.

use std::collections::BTreeMap;

use greenroom::ports::agent_server::ServerError;
use greenroom_bridge::{BridgeChannel, ChannelError, Request, Response};
use greenroom_opencode::{ApiCall, ApiResponse, Transport};
use reqwest::Url;
use serde_json::Value;

/// A [`Carrier`] that sends calls over one bridge connection.
#[derive(Debug, Clone)]
pub struct BridgeCarrier {
    line: BridgeChannel,
}

impl BridgeCarrier {
    /// Creates a carrier for a bridge connection.
    pub fn new(line: BridgeChannel) -> Self {
        Self { line }
    }
}

impl Transport for BridgeCarrier {
    async fn send(&self, call: &ApiCall<'_>) -> Result<ApiResponse, ServerError> {
        let path = encode_path(call.path);
        let query = call.query.iter().copied();
        let directory = call.directory.map(|directory| ("directory", directory));
        let query: BTreeMap<String, String> = query
            .chain(directory)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let request = Request {
            method: call.method.as_str(),
            path: &path,
            query: &query,
            body: call.body.as_ref(),
            limit: call.limit,
        };
        match self.line.request(request).await {
            Ok(response) => to_answer(call.what, response),
            Err(error) => Err(call_error(call.what, error)),
        }
    }
}

/// Returns the path with each segment percent-encoded, for example `/session/ses_1/message`.
fn encode_path(segments: &[&str]) -> String {
    let mut url = Url::parse("http://bridge/").expect("a URL in this file");
    url.path_segments_mut()
        .expect("an http URL has a path")
        .pop_if_empty()
        .extend(segments);
    url.path().to_owned()
}

fn to_answer(what: &str, response: Response) -> Result<ApiResponse, ServerError> {
    // These statuses come from the plugin: opencode runs in the same process and has no gateway.
    match response.status {
        502 | 504 => {
            return Err(ServerError::OutcomeUnknown(format!(
                "{what}: the plugin has no answer from opencode ({})",
                response.status
            )));
        }
        503 => {
            return Err(ServerError::Unreachable(format!(
                "{what}: the plugin is overloaded"
            )));
        }
        _ => {}
    }
    let body = match response.body {
        Value::Null => Vec::new(),
        // The plugin passes a body that is not valid JSON as text.
        Value::String(text) => text.into_bytes(),
        json => serde_json::to_vec(&json).unwrap_or_default(),
    };
    Ok(ApiResponse {
        status: response.status,
        body,
        large_body: None,
    })
}

/// Maps a failed bridge request to a [`ServerError`].
fn call_error(what: &str, error: ChannelError) -> ServerError {
    let text = format!("{what}: {error}");
    match error {
        ChannelError::Disconnected { .. } | ChannelError::Overloaded | ChannelError::NotSent(_) => {
            ServerError::Unreachable(text)
        }
        ChannelError::TooLarge => ServerError::Refused {
            status: Some(413),
            message: text,
        },
        ChannelError::TimedOut(limit) => ServerError::TimedOut(limit),
        ChannelError::ConnectionLost => ServerError::OutcomeUnknown(text),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn path_segments_are_encoded() {
        assert_eq!(
            encode_path(&["session", "ses_1", "message"]),
            "/session/ses_1/message"
        );
        assert_eq!(
            encode_path(&["session", "a/../b?c#ä"]),
            "/session/a%2F..%2Fb%3Fc%23%C3%A4"
        );
    }

    #[test]
    fn body_is_passed_unchanged() {
        let body = |body: Value| to_answer("reading", response(200, body)).unwrap().body;
        assert_eq!(body(Value::Null), b"");
        assert_eq!(body(json!("no JSON")), b"no JSON");
        assert_eq!(body(json!({"a": [true]})), br#"{"a":[true]}"#);
    }

    fn response(status: u16, body: Value) -> Response {
        Response {
            id: "1".into(),
            status,
            body,
        }
    }

    #[test]
    fn plugin_errors_differ_from_opencode_errors() {
        let outcome = |status| to_answer("prompting", response(status, json!({"name": "x"})));
        assert!(outcome(502).unwrap_err().outcome_is_unknown());
        assert!(outcome(504).unwrap_err().outcome_is_unknown());
        assert!(matches!(outcome(503), Err(ServerError::Unreachable(_))));
        assert_eq!(outcome(500).unwrap().status, 500);
    }

    #[test]
    fn line_errors_map_to_server_errors() {
        let gone = ChannelError::Disconnected {
            pid: 1,
            directory: "/p".to_owned(),
        };
        for not_sent in [gone, ChannelError::Overloaded] {
            let error = call_error("creating a session", not_sent);
            assert!(matches!(error, ServerError::Unreachable(_)), "{error:?}");
        }
        assert!(call_error("prompting", ChannelError::ConnectionLost).outcome_is_unknown());
        assert!(
            call_error("prompting", ChannelError::TimedOut(Duration::from_secs(1)))
                .outcome_is_unknown()
        );
        assert!(!call_error("prompting", ChannelError::TooLarge).outcome_is_unknown());
    }
}
