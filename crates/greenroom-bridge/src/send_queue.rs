//! The queue of frames to be written to one socket. Senders push without waiting; the socket's writer pops. The queue is
//! bounded in frames and bytes: a bridge that does not read is disconnected.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use actix_web::web::Bytes;
use tokio::sync::Notify;

use crate::lock;

/// The most frames in the queue; larger than the limit of requests in flight.
const MAX_FRAMES: usize = 4096;
/// The most bytes in the queue. A single frame always fits.
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// An item of the queue.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A text frame.
    Text(String),
    /// A request, by its number, and its size in bytes. It is skipped if it was cancelled.
    Request(u64, usize),
    /// A websocket ping.
    Ping,
    /// The pong to a ping of the bridge.
    Pong(Bytes),
}

impl Outgoing {
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Request(_, size) => *size,
            Self::Ping => 0,
            Self::Pong(payload) => payload.len(),
        }
    }
}

/// The queue is full or finished.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Outgoing>,
    bytes: usize,
    /// True if nothing more is accepted; queued frames are still written.
    finished: bool,
    /// True if nothing more is written, for instance after an overflow.
    closed: bool,
}

/// The queue of one socket.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    queue: Mutex<Queue>,
    wake: Notify,
}

impl SendQueue {
    /// Adds a frame.
    ///
    /// # Errors
    /// Fails if the queue is full or finished; the frame is then dropped.
    pub(crate) fn try_push(&self, frame: Outgoing) -> Result<(), QueueFull> {
        let mut queue = self.lock();
        let size = frame.size();
        let full = queue.frames.len() >= MAX_FRAMES
            || (!queue.frames.is_empty() && queue.bytes + size > MAX_BYTES);
        if full || queue.finished {
            return Err(QueueFull);
        }
        queue.bytes += size;
        queue.frames.push_back(frame);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    /// Adds a frame that may not be dropped: if the queue is full, the socket closes and the bridge reconnects.
    pub(crate) fn push(&self, frame: Outgoing) {
        if self.try_push(frame).is_err() {
            self.lock().closed = true;
            self.wake.notify_one();
        }
    }

    /// Returns the next frame; none once the queue is closed, or finished and empty. There is a single reader.
    pub(crate) async fn pop(&self) -> Option<Outgoing> {
        loop {
            {
                let mut queue = self.lock();
                if queue.closed {
                    return None;
                }
                if let Some(frame) = queue.frames.pop_front() {
                    queue.bytes -= frame.size();
                    return Some(frame);
                }
                if queue.finished {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }

    /// Accepts no more frames; the queued ones are still written.
    pub(crate) fn finish(&self) {
        self.lock().finished = true;
        self.wake.notify_one();
    }

    /// Closes the queue; nothing more is written. Another socket has replaced this one.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(size: usize) -> Outgoing {
        Outgoing::Text("x".repeat(size))
    }

    #[actix_rt::test]
    async fn queued_frames_are_written_after_finish() {
        let send_queue = SendQueue::default();
        send_queue.push(text(3));
        send_queue.finish();
        assert_eq!(send_queue.try_push(text(1)), Err(QueueFull));
        assert!(matches!(send_queue.pop().await, Some(Outgoing::Text(text)) if text == "xxx"));
        assert!(send_queue.pop().await.is_none());
    }

    #[actix_rt::test]
    async fn frames_and_bytes_are_bounded() {
        let send_queue = SendQueue::default();
        assert_eq!(
            send_queue.try_push(text(MAX_BYTES + 1)),
            Ok(()),
            "one always fits"
        );
        assert_eq!(send_queue.try_push(text(1)), Err(QueueFull));
        assert!(send_queue.pop().await.is_some());
        for _ in 0..MAX_FRAMES {
            send_queue.try_push(Outgoing::Ping).unwrap();
        }
        assert_eq!(send_queue.try_push(Outgoing::Ping), Err(QueueFull));
        send_queue.push(Outgoing::Ping);
        assert!(
            send_queue.pop().await.is_none(),
            "an overflow closes the queue"
        );
    }
}
