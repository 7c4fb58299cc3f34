//! The frames of the bridge: JSON texts with a `type`. Reading is tolerant: types we do not know are ignored, fields we
//! do not know too; a frame of a known type that cannot be read is [`FromBridge::Malformed`], never an error that ends
//! the socket.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the protocol spoken here.
pub const PROTOCOL: u32 = 1;

/// The first frame of a bridge: who it is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The version it speaks.
    pub protocol: u32,
    /// The directory of the agent server's instance.
    pub directory: String,
    /// The process it lives in; with the directory it is the identity of a bridge.
    pub pid: u32,
    /// Where its server listens, if it does.
    #[serde(rename = "serverURL", default)]
    pub server_url: Option<String>,
    /// The version of the agent server.
    #[serde(default)]
    pub opencode_version: Option<String>,
    /// The secret, if the service has one and no bearer header brought it.
    #[serde(default)]
    pub token: Option<String>,
}

/// What a bridge says.
#[derive(Debug, Clone, PartialEq)]
pub enum FromBridge {
    /// Who it is.
    Hello(Hello),
    /// An event of the agent server, as it is.
    Event(Value),
    /// A type of a later version: ignored.
    Unknown(String),
    /// No frame of ours; why.
    Malformed(String),
}

impl FromBridge {
    /// Reads one text frame.
    pub fn read(text: &str) -> Self {
        let mut frame = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(frame)) => frame,
            Ok(_) => return Self::Malformed("a frame is a JSON object with a `type`".to_owned()),
            Err(error) => {
                return Self::Malformed(format!("a frame is a JSON object with a `type`; {error}"));
            }
        };
        let Some(kind) = frame.get("type").and_then(Value::as_str).map(str::to_owned) else {
            return Self::Malformed("the frame has no `type`".to_owned());
        };
        match kind.as_str() {
            "hello" => match serde_json::from_value(Value::Object(frame)) {
                Ok(hello) => Self::Hello(hello),
                Err(error) => Self::Malformed(format!("hello: {error}")),
            },
            "event" => match frame.remove("event") {
                Some(event @ Value::Object(_)) => Self::Event(event),
                _ => Self::Malformed(
                    "event: `event` is the agent server's event, an object".to_owned(),
                ),
            },
            _ => Self::Unknown(kind),
        }
    }
}

/// What is said to a bridge.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ToBridge<'a> {
    /// The hello is accepted.
    Welcome {
        /// The version spoken.
        protocol: u32,
        /// Which service this is; another one after a restart.
        instance: &'a str,
    },
    /// The frame before was not understood and has had no effect.
    Error {
        /// What is wrong and what to do.
        message: &'a str,
    },
}

impl ToBridge<'_> {
    /// The frame's text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always have a JSON form")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_of_a_later_plugin_is_read() {
        let frame = r#"{"type":"hello","protocol":1,"directory":"/p","pid":7,"color":"red"}"#;
        let FromBridge::Hello(hello) = FromBridge::read(frame) else {
            panic!("no hello")
        };
        assert_eq!(
            (hello.protocol, hello.directory.as_str(), hello.pid),
            (1, "/p", 7)
        );
    }

    #[test]
    fn an_event_is_handed_on_as_it_is() {
        let frame = r#"{"type":"event","event":{"type":"session.idle","properties":{"sessionID":"ses_1"}}}"#;
        let FromBridge::Event(event) = FromBridge::read(frame) else {
            panic!("no event")
        };
        assert_eq!(event["properties"]["sessionID"], "ses_1");
    }

    #[test]
    fn unknown_types_are_told_from_broken_frames() {
        assert_eq!(
            FromBridge::read(r#"{"type":"later"}"#),
            FromBridge::Unknown("later".to_owned())
        );
        for broken in [
            "",
            "no json",
            "[]",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"event"}"#,
            r#"{"type":"hello"}"#,
        ] {
            assert!(
                matches!(FromBridge::read(broken), FromBridge::Malformed(_)),
                "{broken}"
            );
        }
    }

    #[test]
    fn answers_read_as_the_protocol_says() {
        let welcome = ToBridge::Welcome {
            protocol: 1,
            instance: "gr_1",
        };
        assert_eq!(
            welcome.text(),
            r#"{"type":"welcome","protocol":1,"instance":"gr_1"}"#
        );
        assert_eq!(
            ToBridge::Error { message: "no" }.text(),
            r#"{"type":"error","message":"no"}"#
        );
    }
}
