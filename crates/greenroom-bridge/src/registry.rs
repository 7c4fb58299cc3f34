//! Keeps the list of connected bridges and their channels. A socket holds a [`Connection`] from its accepted hello to its
//! end. The channel and the tool calls of a disconnected bridge are kept for 15 minutes, for its reconnect. The readiness
//! check reads the list; the host's router sends requests over the channels.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use greenroom::domain::instance::Instance;
use greenroom::domain::task::cut;
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::channel::BridgeChannel;
use crate::lock;
use crate::options::BridgeLimits;
use crate::protocol::Hello;
use crate::send_queue::SendQueue;
use crate::tool_calls::ToolCalls;

/// How long the entry of a disconnected bridge is kept.
const REMEMBERED_FOR: Duration = Duration::from_secs(900);

/// Identifies a bridge across its sockets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgeKey {
    /// The id of its process.
    pub pid: u32,
    /// The directory of its opencode instance.
    pub directory: Arc<str>,
}

impl BridgeKey {
    /// Returns the instance of a directory in the process of the bridge; without a directory, all its instances.
    pub fn instance(&self, directory: Option<&str>) -> Instance {
        Instance {
            process: Some(self.pid),
            ..Instance::in_directory(directory)
        }
    }
}

/// Describes a connected bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgeInfo {
    /// The number of its hello, counted from the start of this service.
    pub id: u64,
    /// The directory of its instance.
    pub directory: String,
    /// Its process.
    pub pid: u32,
    /// The URL of its agent server, if that server listens on a port.
    #[serde(rename = "serverURL", skip_serializing_if = "Option::is_none")]
    pub server_url: Option<String>,
    /// The version of its agent server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opencode_version: Option<String>,
}

impl BridgeInfo {
    /// Returns the identity of the bridge.
    pub fn key(&self) -> BridgeKey {
        BridgeKey {
            pid: self.pid,
            directory: self.directory.as_str().into(),
        }
    }
}

/// A handle to the bridges of one service. Clones share the same list.
#[derive(Debug, Clone)]
pub struct BridgeRegistry {
    table: Arc<Mutex<Table>>,
    open: watch::Sender<bool>,
    salt: u64,
}

impl Default for BridgeRegistry {
    fn default() -> Self {
        // Differs from the salt of an earlier service: a bridge may still answer that service's requests.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let salt = since.map_or(0, |since| {
            since.as_secs() << 20 | u64::from(since.subsec_micros())
        });
        Self {
            table: Arc::default(),
            open: watch::Sender::new(true),
            salt,
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    // Connected and disconnected bridges are each bounded by `BridgeLimits::bridges`.
    entries: BTreeMap<BridgeKey, BridgeEntry>,
}

#[derive(Debug)]
struct BridgeEntry {
    info: BridgeInfo,
    channel: BridgeChannel,
    calls: ToolCalls,
    presence: Presence,
}

#[derive(Debug)]
enum Presence {
    /// The sender is dropped when a newer bridge replaces this one; the older socket then closes.
    Connected(#[expect(dead_code, reason = "only its drop is observed")] oneshot::Sender<()>),
    Disconnected(Instant),
}

impl BridgeEntry {
    fn is_connected(&self) -> bool {
        matches!(self.presence, Presence::Connected(_))
    }
}

impl Table {
    fn connected_count(&self) -> usize {
        self.entries
            .values()
            .filter(|entry| entry.is_connected())
            .count()
    }

    /// Removes the entries of bridges that were disconnected too long ago, and the oldest above `limit`.
    fn remove_expired(&mut self, limit: usize) {
        self.entries.retain(|_, entry| match entry.presence {
            Presence::Connected(_) => true,
            Presence::Disconnected(since) => since.elapsed() < REMEMBERED_FOR,
        });
        let gone = self
            .entries
            .iter()
            .filter_map(|(key, entry)| match entry.presence {
                Presence::Connected(_) => None,
                Presence::Disconnected(since) => Some((since, key.clone())),
            });
        let mut gone: Vec<_> = gone.collect();
        gone.sort();
        for (_, key) in gone.iter().rev().skip(limit) {
            self.entries.remove(key);
        }
    }
}

/// The limit of connected bridges is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyBridges;

impl BridgeRegistry {
    /// Adds a bridge. It replaces a connected bridge of the same process and directory.
    pub(crate) fn connect(
        &self,
        hello: &Hello,
        limits: &BridgeLimits,
    ) -> Result<Connection, TooManyBridges> {
        let mut table = self.lock();
        let limit = limits.bridges;
        table.remove_expired(limit);
        let key = BridgeKey {
            pid: hello.pid,
            directory: hello.directory.as_str().into(),
        };
        let previous = table.entries.remove(&key);
        let replaces = previous.as_ref().is_some_and(BridgeEntry::is_connected);
        if !replaces && table.connected_count() >= limit {
            if let Some(previous) = previous {
                table.entries.insert(key, previous);
            }
            return Err(TooManyBridges);
        }
        table.next_id += 1;
        let info = BridgeInfo {
            id: table.next_id,
            directory: hello.directory.clone(),
            pid: hello.pid,
            server_url: hello.server_url.as_deref().map(truncate),
            opencode_version: hello.opencode_version.as_deref().map(truncate),
        };
        let (channel, calls) = match previous {
            Some(previous) => (previous.channel, previous.calls),
            None => (
                BridgeChannel::new(key.clone(), self.salt, *limits),
                ToolCalls::default(),
            ),
        };
        let (replace, replaced) = oneshot::channel();
        table.entries.insert(
            key,
            BridgeEntry {
                info: info.clone(),
                channel: channel.clone(),
                calls: calls.clone(),
                presence: Presence::Connected(replace),
            },
        );
        Ok(Connection {
            registry: self.clone(),
            info,
            channel,
            calls,
            send_queue: Arc::default(),
            replaced,
        })
    }

    /// Returns the connected bridges, oldest hello first.
    pub fn list(&self) -> Vec<BridgeInfo> {
        let mut list: Vec<BridgeInfo> = self.connected(|entry| entry.info.clone());
        list.sort_by_key(|info| info.id);
        list
    }

    /// Returns the channels of the connected bridges, oldest hello first.
    pub fn channels(&self) -> Vec<BridgeChannel> {
        let mut channels = self.connected(|entry| (entry.info.id, entry.channel.clone()));
        channels.sort_by_key(|(id, _)| *id);
        channels.into_iter().map(|(_, channel)| channel).collect()
    }

    /// Returns the channel of a bridge that is connected or was disconnected a short time ago.
    pub fn channel(&self, key: &BridgeKey) -> Option<BridgeChannel> {
        self.lock()
            .entries
            .get(key)
            .map(|entry| entry.channel.clone())
    }

    /// Returns the server URL of a bridge that is connected or was disconnected a short time ago.
    pub fn server_url(&self, key: &BridgeKey) -> Option<String> {
        self.lock().entries.get(key)?.info.server_url.clone()
    }

    fn connected<T>(&self, read: impl Fn(&BridgeEntry) -> T) -> Vec<T> {
        let table = self.lock();
        let connected = table.entries.values().filter(|entry| entry.is_connected());
        connected.map(read).collect()
    }

    /// Closes every socket, later ones included. Called when the service shuts down.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    /// Waits for the shutdown of the service.
    pub(crate) async fn closed(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.open.subscribe().wait_for(|open| !open).await;
    }

    /// Returns the number of connected bridges.
    pub fn len(&self) -> usize {
        self.lock().connected_count()
    }

    /// Returns true if no bridge is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of running tool calls of all bridges.
    pub fn tool_calls(&self) -> usize {
        let table = self.lock();
        table
            .entries
            .values()
            .map(|entry| entry.calls.running())
            .sum()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

/// Limits the length of a text from a hello: it is kept as long as the entry.
fn truncate(text: &str) -> String {
    cut(text, 500).to_owned()
}

/// The bridges that remain after a socket was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remaining {
    /// A newer socket had already replaced it.
    Replaced,
    /// Other bridges are connected.
    Others,
    /// No other bridge is connected.
    None,
}

/// The registration of one socket, from its hello to its end.
#[derive(Debug)]
pub(crate) struct Connection {
    registry: BridgeRegistry,
    pub(crate) info: BridgeInfo,
    pub(crate) channel: BridgeChannel,
    pub(crate) calls: ToolCalls,
    pub(crate) send_queue: Arc<SendQueue>,
    replaced: oneshot::Receiver<()>,
}

impl Connection {
    /// Waits until a newer bridge of the same process and directory replaces this one.
    pub(crate) async fn replaced(&mut self) {
        // The sender is only ever dropped.
        let _ = (&mut self.replaced).await;
    }

    /// Returns true if a newer bridge has replaced this one.
    pub(crate) fn is_replaced(&mut self) -> bool {
        !matches!(
            self.replaced.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        )
    }

    /// Sends frames to the bridge over this socket from now on.
    pub(crate) fn attach(&self) {
        self.channel.attach(self.info.id, &self.send_queue);
    }

    /// Marks the bridge as disconnected, unless a newer socket has replaced this one.
    pub(crate) fn disconnect(self) -> Remaining {
        self.channel.detach(self.info.id);
        let mut table = self.registry.lock();
        // The entry of a newer socket stays as it is.
        match table.entries.get_mut(&self.info.key()) {
            Some(entry) if entry.info.id == self.info.id => {
                entry.presence = Presence::Disconnected(Instant::now());
            }
            _ => return Remaining::Replaced,
        }
        if table.connected_count() == 0 {
            Remaining::None
        } else {
            Remaining::Others
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
            uid: None,
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
    async fn newer_hello_replaces_older_one() {
        let bridges = BridgeRegistry::default();
        let mut older = bridges.connect(&hello(1, "/a"), &limits(9)).unwrap();
        let newer = bridges.connect(&hello(1, "/a"), &limits(9)).unwrap();
        older.replaced().await;
        assert_eq!(
            bridges
                .list()
                .iter()
                .map(|bridge| bridge.id)
                .collect::<Vec<_>>(),
            [2]
        );
        assert_eq!(
            older.disconnect(),
            Remaining::Replaced,
            "the entry belongs to the newer socket"
        );
        assert_eq!(bridges.len(), 1);
        assert_eq!(newer.disconnect(), Remaining::None);
        assert!(bridges.is_empty());
    }

    #[actix_rt::test]
    async fn bridges_of_one_process_are_limited() {
        let bridges = BridgeRegistry::default();
        let first = bridges.connect(&hello(1, "/a"), &limits(2)).unwrap();
        let _second = bridges.connect(&hello(1, "/b"), &limits(2)).unwrap();
        assert_eq!(
            bridges.connect(&hello(2, "/a"), &limits(2)).unwrap_err(),
            TooManyBridges
        );
        let again = bridges.connect(&hello(1, "/a"), &limits(2));
        assert!(again.is_ok(), "a reconnect does not count twice");
        drop(first);
    }
}
