//! Closes a socket with a code and a reason, and writes its send queue. Each write has a time limit, so that a bridge that
//! does not read cannot block the writer forever.

use std::sync::Arc;
use std::time::Duration;

use actix_web::error::PayloadError;
use actix_ws::{CloseCode, CloseReason, ProtocolError, Session};
use tokio::time::timeout;

use crate::channel::BridgeChannel;
use crate::protocol::ToBridge;
use crate::send_queue::{Outgoing, SendQueue};

/// The close code of a bridge that was replaced by a newer hello of its process. It must not reconnect, or the two would
/// replace each other forever.
pub const REPLACED: u16 = 4001;

/// Why a socket is closed.
#[derive(Debug, PartialEq)]
pub(crate) enum DisconnectReason {
    /// The bridge closed it, or the connection broke.
    PeerClosed,
    /// A frame was too large.
    FrameTooLarge,
    /// A frame broke the rules of websockets.
    ProtocolViolation,
    /// No frame arrived within the idle time-out.
    IdleTimeout,
    /// The bridge does not read.
    SlowReader,
    /// The same process has sent another hello.
    Replaced,
    /// The hello was not accepted, with the problem.
    HelloRejected(String),
    /// The limit of bridges is reached.
    TooManyBridges,
    /// No hello has arrived, and a newer socket has taken its place.
    Displaced,
    /// The service shuts down.
    ShuttingDown,
}

impl DisconnectReason {
    /// Returns the reason for an error while reading.
    pub(crate) fn of(error: &ProtocolError) -> Self {
        let io = match error {
            ProtocolError::Overflow => return Self::FrameTooLarge,
            ProtocolError::Io(io) if io.kind() == std::io::ErrorKind::Other => io,
            _ => return Self::ProtocolViolation,
        };
        // The library wraps errors of the connection; a message of many frames that is too large is a text error.
        let connection = io.get_ref().and_then(|inner| inner.downcast_ref());
        match connection {
            // A frame header announced too many bytes.
            Some(PayloadError::Overflow) | None => Self::FrameTooLarge,
            Some(_) => Self::PeerClosed,
        }
    }
}

/// Sends the reason, if the bridge can still receive it, and closes the socket.
pub(crate) async fn close(mut session: Session, reason: DisconnectReason, limit: Duration) {
    let full = "too many bridges are connected; close some, or try again later";
    let (code, description) = match &reason {
        DisconnectReason::PeerClosed => (CloseCode::Normal, "closed"),
        DisconnectReason::FrameTooLarge => {
            (CloseCode::Size, "frames are at most 4 MiB, a hello 64 KiB")
        }
        DisconnectReason::ProtocolViolation => {
            (CloseCode::Protocol, "a frame broke the rules of websockets")
        }
        DisconnectReason::IdleTimeout => (CloseCode::Away, "nothing received for too long"),
        DisconnectReason::SlowReader => (CloseCode::Again, "frames were not read in time"),
        DisconnectReason::Replaced => (
            CloseCode::Other(REPLACED),
            "replaced by a newer bridge of this process and directory",
        ),
        DisconnectReason::ShuttingDown => (CloseCode::Away, "the service goes away"),
        DisconnectReason::TooManyBridges => (CloseCode::Again, "too many bridges"),
        DisconnectReason::Displaced => (CloseCode::Again, "too many sockets without a hello"),
        DisconnectReason::HelloRejected(_) => (CloseCode::Policy, "hello not accepted"),
    };
    let error = match &reason {
        DisconnectReason::TooManyBridges => Some(full),
        DisconnectReason::HelloRejected(problem) => Some(problem.as_str()),
        _ => None,
    };
    if let Some(message) = error {
        // Failures are ignored: the bridge may be gone.
        let text = ToBridge::Error { message }.text();
        let _ = with_timeout(limit, session.text(text)).await;
    }
    let close = CloseReason {
        code,
        description: Some(description.to_owned()),
    };
    let _ = with_timeout(limit, session.close(Some(close))).await;
}

/// Writes frames from the queue until it is closed or a write fails.
pub(crate) async fn write(
    mut session: Session,
    send_queue: Arc<SendQueue>,
    channel: BridgeChannel,
    limit: Duration,
) {
    while let Some(outgoing) = send_queue.pop().await {
        let written = match outgoing {
            Outgoing::Text(text) => with_timeout(limit, session.text(text)).await,
            Outgoing::Request(number, _) => match channel.start_sending(number) {
                Some(frame) => with_timeout(limit, session.text(frame.as_ref())).await,
                None => Ok(()),
            },
            Outgoing::Ping => with_timeout(limit, session.ping(b"")).await,
            Outgoing::Pong(payload) => with_timeout(limit, session.pong(&payload)).await,
        };
        if written.is_err() {
            return;
        }
    }
}

/// Performs one write with a time limit.
pub(crate) async fn with_timeout(
    limit: Duration,
    write: impl Future<Output = Result<(), actix_ws::Closed>>,
) -> Result<(), DisconnectReason> {
    match timeout(limit, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(DisconnectReason::PeerClosed),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn lost_connection_differs_from_an_oversized_frame() {
        let of = |error: io::Error| DisconnectReason::of(&ProtocolError::Io(error));
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        for cut in [PayloadError::Incomplete(None), PayloadError::Io(reset)] {
            assert_eq!(of(io::Error::other(cut)), DisconnectReason::PeerClosed);
        }
        assert_eq!(
            of(io::Error::other(PayloadError::Overflow)),
            DisconnectReason::FrameTooLarge
        );
        assert_eq!(
            of(io::Error::other("too long in all")),
            DisconnectReason::FrameTooLarge
        );
        assert_eq!(
            DisconnectReason::of(&ProtocolError::Overflow),
            DisconnectReason::FrameTooLarge
        );
        assert_eq!(
            of(io::ErrorKind::InvalidData.into()),
            DisconnectReason::ProtocolViolation
        );
        assert_eq!(
            DisconnectReason::of(&ProtocolError::BadOpCode),
            DisconnectReason::ProtocolViolation
        );
    }
}
