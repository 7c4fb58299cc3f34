//! The description of a running service: a private file by which the commands and opencode's plugin find it. It names the
//! process with its start time, so that a reused process id does not pass for the service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use greenroom::clock::Clock;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::secret_file::{self, SecretFileError};

/// A running service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// The URL for callers on this machine.
    pub url: String,
    /// The id of its process.
    pub pid: u32,
    /// The start time of its process, in the units of the operating system; compared as text.
    pub start_time: String,
    /// The time of its start, in ISO 8601.
    pub started_at: String,
    /// Its version.
    pub version: String,
    /// Its journal; none if it keeps nothing.
    pub journal: Option<PathBuf>,
    /// The file with its secret; none if the secret does not come from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// `token` or `none`.
    pub auth: String,
}

impl Description {
    /// Returns the description of this process.
    pub fn of_this_process(url: String) -> Self {
        let pid = std::process::id();
        Self {
            url,
            pid,
            start_time: start_time(pid).unwrap_or_default(),
            started_at: Clock::system().now().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            journal: None,
            token_file: None,
            auth: "token".to_owned(),
        }
    }

    /// Reads the description of a living service. None if the file does not exist, is not private, cannot be understood,
    /// or its process has ended.
    pub fn read_living(path: &Path) -> Option<Self> {
        let text = match secret_file::read(path) {
            Ok(text) => text?,
            Err(error) => {
                tracing::warn!(%error, "the description of a service is not used");
                return None;
            }
        };
        let description: Self = serde_json::from_str(&text).ok()?;
        description.is_living().then_some(description)
    }

    /// Returns true if the process runs and is not another one under a reused id.
    pub fn is_living(&self) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().filter(|pid| *pid > 0) else {
            return false;
        };
        let is_gone = kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH);
        let same = match start_time(self.pid) {
            Some(time) => time == self.start_time,
            // The operating system gives no start time.
            None => true,
        };
        !is_gone && same
    }
}

/// The description of this process as a file, removed at the end.
#[derive(Debug)]
pub struct Published {
    path: PathBuf,
    description: Description,
}

impl Published {
    /// Writes the description of this process. None if another living service is described there: that one stays, and this
    /// one is reached by its URL only.
    ///
    /// # Errors
    /// [`SecretFileError`] if the file cannot be written or its folder is not private.
    pub fn write(path: &Path, description: Description) -> Result<Option<Self>, SecretFileError> {
        let text = serde_json::to_string_pretty(&description).unwrap_or_default() + "\n";
        if !secret_file::create(path, &text)? {
            if let Some(other) = Description::read_living(path) {
                tracing::info!(
                    url = other.url,
                    pid = other.pid,
                    "another service is described already; this one is reached by its URL"
                );
                return Ok(None);
            }
            secret_file::replace(path, &text)?;
        }
        Ok(Some(Self {
            path: path.to_owned(),
            description,
        }))
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        let current = secret_file::read(&self.path).ok().flatten();
        let current = current.and_then(|text| serde_json::from_str::<Description>(&text).ok());
        if current.as_ref() == Some(&self.description) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Returns the start time of a process; none if it does not exist or the operating system does not say.
#[cfg(target_os = "linux")]
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program may contain blanks and parentheses; the start time is the 20th field behind it.
    let ticks = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .to_owned();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Some(format!("{ticks}@{}", boot.trim()))
}

/// Returns the start time of a process; none if it does not exist or the operating system does not say.
#[cfg(not(target_os = "linux"))]
fn start_time(pid: u32) -> Option<String> {
    let mut ps = std::process::Command::new("ps");
    let output = ps
        .args(["-o", "lstart=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Returns the user id of a process of another user that listens at a loopback address of this machine: at one of `addresses`,
/// or at all addresses. None if no such process does, or the operating system has no table of listeners.
pub fn foreign_listener(addresses: &[IpAddr], port: u16) -> Option<u32> {
    let own = nix::unistd::geteuid().as_raw();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    tables.iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        let mut listeners = table
            .lines()
            .skip(1)
            .filter_map(|line| listener(line, addresses, port));
        listeners.find(|uid| *uid != own)
    })
}

/// Returns the loopback addresses that a host of a URL may mean; none for a host on another machine.
pub fn loopback_addresses(host: &str) -> Vec<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let address = address.map(|address| address.to_canonical());
    address.into_iter().filter(IpAddr::is_loopback).collect()
}

/// Returns the user id of the process at the other end of a connection over a loopback address. None if the operating system
/// has no table of connections.
pub fn peer_uid(peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    let is_same = |address: &str, of: SocketAddr| {
        let found = table_address(address);
        found.is_some_and(|(ip, port)| ip == of.ip().to_canonical() && port == of.port())
    };
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            let table = std::fs::read_to_string(table).ok()?;
            table.lines().skip(1).find_map(|row| {
                let fields: Vec<&str> = row.split_whitespace().collect();
                let is_peer = is_same(fields.get(1)?, peer) && is_same(fields.get(2)?, local);
                is_peer.then(|| fields.get(7)?.parse().ok()).flatten()
            })
        })
}

/// Returns the user id in a row of the kernel's table, if the row is a listener at one of the addresses or at all.
fn listener(row: &str, addresses: &[IpAddr], port: u16) -> Option<u32> {
    let fields: Vec<&str> = row.split_whitespace().collect();
    let (address, local_port) = table_address(fields.get(1)?)?;
    let is_here = address.is_unspecified() || addresses.contains(&address);
    let uid = fields.get(7)?.parse().ok()?;
    (*fields.get(3)? == "0A" && is_here && local_port == port).then_some(uid)
}

/// Reads an address of the kernel's table: words of the address in the order of the machine, and the port. An IPv4 address
/// mapped to IPv6 is returned as IPv4.
fn table_address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for word in address.as_bytes().chunks(8) {
        let word = std::str::from_utf8(word).ok()?;
        bytes.extend(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::from(four),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?),
    };
    Some((address.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Description {
        Description::of_this_process("http://127.0.0.1:1".to_owned())
    }

    #[test]
    fn description_is_written_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("greenroom/service.json");
        let published = Published::write(&path, description()).unwrap().unwrap();
        let read = Description::read_living(&path).unwrap();
        assert_eq!(read, published.description);
        assert!(!read.start_time.is_empty());
        // A living one is not overwritten.
        let mut other = description();
        other.url = "http://127.0.0.1:2".to_owned();
        assert!(Published::write(&path, other).unwrap().is_none());
        assert_eq!(Description::read_living(&path).unwrap().url, read.url);
        drop(published);
        assert!(!path.exists());
    }

    #[test]
    fn stale_description_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("service.json");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let mut ended = description();
        ended.pid = child.id();
        let mut reused = description();
        reused.start_time = "1@another boot".to_owned();
        for stale in [ended, reused] {
            let text = serde_json::to_string(&stale).unwrap();
            secret_file::replace(&path, &text).unwrap();
            assert!(Description::read_living(&path).is_none());
            let published = Published::write(&path, description()).unwrap();
            assert!(published.is_some());
        }
        secret_file::replace(&path, "no description").unwrap();
        assert!(Description::read_living(&path).is_none());
    }

    #[test]
    fn description_of_a_successor_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("service.json");
        let published = Published::write(&path, description()).unwrap().unwrap();
        let mut successor = description();
        successor.url = "http://127.0.0.1:3".to_owned();
        secret_file::replace(&path, &serde_json::to_string(&successor).unwrap()).unwrap();
        drop(published);
        assert_eq!(Description::read_living(&path).unwrap(), successor);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn listener_is_found_by_its_port() {
        let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = bound.local_addr().unwrap().port();
        let here = loopback_addresses("127.0.0.1");
        assert_eq!(foreign_listener(&here, port), None, "the own user's");
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let found: Vec<u32> = table
            .lines()
            .filter_map(|row| listener(row, &here, port))
            .collect();
        assert_eq!(found, [nix::unistd::geteuid().as_raw()]);
        // A listener on another address of the machine is another one.
        let row = |address: &str| format!("0: {address}:1E25 0:0 0A 0:0 0:0 0 54321 0 1");
        assert_eq!(listener(&row("0200007F"), &here, 0x1E25), None);
        let other = loopback_addresses("127.0.0.2");
        assert_eq!(listener(&row("0200007F"), &other, 0x1E25), Some(54_321));
        for all in [
            "0100007F",
            "00000000",
            "00000000000000000000000000000000",
            "0000000000000000FFFF00000100007F",
            "0000000000000000FFFF000000000000",
        ] {
            assert_eq!(listener(&row(all), &here, 0x1E25), Some(54_321), "{all}");
            assert_eq!(listener(&row(all), &here, 0x1E26), None);
        }
        let localhost = loopback_addresses("LOCALHOST");
        let loopback6 = row("00000000000000000000000001000000");
        assert_eq!(listener(&loopback6, &localhost, 0x1E25), Some(54_321));
        assert!(loopback_addresses("192.168.1.9").is_empty());
        assert_eq!(loopback_addresses("[::ffff:127.0.0.1]"), here);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn user_of_a_connection_is_known() {
        let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(bound.local_addr().unwrap()).unwrap();
        let (peer, local) = (client.local_addr().unwrap(), bound.local_addr().unwrap());
        let own = nix::unistd::geteuid().as_raw();
        assert_eq!(peer_uid(peer, local), Some(own));
        let other = SocketAddr::new(peer.ip(), local.port());
        assert_eq!(peer_uid(other, local), None);
    }
}
