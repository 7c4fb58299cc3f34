//! Waits for a server to become usable. opencode may never answer the first request after its start, so each attempt is
//! short and uses a new connection.

use std::time::Duration;

use greenroom::ports::agent_server::ServerError;
use tokio::time::{Instant, sleep};

use crate::address::{AddressError, ServerAddress};
use crate::client::OpencodeServer;

/// The time limit of the first attempt, which may hang at every start; a healthy server answers in milliseconds.
const FIRST_TRY: Duration = Duration::from_millis(200);
/// The longest time limit; it grows while attempts time out, for instance on a busy machine.
const LONGEST_TRY: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// Why a server is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The address is not valid.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The server refuses the credentials; waiting would not help.
    #[error("{0}")]
    Unauthorized(String),
    /// The server did not become healthy in time.
    #[error("opencode at {url} is not healthy after {limit:?}: {last}")]
    NotInTime {
        /// The URL of the server.
        url: String,
        /// The time limit.
        limit: Duration,
        /// The error of the last attempt.
        last: ServerError,
    },
}

/// Waits up to `limit` until the server at `address` is healthy, and returns its version.
///
/// # Errors
/// Fails if the server is not healthy in time, or refuses the credentials.
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
