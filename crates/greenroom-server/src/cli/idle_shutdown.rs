//! Decides when a service started by a plugin may stop: no bridge and no open task for a given time. Used by `serve`.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::host::Service;

/// Bounds of the interval between two checks.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(5);
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Returns when the service had neither a bridge nor an open task for `limit` without interruption.
pub(super) async fn wait_until_idle(service: &Service, limit: Duration) {
    let mut since = Instant::now();
    loop {
        sleep((limit / 10).clamp(MIN_CHECK_INTERVAL, MAX_CHECK_INTERVAL)).await;
        if service.is_in_use().await {
            since = Instant::now();
        } else if since.elapsed() >= limit {
            return;
        }
    }
}
