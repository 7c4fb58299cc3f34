//! What waits to be written to one socket. Everybody who has something to say to a bridge puts it here and goes on; the
//! socket's writer takes it out. Bounded in frames and bytes: a bridge that does not read is cut off, not waited for.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use actix_web::web::Bytes;
use tokio::sync::Notify;

/// Frames that may wait, beyond what requests in flight may.
const FRAMES: usize = 4096;
/// Bytes that may wait; a single frame may be as large as frames are.
pub(crate) const BYTES: usize = 16 << 20;

/// One thing to be written.
#[derive(Debug)]
pub(crate) enum Out {
    /// A frame.
    Text(String),
    /// A request of that number, if it is still wanted when its turn comes; its size in bytes.
    Request(u64, usize),
    /// Is it there?
    Ping,
    /// We are.
    Pong(Bytes),
}

impl Out {
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Request(_, size) => *size,
            Self::Ping => 0,
            Self::Pong(payload) => payload.len(),
        }
    }
}

/// There is no room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Out>,
    bytes: usize,
    /// Nothing comes any more; what is there is still written.
    finished: bool,
    /// Nothing is written any more; for instance, something that may not be left out had no room.
    overflowed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    wake: Notify,
}

impl Outbox {
    /// Puts in what its sender can take back.
    pub(crate) fn try_push(&self, out: Out) -> Result<(), NoRoom> {
        let mut queue = self.lock();
        let size = out.size();
        let full = queue.frames.len() >= FRAMES
            || (!queue.frames.is_empty() && queue.bytes + size > BYTES);
        if full || queue.finished {
            return Err(NoRoom);
        }
        queue.bytes += size;
        queue.frames.push_back(out);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    /// Puts in what may not be left out: without room for it the socket ends, and the bridge asks again.
    pub(crate) fn push(&self, out: Out) {
        if self.try_push(out).is_err() {
            self.lock().overflowed = true;
            self.wake.notify_one();
        }
    }

    /// The next thing to write; none once it is finished and empty, or has overflowed. One reader.
    pub(crate) async fn pop(&self) -> Option<Out> {
        loop {
            {
                let mut queue = self.lock();
                if queue.overflowed {
                    return None;
                }
                if let Some(out) = queue.frames.pop_front() {
                    queue.bytes -= out.size();
                    return Some(out);
                }
                if queue.finished {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }

    /// Nothing comes any more.
    pub(crate) fn finish(&self) {
        self.lock().finished = true;
        self.wake.notify_one();
    }

    /// Nothing is written any more: another socket has taken its place.
    pub(crate) fn abandon(&self) {
        self.lock().overflowed = true;
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(size: usize) -> Out {
        Out::Text("x".repeat(size))
    }

    #[actix_rt::test]
    async fn what_was_put_in_is_still_written_after_the_end() {
        let outbox = Outbox::default();
        outbox.push(text(3));
        outbox.finish();
        assert_eq!(outbox.try_push(text(1)), Err(NoRoom));
        assert!(matches!(outbox.pop().await, Some(Out::Text(text)) if text == "xxx"));
        assert!(outbox.pop().await.is_none());
    }

    #[actix_rt::test]
    async fn bytes_and_frames_are_bounded() {
        let outbox = Outbox::default();
        assert_eq!(outbox.try_push(text(BYTES + 1)), Ok(()), "one always fits");
        assert_eq!(outbox.try_push(text(1)), Err(NoRoom));
        assert!(outbox.pop().await.is_some());
        for _ in 0..FRAMES {
            outbox.try_push(Out::Ping).unwrap();
        }
        assert_eq!(outbox.try_push(Out::Ping), Err(NoRoom));
        outbox.push(Out::Ping);
        assert!(outbox.pop().await.is_none(), "what may not be lost ends it");
    }
}
