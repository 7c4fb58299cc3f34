//! How a socket ends, what is said to it then, and writing to it: each write has a time limit, or a bridge that reads nothing
//! would hold its writer for ever.

use std::sync::Arc;
use std::time::Duration;

use actix_web::error::PayloadError;
use actix_ws::{CloseCode, CloseReason, ProtocolError, Session};
use tokio::time::timeout;

use crate::line::Line;
use crate::outbox::{Out, Outbox};
use crate::protocol::ToBridge;

/// The close code for a bridge whose process has said hello again; it must not reconnect, or the two would evict each
/// other for ever.
pub const REPLACED: u16 = 4001;

/// Why a socket ends.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// The other side closed it, or it broke.
    Gone,
    /// A frame was too large.
    TooLarge,
    /// A frame broke the rules of websockets.
    Broken,
    /// Nothing was heard for too long.
    Silent,
    /// It does not read what it is told.
    Slow,
    /// The same process has said hello again.
    Evicted,
    /// Its hello was not accepted.
    Refused(String),
    /// There are too many bridges.
    Full,
    /// The service goes away.
    Leaving,
}

impl End {
    /// What an error while reading says of the other side.
    pub(crate) fn of(error: &ProtocolError) -> Self {
        let io = match error {
            ProtocolError::Overflow => return Self::TooLarge,
            ProtocolError::Io(io) if io.kind() == std::io::ErrorKind::Other => io,
            _ => return Self::Broken,
        };
        // The library wraps whatever it has from the connection; a message of many frames that is too large comes as a text.
        let connection = io.get_ref().and_then(|inner| inner.downcast_ref());
        match connection {
            // The head of a frame has announced too much.
            Some(PayloadError::Overflow) | None => Self::TooLarge,
            Some(_) => Self::Gone,
        }
    }
}

/// Says why, as far as it can be said, and closes.
pub(crate) async fn close(mut session: Session, end: End, limit: Duration) {
    let full = "too many bridges are connected; close some, or try again later";
    let (code, reason) = match &end {
        End::Gone => (CloseCode::Normal, "closed"),
        End::TooLarge => (CloseCode::Size, "frames are at most 4 MiB"),
        End::Broken => (CloseCode::Protocol, "a frame broke the rules of websockets"),
        End::Silent => (CloseCode::Away, "nothing heard for too long"),
        End::Slow => (CloseCode::Again, "what was said was not read in time"),
        End::Evicted => (
            CloseCode::Other(REPLACED),
            "replaced by a newer bridge of this process and directory",
        ),
        End::Leaving => (CloseCode::Away, "the service goes away"),
        End::Full => (CloseCode::Again, "too many bridges"),
        End::Refused(_) => (CloseCode::Policy, "hello not accepted"),
    };
    let more = match &end {
        End::Full => Some(full),
        End::Refused(problem) => Some(problem.as_str()),
        _ => None,
    };
    if let Some(message) = more {
        // A bridge that is gone cannot be told so.
        let text = ToBridge::Error { message }.text();
        let _ = within(limit, session.text(text)).await;
    }
    let reason = CloseReason {
        code,
        description: Some(reason.to_owned()),
    };
    let _ = within(limit, session.close(Some(reason))).await;
}

/// Writes what is in the outbox until there will be nothing more, or the bridge does not take it.
pub(crate) async fn write(mut session: Session, outbox: Arc<Outbox>, line: Line, limit: Duration) {
    while let Some(out) = outbox.pop().await {
        let written = match out {
            Out::Text(text) => within(limit, session.text(text)).await,
            Out::Request(number, _) => match line.hand(number) {
                Some(frame) => within(limit, session.text(frame.as_ref())).await,
                None => Ok(()),
            },
            Out::Ping => within(limit, session.ping(b"")).await,
            Out::Pong(payload) => within(limit, session.pong(&payload)).await,
        };
        if written.is_err() {
            return;
        }
    }
}

/// One write, for which there is a time limit.
pub(crate) async fn within(
    limit: Duration,
    write: impl Future<Output = Result<(), actix_ws::Closed>>,
) -> Result<(), End> {
    match timeout(limit, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Gone),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_connection_that_was_cut_is_told_from_what_was_too_large() {
        let of = |error: io::Error| End::of(&ProtocolError::Io(error));
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        for cut in [PayloadError::Incomplete(None), PayloadError::Io(reset)] {
            assert_eq!(of(io::Error::other(cut)), End::Gone);
        }
        assert_eq!(of(io::Error::other(PayloadError::Overflow)), End::TooLarge);
        assert_eq!(of(io::Error::other("too long in all")), End::TooLarge);
        assert_eq!(End::of(&ProtocolError::Overflow), End::TooLarge);
        assert_eq!(of(io::ErrorKind::InvalidData.into()), End::Broken);
        assert_eq!(End::of(&ProtocolError::BadOpCode), End::Broken);
    }
}
