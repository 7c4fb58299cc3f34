//! The table of sessions and the agent servers that own them. The first server that named a session in an event, a tool
//! call or the creation of the session owns it, until its bridge is gone or it is proven to work elsewhere. The owners of
//! sessions that the service works for are sent to the journal. [`super::routes`] and [`super::sink`] read and write the table.

use greenroom::domain::ids::SessionId;
use greenroom::domain::session_owner::SessionOwner;
use greenroom_bridge::BridgeKey;
use tokio::sync::mpsc;

use super::generational_cache::GenerationalCache;

/// Maximum number of working sessions in the table. Their owner cannot be found out otherwise.
pub const MAX_WORKING: usize = 100_000;
/// Maximum number of idle sessions of the service in the table: waiting parents, children that may be resumed. A session
/// beyond this number is unknown, and the router asks the connected servers for it.
pub const MAX_RECORDED: usize = 100_000;
/// Maximum number of other sessions in the table. Any event of a bridge adds one, so they have a bound of their own: a bridge
/// that names many sessions removes no owner of a session of the service.
pub const MAX_NAMED: usize = 10_000;

/// Maximum number of changes of owners on their way to the journal. A change beyond this number is not recorded: after a
/// restart the router asks the connected servers for the session.
pub const MAX_UNRECORDED: usize = 10_000;

/// A change of a session's owner; none if no process owns it.
pub type OwnerChange = (SessionId, Option<SessionOwner>);

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
    /// The owner as last sent to the journal; none if the owner is not recorded.
    pub recorded: Option<Owner>,
}

impl SessionEntry {
    /// Creates an entry of a session about which nothing but its owner is known.
    pub fn owned_by(owner: Owner) -> Self {
        Self {
            owner,
            parent: None,
            unannounced_title: None,
            directory: None,
            called: false,
            recorded: None,
        }
    }
}

/// A bounded table of sessions.
#[derive(Debug)]
pub struct SessionTable {
    /// Sessions of the service that were last reported as busy. Without a status their state is unknown, not idle.
    working: GenerationalCache<SessionEntry>,
    /// The other sessions whose owner is recorded.
    recorded: GenerationalCache<SessionEntry>,
    /// Sessions that were only named by their owner.
    named: GenerationalCache<SessionEntry>,
    changes: Option<mpsc::Sender<OwnerChange>>,
}

impl Default for SessionTable {
    fn default() -> Self {
        Self::with_capacity(MAX_WORKING, MAX_RECORDED, MAX_NAMED)
    }
}

impl SessionTable {
    /// Creates a table for at most `working` busy sessions, `recorded` idle ones of the service, and `named` others.
    pub fn with_capacity(working: usize, recorded: usize, named: usize) -> Self {
        Self {
            working: GenerationalCache::with_capacity(working),
            recorded: GenerationalCache::with_capacity(recorded),
            named: GenerationalCache::with_capacity(named),
            changes: None,
        }
    }

    /// Returns the changes of recorded owners from now on.
    pub fn owner_changes(&mut self) -> mpsc::Receiver<OwnerChange> {
        let (changes, receiver) = mpsc::channel(MAX_UNRECORDED);
        self.changes = Some(changes);
        receiver
    }

    /// Restores owners that an earlier process recorded.
    pub fn restore(&mut self, owners: impl IntoIterator<Item = (SessionId, SessionOwner)>) {
        for (session, SessionOwner { pid, directory }) in owners {
            let owner = Owner::Bridge(BridgeKey { pid, directory });
            let mut entry = SessionEntry::owned_by(owner.clone());
            entry.recorded = Some(owner);
            self.recorded.insert(session, entry);
        }
    }

    /// Marks a restored session as working in a directory: the run in it goes on. Unknown sessions are ignored.
    pub fn restore_working(&mut self, session: &SessionId, directory: Option<&str>) {
        if let Some(entry) = self.entry(session) {
            entry.called = true;
            if entry.directory.is_none() {
                entry.directory = directory.map(str::to_owned);
            }
            self.set_working(session, true);
        }
    }

    /// Records the owner of a session from now on: the service works for it.
    pub fn record_owner(&mut self, session: &SessionId) {
        if let Some(entry) = self.named.remove(session) {
            self.recorded.insert(session.clone(), entry);
        }
        let changes = self.changes.clone();
        if let Some(entry) = self.entry(session) {
            let recorded = entry.recorded.replace(entry.owner.clone());
            if recorded.as_ref() != Some(&entry.owner) {
                send_change(changes, session, recorded.as_ref(), &entry.owner);
            }
        }
    }

    /// Returns the entry of a session and marks it as recently used.
    pub fn get(&mut self, session: &SessionId) -> Option<&SessionEntry> {
        self.entry(session).map(|entry| &*entry)
    }

    fn entry(&mut self, session: &SessionId) -> Option<&mut SessionEntry> {
        if let Some(entry) = self.working.get(session) {
            return Some(entry);
        }
        if let Some(entry) = self.recorded.get(session) {
            return Some(entry);
        }
        self.named.get(session)
    }

    /// Sets the owner of a session that an event of `by` has named. A session moves to another process only if its owner
    /// is not `is_connected`: processes of one folder share their sessions, so an event of a second process proves nothing. A
    /// session of the service at the URL stays there if the URL has events of its own.
    /// Returns false if it stays with another owner.
    pub fn name(
        &mut self,
        session: &SessionId,
        by: &BridgeKey,
        url_has_events: bool,
        is_connected: impl FnOnce(&BridgeKey) -> bool,
    ) -> bool {
        match self.get(session) {
            Some(SessionEntry {
                owner: Owner::Bridge(owner),
                ..
            }) => {
                if owner == by {
                    return true;
                }
                // One process is one server, whatever the directory of its bridge.
                if owner.pid != by.pid && is_connected(owner) {
                    return false;
                }
            }
            Some(entry) if url_has_events && entry.recorded.is_some() => return false,
            _ => {}
        }
        self.set_owner(session, &Owner::Bridge(by.clone()));
        true
    }

    /// Sets the owner of a session.
    pub fn set_owner(&mut self, session: &SessionId, owner: &Owner) {
        if let Some(entry) = self.entry(session) {
            if entry.owner != *owner {
                entry.owner = owner.clone();
                if entry.recorded.is_some() {
                    self.record_owner(session);
                }
            }
            return;
        }
        let entry = SessionEntry::owned_by(owner.clone());
        self.named.insert(session.clone(), entry);
    }

    /// Marks that the service has made a call for the session.
    pub fn mark_called(&mut self, session: &SessionId) {
        if let Some(entry) = self.entry(session) {
            entry.called = true;
            self.record_owner(session);
        }
    }

    /// Inserts a session that the service created. An event may have named it before. Returns false if another server owns
    /// a session of this id: a server must not get the session of another one by answering with its id.
    pub fn insert_created(&mut self, session: SessionId, entry: SessionEntry) -> bool {
        let known = self.get(&session);
        let is_of_another = known.is_some_and(|known| match (&known.owner, &entry.owner) {
            (Owner::Bridge(owner), Owner::Bridge(by)) => owner.pid != by.pid,
            // The plugin of the process at the URL may have named the new session.
            (Owner::Bridge(_), Owner::Url) => known.recorded.is_some(),
            (Owner::Url, by) => *by != Owner::Url,
        });
        if is_of_another {
            return false;
        }
        let parent = entry.parent.clone();
        match self.working.get(&session) {
            Some(named) => *named = entry,
            None => {
                self.named.remove(&session);
                self.recorded.insert(session.clone(), entry);
            }
        }
        self.record_owner(&session);
        // The parent is notified when the session ends.
        if let Some(parent) = parent {
            self.record_owner(&parent);
        }
        true
    }

    /// Returns the parent and the title of a new session at the first call, then none.
    pub fn take_announcement(&mut self, session: &SessionId) -> Option<(SessionId, String)> {
        let entry = self.entry(session)?;
        Some((entry.parent.clone()?, entry.unannounced_title.take()?))
    }

    /// Records whether a session works. Ignored for sessions that the service has made no call for.
    pub fn set_working(&mut self, session: &SessionId, working: bool) {
        let (from, to) = if working {
            (&mut self.recorded, &mut self.working)
        } else {
            (&mut self.working, &mut self.recorded)
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
        let removed = self.working.remove(session);
        let removed = removed.or_else(|| self.recorded.remove(session));
        let removed = removed.or_else(|| self.named.remove(session));
        if let Some(recorded) = removed.and_then(|entry| entry.recorded) {
            send_change(self.changes.clone(), session, Some(&recorded), &Owner::Url);
        }
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
        self.working.len() + self.recorded.len() + self.named.len()
    }

    /// Returns true if the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn send_change(
    changes: Option<mpsc::Sender<OwnerChange>>,
    session: &SessionId,
    from: Option<&Owner>,
    to: &Owner,
) {
    let owner = match (from, to) {
        (_, Owner::Bridge(BridgeKey { pid, directory })) => Some(SessionOwner {
            pid: *pid,
            directory: directory.clone(),
        }),
        (Some(Owner::Bridge(_)), Owner::Url) => None,
        // The URL is not recorded.
        (None | Some(Owner::Url), Owner::Url) => return,
    };
    if let Some(changes) = changes
        && changes.try_send((session.clone(), owner)).is_err()
    {
        tracing::warn!(%session, "could not record the owner of a session: too many changes");
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
        assert!(sessions.name(&session(1), &key(1), false, |_| true));
        assert!(!sessions.name(&session(1), &key(2), false, |owner| owner.pid == 1));
        assert_eq!(sessions.get(&session(1)).unwrap().owner, bridge(1));
        assert!(sessions.name(&session(1), &key(1), false, |_| true));
        assert!(sessions.name(&session(1), &key(2), false, |_| false));
        assert_eq!(sessions.get(&session(1)).unwrap().owner, bridge(2));
        // The URL serves what no bridge holds.
        sessions.set_owner(&session(2), &Owner::Url);
        assert!(sessions.name(&session(2), &key(1), true, |_| true));
        assert_eq!(sessions.get(&session(2)).unwrap().owner, bridge(1));
        // But the sessions of the service stay with a URL that has events.
        sessions.set_owner(&session(3), &Owner::Url);
        sessions.mark_called(&session(3));
        assert!(!sessions.name(&session(3), &key(1), true, |_| true));
        assert_eq!(sessions.get(&session(3)).unwrap().owner, Owner::Url);
        assert!(sessions.name(&session(3), &key(1), false, |_| true));
    }

    #[test]
    fn answer_with_the_id_of_another_servers_session_is_refused() {
        let mut sessions = SessionTable::default();
        sessions.set_owner(&session(1), &bridge(1));
        assert!(!sessions.insert_created(session(1), SessionEntry::owned_by(bridge(2))));
        sessions.record_owner(&session(1));
        for other in [bridge(2), Owner::Url] {
            assert!(!sessions.insert_created(session(1), SessionEntry::owned_by(other)));
            assert_eq!(sessions.get(&session(1)).unwrap().owner, bridge(1));
        }
        assert!(sessions.insert_created(session(1), SessionEntry::owned_by(bridge(1))));
        assert!(sessions.insert_created(session(2), SessionEntry::owned_by(bridge(2))));
    }

    #[test]
    fn owners_of_sessions_with_work_are_recorded() {
        let mut sessions = SessionTable::default();
        let mut changes = sessions.owner_changes();
        let owner = |pid| {
            Some(SessionOwner {
                pid,
                directory: "/p".into(),
            })
        };
        // A session of the user alone.
        sessions.set_owner(&session(1), &bridge(1));
        sessions.set_owner(&session(1), &bridge(2));
        assert!(changes.try_recv().is_err());
        let created = SessionEntry {
            parent: Some(session(1)),
            ..SessionEntry::owned_by(bridge(2))
        };
        sessions.insert_created(session(2), created);
        assert_eq!(changes.try_recv().unwrap(), (session(2), owner(2)));
        assert_eq!(changes.try_recv().unwrap(), (session(1), owner(2)));
        sessions.set_owner(&session(1), &bridge(2));
        assert!(changes.try_recv().is_err());
        sessions.set_owner(&session(1), &bridge(3));
        assert_eq!(changes.try_recv().unwrap(), (session(1), owner(3)));
        sessions.remove(&session(2));
        assert_eq!(changes.try_recv().unwrap(), (session(2), None));
        // The URL is no process.
        sessions.set_owner(&session(4), &Owner::Url);
        sessions.mark_called(&session(4));
        assert!(changes.try_recv().is_err());

        let mut restored = SessionTable::default();
        let mut changes = restored.owner_changes();
        restored.restore([(session(1), owner(3).unwrap())]);
        restored.mark_called(&session(1));
        assert_eq!(restored.get(&session(1)).unwrap().owner, bridge(3));
        assert!(changes.try_recv().is_err(), "it is recorded already");
    }

    #[test]
    fn named_sessions_remove_no_recorded_one() {
        let mut sessions = SessionTable::with_capacity(10, 10, 10);
        let (waiting_parent, child, restored) = (session(1), session(2), session(3));
        sessions.set_owner(&waiting_parent, &bridge(1));
        sessions.record_owner(&waiting_parent);
        sessions.insert_created(child.clone(), SessionEntry::owned_by(bridge(1)));
        let owner = SessionOwner {
            pid: 1,
            directory: "/p".into(),
        };
        sessions.restore([(restored.clone(), owner)]);
        for number in 10..200 {
            sessions.set_owner(&session(number), &bridge(2));
        }
        assert_eq!(sessions.get(&session(100)), None);
        for kept in [waiting_parent, child, restored] {
            assert_eq!(sessions.get(&kept).unwrap().owner, bridge(1));
        }
        assert!(sessions.len() <= 30);
    }

    #[test]
    fn table_is_bounded_and_keeps_used_entries() {
        let mut sessions = SessionTable::with_capacity(60, 20, 20);
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
        let mut sessions = SessionTable::with_capacity(10, 10, 10);
        let (parent, child) = (session(1), session(2));
        sessions.set_owner(&parent, &bridge(1));
        let created = SessionEntry {
            parent: Some(parent.clone()),
            called: true,
            ..SessionEntry::owned_by(bridge(1))
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
                directory: Some("/p".to_owned()),
                called: true,
                ..SessionEntry::owned_by(bridge(1))
            };
            sessions.insert_created(session(number), created);
            sessions.set_working(&session(number), true);
            if ends {
                sessions.set_working(&session(number), false);
            }
            sessions.len()
        };
        life(0, false);
        for number in 1..2 * MAX_RECORDED {
            assert!(life(number, true) <= MAX_RECORDED + 1);
        }
        assert_eq!(sessions.working_in("/p"), [(session(0), bridge(1))]);
        assert_eq!(sessions.get(&session(0)).unwrap().owner, bridge(1));
    }

    #[test]
    fn child_is_announced_once() {
        let mut sessions = SessionTable::default();
        let created = SessionEntry {
            parent: Some(session(1)),
            unannounced_title: Some("t".to_owned()),
            directory: Some("/elsewhere".to_owned()),
            called: true,
            ..SessionEntry::owned_by(bridge(1))
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
