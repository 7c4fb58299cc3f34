//! The sockets that have not sent their hello. Their number is bounded, and a further one closes the oldest, so that a client
//! that opens sockets and sends nothing keeps no bridge out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The open handshakes, oldest first. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handshakes(Arc<Mutex<VecDeque<Arc<Notify>>>>);

/// One open handshake; it ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Handshake {
    all: Handshakes,
    displaced: Arc<Notify>,
}

impl Handshakes {
    /// Adds a handshake. If `limit` are open, the oldest one is displaced.
    pub(crate) fn begin(&self, limit: usize) -> Handshake {
        let displaced = Arc::new(Notify::new());
        let mut open = self.lock();
        while open.len() >= limit.max(1) {
            if let Some(oldest) = open.pop_front() {
                oldest.notify_one();
            }
        }
        open.push_back(displaced.clone());
        drop(open);
        Handshake {
            all: self.clone(),
            displaced,
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handshake {
    /// Completes when a newer handshake has taken the place of this one.
    pub(crate) async fn displaced(&self) {
        self.displaced.notified().await;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut open = self.all.lock();
        open.retain(|it| !Arc::ptr_eq(it, &self.displaced));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn oldest_handshake_is_displaced() {
        let all = Handshakes::default();
        let first = all.begin(2);
        let second = all.begin(2);
        assert_eq!(first.displaced().now_or_never(), None);
        drop(all.begin(2));
        assert_eq!(first.displaced().now_or_never(), Some(()));
        // An ended handshake leaves room.
        let fourth = all.begin(2);
        assert_eq!(second.displaced().now_or_never(), None);
        drop((first, second, fourth));
        assert!(all.lock().is_empty());
    }
}
