//! When a service that somebody's plugin has started may go: nobody is connected and nothing runs or waits, for long
//! enough. `serve` asks.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::host::Service;

/// How often it is looked at, at most and at least.
const SELDOM: Duration = Duration::from_secs(5);
const OFTEN: Duration = Duration::from_millis(20);

/// Returns when the service has been without bridge and open task for so long, without a break.
pub(super) async fn unused_for(service: &Service, limit: Duration) {
    let mut since = Instant::now();
    loop {
        sleep((limit / 10).clamp(OFTEN, SELDOM)).await;
        if service.is_used().await {
            since = Instant::now();
        } else if since.elapsed() >= limit {
            return;
        }
    }
}
