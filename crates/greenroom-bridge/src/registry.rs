//! Which bridges are connected, and the ways to them. Sockets take a [`Seat`] when their hello is accepted and lose it when
//! they end; what a bridge has open (its line, its calls) is kept for a while after that, for when it comes back. Readiness
//! reads the list, the host's router makes requests over its lines.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use greenroom::domain::task::cut;
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::calls::Calls;
use crate::line::Line;
use crate::options::BridgeLimits;
use crate::outbox::Outbox;
use crate::protocol::Hello;

/// How long a bridge that is gone is known.
const KNOWN_FOR: Duration = Duration::from_secs(900);

/// The identity of a bridge, over all its sockets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgeKey {
    /// Its process.
    pub pid: u32,
    /// The directory of its instance.
    pub directory: Arc<str>,
}

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

impl BridgeInfo {
    /// Its identity.
    pub fn key(&self) -> BridgeKey {
        BridgeKey {
            pid: self.pid,
            directory: self.directory.as_str().into(),
        }
    }
}

/// The connected bridges of one service; clones share them.
#[derive(Debug, Clone)]
pub struct Bridges {
    seats: Arc<Mutex<Seats>>,
    open: watch::Sender<bool>,
    salt: u64,
}

impl Default for Bridges {
    fn default() -> Self {
        // Differs from that of a service before this one, whose requests may still be answered.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let salt = since.map_or(0, |since| {
            since.as_secs() << 20 | u64::from(since.subsec_micros())
        });
        Self {
            seats: Arc::default(),
            open: watch::Sender::new(true),
            salt,
        }
    }
}

#[derive(Debug, Default)]
struct Seats {
    next_id: u64,
    // Those connected are bounded by the limit that `take` is given, and those gone by the same.
    known: BTreeMap<BridgeKey, Known>,
}

#[derive(Debug)]
struct Known {
    info: BridgeInfo,
    line: Line,
    calls: Calls,
    at: At,
}

#[derive(Debug)]
enum At {
    /// Dropped when a newer bridge of the same process takes the seat: the older one sees it and leaves.
    Seated(#[expect(dead_code, reason = "it speaks by being dropped")] oneshot::Sender<()>),
    Gone(Instant),
}

impl Known {
    fn is_seated(&self) -> bool {
        matches!(self.at, At::Seated(_))
    }
}

impl Seats {
    fn seated(&self) -> usize {
        self.known
            .values()
            .filter(|known| known.is_seated())
            .count()
    }

    /// Lets go of those that will hardly come back.
    fn tidy(&mut self, limit: usize) {
        self.known.retain(|_, known| match known.at {
            At::Seated(_) => true,
            At::Gone(since) => since.elapsed() < KNOWN_FOR,
        });
        let gone = self.known.iter().filter_map(|(key, known)| match known.at {
            At::Seated(_) => None,
            At::Gone(since) => Some((since, key.clone())),
        });
        let mut gone: Vec<_> = gone.collect();
        gone.sort();
        for (_, key) in gone.iter().rev().skip(limit) {
            self.known.remove(key);
        }
    }
}

/// All seats are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Bridges {
    /// Takes a seat for a bridge; a bridge of the same process and directory that has one loses it.
    pub(crate) fn take(&self, hello: &Hello, limits: &BridgeLimits) -> Result<Seat, Full> {
        let mut seats = self.lock();
        let limit = limits.bridges;
        seats.tidy(limit);
        let key = BridgeKey {
            pid: hello.pid,
            directory: hello.directory.as_str().into(),
        };
        let before = seats.known.remove(&key);
        let replaces = before.as_ref().is_some_and(Known::is_seated);
        if !replaces && seats.seated() >= limit {
            if let Some(before) = before {
                seats.known.insert(key, before);
            }
            return Err(Full);
        }
        seats.next_id += 1;
        let info = BridgeInfo {
            id: seats.next_id,
            directory: hello.directory.clone(),
            pid: hello.pid,
            server_url: hello.server_url.as_deref().map(short),
            opencode_version: hello.opencode_version.as_deref().map(short),
        };
        let (line, calls) = match before {
            Some(before) => (before.line, before.calls),
            None => (Line::new(key.clone(), self.salt, *limits), Calls::default()),
        };
        let (evict, evicted) = oneshot::channel();
        seats.known.insert(
            key,
            Known {
                info: info.clone(),
                line: line.clone(),
                calls: calls.clone(),
                at: At::Seated(evict),
            },
        );
        Ok(Seat {
            bridges: self.clone(),
            info,
            line,
            calls,
            outbox: Arc::default(),
            evicted,
        })
    }

    /// Those connected now, oldest hello first.
    pub fn list(&self) -> Vec<BridgeInfo> {
        let mut list: Vec<BridgeInfo> = self.seated(|known| known.info.clone());
        list.sort_by_key(|info| info.id);
        list
    }

    /// The ways to those connected now, oldest hello first.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = self.seated(|known| (known.info.id, known.line.clone()));
        lines.sort_by_key(|(id, _)| *id);
        lines.into_iter().map(|(_, line)| line).collect()
    }

    /// The way to one that is connected, or was a while ago.
    pub fn line(&self, key: &BridgeKey) -> Option<Line> {
        self.lock().known.get(key).map(|known| known.line.clone())
    }

    /// Where the server of one that is connected, or was a while ago, says it listens.
    pub fn server_url(&self, key: &BridgeKey) -> Option<String> {
        self.lock().known.get(key)?.info.server_url.clone()
    }

    fn seated<T>(&self, read: impl Fn(&Known) -> T) -> Vec<T> {
        let seats = self.lock();
        let seated = seats.known.values().filter(|known| known.is_seated());
        seated.map(read).collect()
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
        self.lock().seated()
    }

    /// True if none is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls of tools that run, of all bridges.
    pub fn tool_calls(&self) -> usize {
        let seats = self.lock();
        seats
            .known
            .values()
            .map(|known| known.calls.running())
            .sum()
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        // Nothing panics while it is held; a poisoned table would still be a true one.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a bridge says of itself is kept as long as it is known: not without end.
fn short(text: &str) -> String {
    cut(text, 500).to_owned()
}

/// How a socket has given its place back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// It was a newer socket's already.
    Replaced,
    /// Others are connected.
    Others,
    /// Nobody is.
    Nobody,
}

/// A bridge's place in the list, from its hello to its end.
#[derive(Debug)]
pub(crate) struct Seat {
    bridges: Bridges,
    pub(crate) info: BridgeInfo,
    pub(crate) line: Line,
    pub(crate) calls: Calls,
    pub(crate) outbox: Arc<Outbox>,
    evicted: oneshot::Receiver<()>,
}

impl Seat {
    /// Waits until a newer bridge of the same process and directory has taken this place.
    pub(crate) async fn evicted(&mut self) {
        // The sender is only ever dropped.
        let _ = (&mut self.evicted).await;
    }

    /// True if a newer bridge has taken it.
    pub(crate) fn is_evicted(&mut self) -> bool {
        !matches!(
            self.evicted.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        )
    }

    /// From now on this socket carries what is said to the bridge.
    pub(crate) fn open(&self) {
        self.line.attach(self.info.id, &self.outbox);
    }

    /// Gives the place back.
    pub(crate) fn leave(self) -> Left {
        self.line.detach(self.info.id);
        let mut seats = self.bridges.lock();
        // A seat that a newer bridge has taken is not the older one's to give back.
        match seats.known.get_mut(&self.info.key()) {
            Some(known) if known.info.id == self.info.id => {
                known.at = At::Gone(Instant::now());
            }
            _ => return Left::Replaced,
        }
        match seats.seated() {
            0 => Left::Nobody,
            _ => Left::Others,
        }
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

    fn limits(bridges: usize) -> BridgeLimits {
        BridgeLimits {
            bridges,
            ..BridgeLimits::default()
        }
    }

    #[actix_rt::test]
    async fn the_newer_of_two_hellos_of_one_process_and_directory_wins() {
        let bridges = Bridges::default();
        let mut older = bridges.take(&hello(1, "/a"), &limits(9)).unwrap();
        let newer = bridges.take(&hello(1, "/a"), &limits(9)).unwrap();
        older.evicted().await;
        assert_eq!(
            bridges
                .list()
                .iter()
                .map(|bridge| bridge.id)
                .collect::<Vec<_>>(),
            [2]
        );
        assert_eq!(
            older.leave(),
            Left::Replaced,
            "the place is the newer one's"
        );
        assert_eq!(bridges.len(), 1);
        assert_eq!(newer.leave(), Left::Nobody);
        assert!(bridges.is_empty());
    }

    #[actix_rt::test]
    async fn directories_of_one_process_are_bridges_of_their_own_up_to_the_limit() {
        let bridges = Bridges::default();
        let first = bridges.take(&hello(1, "/a"), &limits(2)).unwrap();
        let _second = bridges.take(&hello(1, "/b"), &limits(2)).unwrap();
        assert_eq!(bridges.take(&hello(2, "/a"), &limits(2)).unwrap_err(), Full);
        let again = bridges.take(&hello(1, "/a"), &limits(2));
        assert!(again.is_ok(), "a reconnect needs no further place");
        drop(first);
    }
}
