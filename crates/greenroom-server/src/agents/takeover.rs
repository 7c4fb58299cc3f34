//! Sessions that nobody has, or whose process is gone: who may have them now. Asked by [`super::routes`], which remembers
//! what is found.

use std::collections::BTreeSet;

use greenroom::domain::ids::SessionId;
use greenroom::ports::agent_server::ServerError;
use greenroom_bridge::{BridgeKey, Line};
use reqwest::Url;
use tokio::time::timeout;

use super::routes::{NOBODY, Route, Routes, unreachable};
use super::sessions::Owner;

impl Routes {
    /// A session of a process that is gone: it waits, or somebody else has it from now on.
    pub(super) async fn take_over(
        &self,
        session: &SessionId,
        key: &BridgeKey,
        line: Option<Line>,
    ) -> Result<Route, ServerError> {
        let waited_for = match is_dead(key.pid) {
            true => self.patience.dead.min(self.patience.orphaned),
            false => self.patience.orphaned,
        };
        let gone_for = line.and_then(|line| line.gone_for());
        let orphaned = gone_for.is_none_or(|gone| gone >= waited_for);
        let mut heirs: Vec<Route> = Vec::new();
        for line in self.heirs(session, key, orphaned) {
            heirs.push(self.over(line));
        }
        heirs.extend(self.url(false).filter(|_| orphaned));
        let (mut asked, mut strangers) = (0, 0);
        for route in heirs {
            // What the URL does not know may be in another place than what it reads.
            let may_judge = route.owner != Owner::Url;
            asked += usize::from(may_judge);
            match self.knows(&route, session).await {
                Ok(()) => {
                    tracing::info!(%session, of = key.pid, to = ?route.owner, "a session is taken over from a process that is gone");
                    self.sessions().name(session, &route.owner);
                    return Ok(route);
                }
                Err(ServerError::NotFound(_)) => strangers += usize::from(may_judge),
                Err(_) => {}
            }
        }
        if orphaned && asked > 0 && asked == strangers {
            self.sessions().forget(session);
            let gone = format!(
                "{session} went with process {}, and nobody else knows it",
                key.pid
            );
            return Err(ServerError::NotFound(gone));
        }
        unreachable(format!(
            "the bridge of process {} in {} is gone; its sessions wait for it",
            key.pid, key.directory
        ))
    }

    /// True if that bridge belongs to the very process that listens at the URL.
    pub(super) fn is_upstream(&self, key: &BridgeKey) -> bool {
        let ours = self.upstream.as_ref().and_then(|up| up.url.as_deref());
        let theirs = self.bridges.server_url(key);
        match (ours.and_then(origin), theirs.as_deref().and_then(origin)) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => false,
        }
    }

    /// Who may have a session whose bridge is gone: the process its parent has moved to; once it has been away for long,
    /// the others of its directory, newest first.
    fn heirs(&self, session: &SessionId, gone: &BridgeKey, orphaned: bool) -> Vec<Line> {
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
        let mut lines: Vec<Line> = keys
            .iter()
            .filter_map(|key| self.bridges.line(key))
            .collect();
        lines.retain(Line::is_connected);
        if orphaned {
            lines.extend(self.in_directory(&gone.directory));
        }
        lines
    }

    /// Ok if whoever is there says that there is such a session.
    async fn knows(&self, route: &Route, session: &SessionId) -> Result<(), ServerError> {
        let limit = self.patience.look;
        let record = timeout(limit, route.server.session(session)).await;
        record
            .unwrap_or(Err(ServerError::TimedOut(limit)))
            .map(|_| ())
    }

    /// Nobody has named it: whoever is connected and knows it, those of its own directory first, has it from now on.
    pub(super) async fn guess(&self, session: &SessionId) -> Result<Route, ServerError> {
        if self.is_settling() {
            return unreachable("bridges are still coming back after the start");
        }
        let mut lines = self.bridges.lines();
        lines.reverse();
        if lines.is_empty() {
            return unreachable(NOBODY);
        }
        let mut missing = None;
        let mut found: Option<Line> = None;
        for line in lines {
            if !self.answers(&line).await {
                continue;
            }
            let limit = self.patience.look;
            let server = self.over(line.clone()).server;
            let record = timeout(limit, server.session(session)).await;
            match record.unwrap_or(Err(ServerError::TimedOut(limit))) {
                Ok(record) => {
                    let own = record
                        .directory
                        .and_then(|directory| self.in_directory(&directory).into_iter().next());
                    found = Some(own.unwrap_or(line));
                    break;
                }
                Err(error @ ServerError::NotFound(_)) if missing.is_none() => missing = Some(error),
                Err(ServerError::NotFound(_)) => {}
                // Who does not answer may be the one that has it.
                Err(error) => return Err(ServerError::Unreachable(error.to_string())),
            }
        }
        match (found, missing) {
            (Some(line), _) => {
                let route = self.over(line);
                self.sessions().name(session, &route.owner);
                Ok(route)
            }
            (None, Some(missing)) => Err(missing),
            (None, None) => unreachable(NOBODY),
        }
    }
}

/// Host and port of a URL; every name of this machine is one.
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

/// True if there is certainly no such process on this machine. A bridge of another machine may look so too: it has still
/// its time to come back.
fn is_dead(pid: u32) -> bool {
    use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
    // Zero and what is negative would name groups.
    match i32::try_from(pid) {
        Ok(pid) if pid > 0 => kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_not_there_is_dead() {
        assert!(!is_dead(std::process::id()));
        assert!(!is_dead(0));
        assert!(!is_dead(u32::MAX));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(is_dead(child.id()));
    }

    #[test]
    fn one_server_by_two_names_is_one() {
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
