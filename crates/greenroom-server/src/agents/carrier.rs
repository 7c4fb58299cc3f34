//! A bridge's line as a carrier of opencode's calls: the plugin makes them through its own client, so that they work where
//! opencode listens on no port.

use std::collections::BTreeMap;

use greenroom::ports::agent_server::ServerError;
use greenroom_bridge::{Line, LineError, Request, Response};
use greenroom_opencode::{Answer, Call, Carrier};
use reqwest::Url;
use serde_json::Value;

/// The way to one opencode process, over its bridge.
#[derive(Debug, Clone)]
pub struct BridgeCarrier {
    line: Line,
}

impl BridgeCarrier {
    /// Over that line.
    pub fn new(line: Line) -> Self {
        Self { line }
    }
}

impl Carrier for BridgeCarrier {
    async fn carry(&self, call: &Call<'_>) -> Result<Answer, ServerError> {
        let path = encoded(call.path);
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
            Ok(response) => answer(call.what, response),
            Err(error) => Err(fate(call.what, error)),
        }
    }
}

/// `/session/ses_1/message`, each segment percent-encoded.
fn encoded(segments: &[&str]) -> String {
    let mut url = Url::parse("http://bridge/").expect("a URL in this file");
    url.path_segments_mut()
        .expect("an http URL has a path")
        .pop_if_empty()
        .extend(segments);
    url.path().to_owned()
}

fn answer(what: &str, response: Response) -> Result<Answer, ServerError> {
    // These are the plugin's own words: opencode itself, which is asked in its own process, has no gateway.
    match response.status {
        502 | 504 => {
            return Err(ServerError::FateUnknown(format!(
                "{what}: the plugin has no answer of opencode ({})",
                response.status
            )));
        }
        503 => {
            return Err(ServerError::Unreachable(format!(
                "{what}: the plugin has too much to do"
            )));
        }
        _ => {}
    }
    let body = match response.body {
        Value::Null => Vec::new(),
        // What was no JSON comes as its text.
        Value::String(text) => text.into_bytes(),
        json => serde_json::to_vec(&json).unwrap_or_default(),
    };
    Ok(Answer {
        status: response.status,
        body,
    })
}

/// What is known of a call that has no answer.
fn fate(what: &str, error: LineError) -> ServerError {
    let text = format!("{what}: {error}");
    match error {
        LineError::Gone { .. } | LineError::Overloaded | LineError::NotTaken(_) => {
            ServerError::Unreachable(text)
        }
        LineError::TooLarge => ServerError::Refused {
            status: Some(413),
            message: text,
        },
        LineError::TimedOut(limit) => ServerError::TimedOut(limit),
        LineError::Cut => ServerError::FateUnknown(text),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn ids_from_outside_stay_in_their_place() {
        assert_eq!(
            encoded(&["session", "ses_1", "message"]),
            "/session/ses_1/message"
        );
        assert_eq!(
            encoded(&["session", "a/../b?c#ä"]),
            "/session/a%2F..%2Fb%3Fc%23%C3%A4"
        );
    }

    #[test]
    fn a_body_is_read_as_it_came() {
        let body = |body: Value| answer("reading", response(200, body)).unwrap().body;
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
    fn what_the_plugin_says_for_itself_is_told_from_what_opencode_says() {
        let fate = |status| answer("prompting", response(status, json!({"name": "x"})));
        assert!(fate(502).unwrap_err().fate_is_unknown());
        assert!(fate(504).unwrap_err().fate_is_unknown());
        assert!(matches!(fate(503), Err(ServerError::Unreachable(_))));
        assert_eq!(fate(500).unwrap().status, 500);
    }

    #[test]
    fn what_is_known_of_a_call_is_said_truly() {
        let gone = LineError::Gone {
            pid: 1,
            directory: "/p".to_owned(),
        };
        for without_effect in [gone, LineError::Overloaded] {
            let fate = fate("creating a session", without_effect);
            assert!(matches!(fate, ServerError::Unreachable(_)), "{fate:?}");
        }
        assert!(fate("prompting", LineError::Cut).fate_is_unknown());
        assert!(fate("prompting", LineError::TimedOut(Duration::from_secs(1))).fate_is_unknown());
        assert!(!fate("prompting", LineError::TooLarge).fate_is_unknown());
    }
}
