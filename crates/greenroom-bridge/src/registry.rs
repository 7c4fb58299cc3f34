//! Which bridges are connected. Sockets take a [`Seat`] when their hello is accepted and lose it when they end;
//! readiness and, later, requests over a bridge read the list.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::{oneshot, watch};

use crate::protocol::Hello;

/// A connected bridge, for readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgeInfo {
    /// Counts the hellos of this service.
    pub id: u64,
    /// The directory of its instance.
    pub directory: String,
    /// Its process.
    pub pid: u32,
    /// Where its server listens, if it does.
    #[serde(rename = "serverURL", skip_serializing_if = "Option::is_none")]
    pub server_url: Option<String>,
    /// The version of its agent server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opencode_version: Option<String>,
}

/// The connected bridges of one service; clones share them.
#[derive(Debug, Clone)]
pub struct Bridges {
    seats: Arc<Mutex<Seats>>,
    open: watch::Sender<bool>,
}

impl Default for Bridges {
    fn default() -> Self {
        Self {
            seats: Arc::default(),
            open: watch::Sender::new(true),
        }
    }
}

#[derive(Debug, Default)]
struct Seats {
    next_id: u64,
    // Bounded by the limit that `take` is given.
    taken: BTreeMap<(u32, String), Taken>,
}

#[derive(Debug)]
struct Taken {
    info: BridgeInfo,
    // Dropped when a newer bridge of the same process takes the seat: the older one sees it and leaves.
    _evict: oneshot::Sender<()>,
}

/// All seats are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Bridges {
    /// Takes a seat for a bridge; a bridge of the same process and directory that has one loses it.
    pub(crate) fn take(&self, hello: &Hello, limit: usize) -> Result<Seat, Full> {
        let mut seats = self.lock();
        let key = (hello.pid, hello.directory.clone());
        if !seats.taken.contains_key(&key) && seats.taken.len() >= limit {
            return Err(Full);
        }
        seats.next_id += 1;
        let info = BridgeInfo {
            id: seats.next_id,
            directory: hello.directory.clone(),
            pid: hello.pid,
            server_url: hello.server_url.clone(),
            opencode_version: hello.opencode_version.clone(),
        };
        let (evict, evicted) = oneshot::channel();
        let id = info.id;
        seats.taken.insert(
            key.clone(),
            Taken {
                info,
                _evict: evict,
            },
        );
        Ok(Seat {
            bridges: self.clone(),
            key,
            id,
            evicted,
        })
    }

    /// Those connected now, oldest hello first.
    pub fn list(&self) -> Vec<BridgeInfo> {
        let mut list: Vec<BridgeInfo> = self
            .lock()
            .taken
            .values()
            .map(|taken| taken.info.clone())
            .collect();
        list.sort_by_key(|info| info.id);
        list
    }

    /// Closes every socket, those that come later too: the service goes away.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    /// Waits until the service goes away.
    pub(crate) async fn closed(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.open.subscribe().wait_for(|open| !open).await;
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        self.lock().taken.len()
    }

    /// True if none is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives a seat back; true if it was the last one.
    fn leave(&self, key: &(u32, String), id: u64) -> bool {
        let mut seats = self.lock();
        // A seat that a newer bridge has taken is not the older one's to give back.
        if seats
            .taken
            .get(key)
            .is_some_and(|taken| taken.info.id == id)
        {
            seats.taken.remove(key);
            return seats.taken.is_empty();
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        // Nothing panics while it is held; a poisoned table would still be a true one.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bridge's place in the list, from its hello to its end.
#[derive(Debug)]
pub(crate) struct Seat {
    bridges: Bridges,
    key: (u32, String),
    id: u64,
    evicted: oneshot::Receiver<()>,
}

impl Seat {
    /// Waits until a newer bridge of the same process and directory has taken this place.
    pub(crate) async fn evicted(&mut self) {
        // The sender is only ever dropped.
        let _ = (&mut self.evicted).await;
    }

    /// Counts the hellos of this service.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Gives the place back; true if nobody is left.
    pub(crate) fn leave(self) -> bool {
        self.bridges.leave(&self.key, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(pid: u32, directory: &str) -> Hello {
        Hello {
            protocol: 1,
            directory: directory.to_owned(),
            pid,
            server_url: None,
            opencode_version: None,
            token: None,
        }
    }

    #[actix_rt::test]
    async fn the_newer_of_two_hellos_of_one_process_and_directory_wins() {
        let bridges = Bridges::default();
        let mut older = bridges.take(&hello(1, "/a"), 9).unwrap();
        let newer = bridges.take(&hello(1, "/a"), 9).unwrap();
        older.evicted().await;
        assert_eq!(
            bridges
                .list()
                .iter()
                .map(|bridge| bridge.id)
                .collect::<Vec<_>>(),
            [2]
        );
        assert!(!older.leave(), "the place is the newer one's");
        assert_eq!(bridges.len(), 1);
        assert!(newer.leave());
        assert!(bridges.is_empty());
    }

    #[actix_rt::test]
    async fn directories_of_one_process_are_bridges_of_their_own_up_to_the_limit() {
        let bridges = Bridges::default();
        let first = bridges.take(&hello(1, "/a"), 2).unwrap();
        let _second = bridges.take(&hello(1, "/b"), 2).unwrap();
        assert_eq!(bridges.take(&hello(2, "/a"), 2).unwrap_err(), Full);
        let again = bridges.take(&hello(1, "/a"), 2);
        assert!(again.is_ok(), "a reconnect needs no further place");
        drop(first);
    }
}
