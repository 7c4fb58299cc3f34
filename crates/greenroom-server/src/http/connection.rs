//! Bounds how long the other end of a connection may be gone, or not read, before the connection ends. Heads and bodies
//! of requests have limits of their own; this is about answers, which may be streams that never end.

use std::any::Any;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};

/// How long what was sent may stay unacknowledged, or unread with all buffers full.
const UNREAD_FOR: Duration = Duration::from_secs(60);
/// After how much silence the other end is asked whether it is there.
const SILENT_FOR: Duration = Duration::from_secs(30);

/// Bounds a new connection of the HTTP server.
pub fn bound(socket: &dyn Any) {
    if let Some(stream) = socket.downcast_ref::<TcpStream>()
        && let Err(error) = limit(&SockRef::from(stream), UNREAD_FOR)
    {
        tracing::debug!(%error, "a connection has no limits of its own");
    }
}

fn limit(socket: &SockRef<'_>, unread_for: Duration) -> std::io::Result<()> {
    let asking = TcpKeepalive::new()
        .with_time(SILENT_FOR)
        .with_interval(Duration::from_secs(10));
    socket.set_tcp_keepalive(&asking)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unread_for))?;
    #[cfg(not(target_os = "linux"))]
    let _ = unread_for;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};

    /// A client that stops reading keeps its socket open; without the limit this write would block for ever.
    #[test]
    fn a_client_that_does_not_read_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        limit(&SockRef::from(&server), Duration::from_secs(1)).unwrap();
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
