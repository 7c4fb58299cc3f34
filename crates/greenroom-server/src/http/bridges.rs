//! Lists the connected bridges.

use actix_web::web::Data;
use greenroom_bridge::BridgeInfo;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::Api;
use super::operation::Json;

/// The connected bridges.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Bridges {
    /// One entry per opencode process and directory, oldest connection first.
    bridges: Vec<Bridge>,
}

/// A connected bridge.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bridge {
    /// The directory of its opencode instance.
    directory: String,
    /// The id of its process.
    pid: u32,
    /// The URL of its agent server, if that server listens on a port.
    #[serde(rename = "serverURL", skip_serializing_if = "Option::is_none")]
    server_url: Option<String>,
    /// The version of its agent server.
    #[serde(skip_serializing_if = "Option::is_none")]
    opencode_version: Option<String>,
}

impl From<BridgeInfo> for Bridge {
    fn from(info: BridgeInfo) -> Self {
        Self {
            directory: info.directory,
            pid: info.pid,
            server_url: info.server_url,
            opencode_version: info.opencode_version,
        }
    }
}

/// `GET /v1/bridges`
pub async fn list(api: Data<Api>) -> Json<Bridges> {
    let bridges = api.bridge.bridges.list();
    Json(Bridges {
        bridges: bridges.into_iter().map(Bridge::from).collect(),
    })
}
