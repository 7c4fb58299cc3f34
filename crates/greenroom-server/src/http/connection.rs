//! Limits how long a peer may be gone, or not read, before its connection is closed. Requests have their own limits;
//! this one is for responses, which may be endless streams.

use std::any::Any;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};

/// Maximum time for unacknowledged data, or for data that the peer does not read.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle time before the first keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Sets the limits of a new connection.
pub fn limit_connection(socket: &dyn Any) {
    if let Some(stream) = socket.downcast_ref::<TcpStream>()
        && let Err(error) = set_timeouts(&SockRef::from(stream), UNACKNOWLEDGED_TIMEOUT)
    {
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
