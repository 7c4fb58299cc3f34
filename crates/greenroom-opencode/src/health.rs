//! Waiting for a server to become usable. opencode accepts the first request of its boot and may never answer it, so
//! each try is short and a new connection. The supervised child, `up` and the tests wait here.

use std::time::Duration;

use greenroom::ports::agent_server::ServerError;
use tokio::time::{Instant, sleep};

use crate::address::{AddressError, ServerAddress};
use crate::client::OpencodeServer;

/// The first try that hangs costs this much of every boot; a healthy server answers in milliseconds.
const FIRST_TRY: Duration = Duration::from_millis(200);
/// On a machine that is so busy that tries time out, they grow up to this.
const LONGEST_TRY: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// Why a server was not found healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The address is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// It answers, and wants other credentials: waiting would not help.
    #[error("{0}")]
    Unauthorized(String),
    /// It did not become healthy in time.
    #[error("opencode at {url} is not healthy after {limit:?}: {last}")]
    NotInTime {
        /// Where it should be.
        url: String,
        /// How long was waited.
        limit: Duration,
        /// What the last try said.
        last: ServerError,
    },
}

/// Waits up to `limit` until the server at `address` answers its health call, and returns the version it says it is.
///
/// # Errors
/// It is not healthy in time, or refuses the credentials.
pub async fn wait_until_healthy(
    address: &ServerAddress,
    limit: Duration,
) -> Result<String, HealthError> {
    let deadline = Instant::now() + limit;
    let server = OpencodeServer::new(address.clone())?;
    let mut longest = FIRST_TRY;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let last = match server
            .version(longest.min(left.max(Duration::from_millis(1))))
            .await
        {
            Ok(version) => return Ok(version),
            Err(ServerError::Refused {
                status: Some(401),
                message,
            }) => return Err(HealthError::Unauthorized(message)),
            Err(error) => error,
        };
        if matches!(last, ServerError::TimedOut(_)) {
            longest = (longest * 2).min(LONGEST_TRY);
        }
        if Instant::now() + PAUSE >= deadline {
            return Err(HealthError::NotInTime {
                url: address.url.clone(),
                limit,
                last,
            });
        }
        sleep(PAUSE).await;
    }
}
