//! Finds the owner of sessions without a connected owner. Called by [`super::routes`]; a result is written to the
//! session table.

use std::collections::BTreeSet;

use greenroom::domain::ids::{MessageId, SessionId};
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::ServerError;
use greenroom_bridge::{BridgeChannel, BridgeKey, ToolContext};
use reqwest::Url;
use tokio::time::timeout;

use super::routes::{NOT_CONNECTED, Route, Routes, unreachable};
use super::sessions::Owner;

/// Number of newest messages in which a running tool call is searched.
const NEWEST_MESSAGES: usize = 20;

impl Routes {
    /// Returns a new owner for a session whose bridge is disconnected.
    ///
    /// # Errors
    /// `Unreachable` while the bridge may reconnect, `NotFound` if no other process has the session.
    pub(super) async fn take_over(
        &self,
        session: &SessionId,
        key: &BridgeKey,
        line: Option<BridgeChannel>,
    ) -> Result<Route, ServerError> {
        let orphaned = self.is_orphaned(key, line.as_ref());
        let mut candidates: Vec<Route> = Vec::new();
        for line in self.takeover_candidates(session, key, orphaned) {
            candidates.push(self.via_bridge(line));
        }
        candidates.extend(self.via_url(false).filter(|_| orphaned));
        let (mut queried, mut not_found) = (0_usize, 0_usize);
        for route in candidates {
            // The server at the URL may read another directory, so its `NotFound` is not conclusive.
            let is_conclusive = route.owner != Owner::Url;
            queried += usize::from(is_conclusive);
            match self.find_session(&route, session).await {
                Ok(()) => {
                    tracing::info!(%session, of = key.pid, to = ?route.owner, "session taken over from a lost process");
                    self.sessions().set_owner(session, &route.owner);
                    return Ok(route);
                }
                Err(ServerError::NotFound(_)) => not_found += usize::from(is_conclusive),
                Err(_) => {}
            }
        }
        if orphaned && queried > 0 && queried == not_found {
            self.sessions().remove(session);
            let gone = format!(
                "{session} went with process {}, and no other process has it",
                key.pid
            );
            return Err(ServerError::NotFound(gone));
        }
        unreachable(format!(
            "the bridge of process {} in {} is disconnected; its sessions wait for it",
            key.pid, key.directory
        ))
    }

    /// Returns true if the process of a bridge has ended, and not just now: its bridge is gone and does not come back.
    pub(super) fn process_has_ended(&self, key: &BridgeKey) -> bool {
        is_dead(key.pid) && self.is_orphaned(key, self.bridges.channel(key).as_ref())
    }

    /// Returns true if the bridge has been gone for so long that another process may take over its sessions. A bridge that
    /// was restored from the journal counts as gone from the start of the service.
    fn is_orphaned(&self, key: &BridgeKey, line: Option<&BridgeChannel>) -> bool {
        let limit = if is_dead(key.pid) {
            self.timeouts.dead_after.min(self.timeouts.orphaned_after)
        } else {
            self.timeouts.orphaned_after
        };
        let gone_for = match line {
            Some(line) => line.disconnected_for(),
            None => Some(self.uptime()),
        };
        gone_for.is_none_or(|gone| gone >= limit)
    }

    /// Records that a bridge has named a session. Returns false if the session stays with another bridge: a connected one,
    /// or one that may still reconnect after a restart of the service; or with the URL.
    pub(super) fn name_session(&self, by: &BridgeKey, session: &SessionId) -> bool {
        let keeps_its_sessions = |owner: &BridgeKey| match self.bridges.channel(owner) {
            Some(line) => line.is_connected(),
            None => !self.is_orphaned(owner, None),
        };
        let url_has_events = self.upstream.as_ref().is_some_and(|up| up.has_events);
        let mut sessions = self.sessions();
        sessions.name(session, by, url_has_events, keeps_its_sessions)
    }

    /// Moves a session to the bridge of a tool call, if the server of its connected owner shows that call as running. Reads
    /// at most for [`Timeouts::lookup`](super::routes::Timeouts::lookup). Returns true if the bridge owns the session then.
    pub(super) async fn tool_called(&self, by: &BridgeKey, caller: &ToolContext) -> bool {
        let session = &caller.session_id;
        if self.name_session(by, session) {
            self.sessions().record_owner(session);
            return true;
        }
        let (Some(message), Some(call)) = (&caller.message_id, &caller.call_id) else {
            return false;
        };
        let Ok(route) = self.route_for(session).await else {
            return false;
        };
        let read = route.server.messages(session, Some(NEWEST_MESSAGES));
        let Ok(Ok(messages)) = timeout(self.timeouts.lookup, read).await else {
            return false;
        };
        let is_proven = shows_running_call(&messages, message, call);
        if is_proven {
            tracing::info!(%session, from = ?route.owner, to = by.pid, "session works in another process now");
            let owner = Owner::Bridge(by.clone());
            self.sessions().set_owner(session, &owner);
            self.sessions().record_owner(session);
        }
        is_proven
    }

    /// Returns true if the bridge belongs to the process at the URL.
    pub(super) fn is_upstream(&self, key: &BridgeKey) -> bool {
        let upstream_url = self.upstream.as_ref().and_then(|up| up.url.as_deref());
        let bridge_url = self.bridges.server_url(key);
        match (
            upstream_url.and_then(origin),
            bridge_url.as_deref().and_then(origin),
        ) {
            (Some(upstream_url), Some(bridge_url)) => upstream_url == bridge_url,
            _ => false,
        }
    }

    /// Returns the bridges that may have the session: bridges of its ancestors' processes and, for an orphaned
    /// session, bridges of its directory, newest first.
    fn takeover_candidates(
        &self,
        session: &SessionId,
        gone: &BridgeKey,
        orphaned: bool,
    ) -> Vec<BridgeChannel> {
        let mut keys: Vec<BridgeKey> = Vec::new();
        {
            let mut sessions = self.sessions();
            let mut seen = BTreeSet::from([session.clone()]);
            let mut at = session.clone();
            while let Some(parent) = sessions.get(&at).and_then(|known| known.parent.clone()) {
                if !seen.insert(parent.clone()) {
                    break;
                }
                if let Some(Owner::Bridge(key)) = sessions.get(&parent).map(|known| &known.owner)
                    && key != gone
                {
                    keys.push(key.clone());
                }
                at = parent;
            }
        }
        let mut lines: Vec<BridgeChannel> = keys
            .iter()
            .filter_map(|key| self.bridges.channel(key))
            .collect();
        lines.retain(BridgeChannel::is_connected);
        if orphaned {
            lines.extend(self.bridges_in(&gone.directory));
        }
        lines
    }

    /// Returns Ok if the server has the session.
    async fn find_session(&self, route: &Route, session: &SessionId) -> Result<(), ServerError> {
        let limit = self.timeouts.lookup;
        let record = timeout(limit, route.server.session(session)).await;
        record
            .unwrap_or(Err(ServerError::TimedOut(limit)))
            .map(|_| ())
    }

    /// Searches all connected bridges for a session without an owner. Prefers bridges of the session's own directory.
    pub(super) async fn discover(&self, session: &SessionId) -> Result<Route, ServerError> {
        if self.is_settling() {
            return unreachable("bridges are still reconnecting after the start");
        }
        let mut lines = self.bridges.channels();
        lines.reverse();
        lines.sort_by_key(|line| !line.has_responded());
        if lines.is_empty() {
            return unreachable(NOT_CONNECTED);
        }
        let mut not_found_error = None;
        let mut unanswered = None;
        let mut found: Option<BridgeChannel> = None;
        for line in lines {
            if !self.accepts_requests(&line).await {
                continue;
            }
            let limit = self.timeouts.lookup;
            let server = self.via_bridge(line.clone()).server;
            let record = timeout(limit, server.session(session)).await;
            match record.unwrap_or(Err(ServerError::TimedOut(limit))) {
                Ok(record) => {
                    let own_bridge = record
                        .directory
                        .and_then(|directory| self.bridges_in(&directory).into_iter().next());
                    found = Some(own_bridge.unwrap_or(line));
                    break;
                }
                Err(error @ ServerError::NotFound(_)) if not_found_error.is_none() => {
                    not_found_error = Some(error)
                }
                Err(ServerError::NotFound(_)) => {}
                // This server may have the session, unless another one has it.
                Err(error) => unanswered = Some(error),
            }
        }
        if let (None, Some(error)) = (&found, unanswered) {
            return unreachable(error.to_string());
        }
        match (found, not_found_error) {
            (Some(line), _) => {
                let route = self.via_bridge(line);
                self.sessions().set_owner(session, &route.owner);
                Ok(route)
            }
            (None, Some(not_found_error)) => Err(not_found_error),
            (None, None) => unreachable(NOT_CONNECTED),
        }
    }
}

/// Returns true if the message contains the call as a tool part that has not ended.
fn shows_running_call(messages: &[Message], message: &MessageId, call: &str) -> bool {
    let calling = messages
        .iter()
        .filter(|it| it.id.as_ref() == Some(message))
        .flat_map(|it| &it.parts);
    calling
        .filter(|part| part.call.as_deref() == Some(call))
        .any(|part| matches!(part.tool_status.as_deref(), Some("pending" | "running")))
}

/// Returns host and port of a URL. All loopback names are equal.
fn origin(url: &str) -> Option<(String, u16)> {
    let url = Url::parse(url.trim()).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let is_here = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1" | "0.0.0.0");
    let host = if is_here {
        "localhost".to_owned()
    } else {
        host
    };
    Some((host, url.port_or_known_default()?))
}

/// Returns true if no process with this id exists on this machine. That may also hold for a process on another machine,
/// whose bridge has [`Timeouts::dead_after`](super::routes::Timeouts::dead_after) to reconnect.
fn is_dead(pid: u32) -> bool {
    use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
    // Zero and negative numbers name process groups.
    match i32::try_from(pid) {
        Ok(pid) if pid > 0 => kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_dead_only_for_missing_processes() {
        assert!(!is_dead(std::process::id()));
        assert!(!is_dead(0));
        assert!(!is_dead(u32::MAX));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(is_dead(child.id()));
    }

    #[test]
    fn loopback_names_have_one_origin() {
        assert_eq!(
            origin("http://localhost:4096/"),
            origin("http://127.0.0.1:4096")
        );
        assert_eq!(origin("http://[::1]:4096"), origin("http://localhost:4096"));
        assert_ne!(
            origin("http://localhost:4096"),
            origin("http://localhost:4097")
        );
        assert_eq!(origin("no URL"), None);
    }
}
