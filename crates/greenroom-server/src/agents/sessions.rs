//! The table of sessions and the agent servers that own them. The first server that named a session in an event, a tool
//! call or the creation of the session owns it, until its bridge is gone or it is proven to work elsewhere. Pure: [`super::routes`] and [`super::sink`] read and write the table.

use greenroom::domain::ids::SessionId;
use greenroom_bridge::BridgeKey;

use super::generational_cache::GenerationalCache;

/// Maximum number of working sessions in the table. Their owner cannot be found out otherwise.
pub const MAX_WORKING: usize = 100_000;
/// Maximum number of idle sessions in the table: waiting parents, children that may be resumed. A session beyond this
/// number is unknown, as all sessions are after a restart, and the router asks the connected servers for it.
pub const MAX_IDLE: usize = 10_000;

/// The owner of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// An opencode process with a bridge.
    Bridge(BridgeKey),
    /// The opencode at the URL.
    Url,
}

/// The state of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEntry {
    /// The owner.
    pub owner: Owner,
    /// The parent session. Known only for sessions that the service created.
    pub parent: Option<SessionId>,
    /// The title of a new session that is not yet announced to the process of its parent.
    pub unannounced_title: Option<String>,
    /// The working directory. Known only for sessions that the service created.
    pub directory: Option<String>,
    /// True if the service has made a call for the session. Only then its status matters.
    pub called: bool,
}

/// A bounded table of sessions.
#[derive(Debug)]
pub struct SessionTable {
    /// Sessions of the service that were last reported as busy. Without a status their state is unknown, not idle.
    working: GenerationalCache<SessionEntry>,
    idle: GenerationalCache<SessionEntry>,
}

impl Default for SessionTable {
    fn default() -> Self {
        Self::with_capacity(MAX_WORKING, MAX_IDLE)
    }
}

impl SessionTable {
    /// Creates a table for at most `working` busy and `idle` other sessions.
    pub fn with_capacity(working: usize, idle: usize) -> Self {
        Self {
            working: GenerationalCache::with_capacity(working),
            idle: GenerationalCache::with_capacity(idle),
        }
    }

    /// Returns the entry of a session and marks it as recently used.
    pub fn get(&mut self, session: &SessionId) -> Option<&SessionEntry> {
        self.entry(session).map(|entry| &*entry)
    }

    fn entry(&mut self, session: &SessionId) -> Option<&mut SessionEntry> {
        match self.working.get(session) {
            Some(entry) => Some(entry),
            None => self.idle.get(session),
        }
    }

    /// Sets the owner of a session that an event of `by` has named. A session moves to another process only if its owner
    /// is not `is_connected`: processes of one folder share their sessions, so an event of a second process proves nothing.
    /// Returns false if it stays with another owner.
    pub fn name(
        &mut self,
        session: &SessionId,
        by: &BridgeKey,
        is_connected: impl FnOnce(&BridgeKey) -> bool,
    ) -> bool {
        if let Some(SessionEntry {
            owner: Owner::Bridge(owner),
            ..
        }) = self.get(session)
        {
            if owner == by {
                return true;
            }
            // One process is one server, whatever the directory of its bridge.
            if owner.pid != by.pid && is_connected(owner) {
                return false;
            }
        }
        self.set_owner(session, &Owner::Bridge(by.clone()));
        true
    }

    /// Sets the owner of a session.
    pub fn set_owner(&mut self, session: &SessionId, owner: &Owner) {
        if let Some(entry) = self.entry(session) {
            if entry.owner != *owner {
                entry.owner = owner.clone();
            }
            return;
        }
        let entry = SessionEntry {
            owner: owner.clone(),
            parent: None,
            unannounced_title: None,
            directory: None,
            called: false,
        };
        self.idle.insert(session.clone(), entry);
    }

    /// Marks that the service has made a call for the session.
    pub fn mark_called(&mut self, session: &SessionId) {
        if let Some(entry) = self.entry(session) {
            entry.called = true;
        }
    }

    /// Inserts a session that the service created. It may already be in the table as working.
    pub fn insert_created(&mut self, session: SessionId, entry: SessionEntry) {
        match self.working.get(&session) {
            Some(named) => *named = entry,
            None => self.idle.insert(session, entry),
        }
    }

    /// Returns the parent and the title of a new session at the first call, then none.
    pub fn take_announcement(&mut self, session: &SessionId) -> Option<(SessionId, String)> {
        let entry = self.entry(session)?;
        Some((entry.parent.clone()?, entry.unannounced_title.take()?))
    }

    /// Records whether a session works. Ignored for sessions that the service has made no call for.
    pub fn set_working(&mut self, session: &SessionId, working: bool) {
        let (from, to) = if working {
            (&mut self.idle, &mut self.working)
        } else {
            (&mut self.working, &mut self.idle)
        };
        if from.get(session).is_some_and(|entry| entry.called)
            && let Some(entry) = from.remove(session)
        {
            to.insert(session.clone(), entry);
        }
        // Marks the parent as used: it gets a message when the child ends.
        let parent = self.entry(session).and_then(|entry| entry.parent.clone());
        if let Some(parent) = parent {
            self.entry(&parent);
        }
    }

    /// Removes a session that no longer exists.
    pub fn remove(&mut self, session: &SessionId) {
        self.working.remove(session);
        self.idle.remove(session);
    }

    /// Returns the working sessions that a status call for `directory` covers, with their owners.
    pub fn working_in(&self, directory: &str) -> Vec<(SessionId, Owner)> {
        let entry = self.working.iter().filter_map(|(session, entry)| {
            let at = match (&entry.directory, &entry.owner) {
                (Some(made_in), _) => made_in.as_str(),
                (None, Owner::Bridge(key)) => &key.directory,
                // The directory is unknown.
                (None, Owner::Url) => directory,
            };
            same_directory(at, directory).then(|| (session.clone(), entry.owner.clone()))
        });
        entry.collect()
    }

    /// Returns the number of sessions.
    pub fn len(&self) -> usize {
        self.working.len() + self.idle.len()
    }

    /// Returns true if the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Returns true if two paths name the same directory. Compares the text without trailing slashes.
pub fn same_directory(one: &str, other: &str) -> bool {
    let trimmed = |text: &str| match text.trim_end_matches('/') {
        "" => "/".to_owned(),
        text => text.to_owned(),
    };
    trimmed(one) == trimmed(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(pid: u32) -> Owner {
        Owner::Bridge(BridgeKey {
            pid,
            directory: "/p".into(),
        })
    }

    fn session(number: usize) -> SessionId {
        SessionId::from(format!("ses_{number}"))
    }

    #[test]
    fn last_owner_wins() {
        let mut sessions = SessionTable::default();
        assert_eq!(sessions.get(&session(1)), None);
        for owner in [bridge(1), bridge(2), Owner::Url, bridge(1)] {
            sessions.set_owner(&session(1), &owner);
            assert_eq!(sessions.get(&session(1)).unwrap().owner, owner);
        }
    }

    #[test]
    fn connected_owner_keeps_its_session() {
        let mut sessions = SessionTable::default();
        let key = |pid| BridgeKey {
            pid,
            directory: "/p".into(),
        };
        assert!(sessions.name(&session(1), &key(1), |_| true));
        assert!(!sessions.name(&session(1), &key(2), |owner| owner.pid == 1));
        assert_eq!(sessions.get(&session(1)).unwrap().owner, bridge(1));
        assert!(sessions.name(&session(1), &key(1), |_| true));
        assert!(sessions.name(&session(1), &key(2), |_| false));
        assert_eq!(sessions.get(&session(1)).unwrap().owner, bridge(2));
        // The URL serves what no bridge holds.
        sessions.set_owner(&session(2), &Owner::Url);
        assert!(sessions.name(&session(2), &key(1), |_| true));
        assert_eq!(sessions.get(&session(2)).unwrap().owner, bridge(1));
    }

    #[test]
    fn table_is_bounded_and_keeps_used_entries() {
        let mut sessions = SessionTable::with_capacity(60, 40);
        sessions.set_owner(&session(0), &bridge(1));
        for number in 1..10_000 {
            sessions.set_owner(&session(number), &bridge(2));
            sessions.mark_called(&session(number));
            sessions.set_working(&session(number), number % 2 == 0);
            assert_eq!(sessions.get(&session(0)).unwrap().owner, bridge(1));
            assert!(sessions.len() <= 100);
        }
        assert_eq!(sessions.get(&session(1)), None);
        assert_eq!(sessions.get(&session(2)), None);
        assert_eq!(sessions.get(&session(9_998)).unwrap().owner, bridge(2));
        assert_eq!(sessions.get(&session(9_999)).unwrap().owner, bridge(2));
    }

    #[test]
    fn idle_parent_is_kept_while_its_child_works() {
        let mut sessions = SessionTable::with_capacity(10, 10);
        let (parent, child) = (session(1), session(2));
        sessions.set_owner(&parent, &bridge(1));
        let created = SessionEntry {
            owner: bridge(1),
            parent: Some(parent.clone()),
            unannounced_title: None,
            directory: None,
            called: true,
        };
        sessions.insert_created(child.clone(), created);
        for number in 3..100 {
            sessions.set_owner(&session(number), &bridge(2));
            sessions.set_working(&child, true);
        }
        assert_eq!(sessions.get(&session(50)), None);
        let entry = sessions.get(&parent);
        assert_eq!(entry.map(|entry| &entry.owner), Some(&bridge(1)));
    }

    #[test]
    fn ended_sessions_are_evicted_before_working_ones() {
        let mut sessions = SessionTable::default();
        let mut life = |number: usize, ends: bool| {
            let created = SessionEntry {
                owner: bridge(1),
                parent: None,
                unannounced_title: None,
                directory: Some("/p".to_owned()),
                called: true,
            };
            sessions.insert_created(session(number), created);
            sessions.set_working(&session(number), true);
            if ends {
                sessions.set_working(&session(number), false);
            }
            sessions.len()
        };
        life(0, false);
        for number in 1..3 * MAX_IDLE {
            assert!(life(number, true) <= MAX_IDLE + 1);
        }
        assert_eq!(sessions.working_in("/p"), [(session(0), bridge(1))]);
        assert_eq!(sessions.get(&session(0)).unwrap().owner, bridge(1));
    }

    #[test]
    fn child_is_announced_once() {
        let mut sessions = SessionTable::default();
        let created = SessionEntry {
            owner: bridge(1),
            parent: Some(session(1)),
            unannounced_title: Some("t".to_owned()),
            directory: Some("/elsewhere".to_owned()),
            called: true,
        };
        sessions.insert_created(session(2), created);
        assert_eq!(
            sessions.take_announcement(&session(2)),
            Some((session(1), "t".to_owned()))
        );
        assert_eq!(sessions.take_announcement(&session(2)), None);
        assert_eq!(sessions.take_announcement(&session(1)), None);
    }

    #[test]
    fn working_sessions_are_listed_by_directory() {
        let mut sessions = SessionTable::default();
        sessions.set_owner(&session(1), &bridge(1));
        sessions.set_owner(&session(2), &bridge(1));
        sessions.set_owner(&session(4), &bridge(1));
        sessions.mark_called(&session(1));
        sessions.mark_called(&session(2));
        sessions.set_working(&session(4), true);
        sessions.set_working(&session(1), true);
        sessions.set_working(&session(2), true);
        sessions.set_working(&session(3), true);
        sessions.set_working(&session(2), false);
        assert_eq!(sessions.working_in("/p/"), [(session(1), bridge(1))]);
        assert!(sessions.working_in("/q").is_empty());
        sessions.remove(&session(1));
        assert!(sessions.working_in("/p").is_empty());
    }
}
