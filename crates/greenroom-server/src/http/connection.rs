//! Limits how long a peer may be gone, or not read, before its connection is closed. Requests have their own limits;
//! this one is for responses, which may be endless streams.

use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use nix::sys::resource::{Resource, getrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum time for unacknowledged data, or for data that the peer does not read.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle time before the first keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Maximum number of open sockets, if the limit of open files allows it. Each blocking read holds one.
const MAX_CONNECTIONS: usize = 10_000;
/// Open files that are not connections of clients: listeners, the journal, connections to agent servers.
const OTHER_FILES: usize = 32;

/// Returns the number of connections that fits the limit of open files.
pub fn max_connections() -> usize {
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    connections_within(usize::try_from(open_files).unwrap_or(usize::MAX))
}

fn connections_within(open_files: usize) -> usize {
    let connections = open_files.saturating_sub(OTHER_FILES) / 4 * 3;
    connections.clamp(8, MAX_CONNECTIONS)
}

/// The permits of endless responses: half of all connections, so that other requests are always answered.
#[derive(Debug, Clone)]
pub struct StreamPermits {
    free: Arc<Semaphore>,
    limit: usize,
}

impl StreamPermits {
    /// Returns the permits for a number of connections.
    pub fn new(connections: usize) -> Self {
        let limit = connections / 2;
        Self {
            free: Arc::new(Semaphore::new(limit)),
            limit,
        }
    }

    /// Returns a permit, which is given back on drop.
    ///
    /// # Errors
    /// The maximum number of streams if all permits are taken.
    pub fn acquire(&self) -> Result<OwnedSemaphorePermit, usize> {
        let permit = Arc::clone(&self.free).try_acquire_owned();
        permit.map_err(|_| self.limit)
    }
}

/// Sets the limits of a new connection.
pub fn limit_connection(socket: &TcpStream) {
    if let Err(error) = set_timeouts(&SockRef::from(socket), UNACKNOWLEDGED_TIMEOUT) {
        tracing::debug!(%error, "cannot set connection timeouts");
    }
}

fn set_timeouts(socket: &SockRef<'_>, timeout: Duration) -> std::io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(Duration::from_secs(10));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(timeout))?;
    #[cfg(not(target_os = "linux"))]
    let _ = timeout;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn streams_are_bounded_below_the_open_files() {
        assert_eq!(connections_within(1_000_000), MAX_CONNECTIONS);
        assert_eq!(connections_within(64), 24);
        let permits = StreamPermits::new(connections_within(64));
        let held: Vec<_> = (0..12).map(|_| permits.acquire().unwrap()).collect();
        assert_eq!(permits.acquire().unwrap_err(), 12);
        drop(held);
        assert!(permits.acquire().is_ok());
    }

    /// A client that does not read keeps its socket open; without the limit this write would block forever.
    #[test]
    fn client_that_does_not_read_is_disconnected() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        set_timeouts(&SockRef::from(&server), Duration::from_secs(1)).unwrap();
        let chunk = vec![b'x'; 1024 * 1024];
        let error = loop {
            if let Err(error) = server.write_all(&chunk) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(client);
    }
}
