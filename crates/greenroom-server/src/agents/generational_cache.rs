//! A bounded map from sessions to values, in two generations. An insertion into a full recent generation makes it the
//! previous one and drops the old previous one; a lookup moves an entry into the recent generation. The cache keeps at
//! least the most recent half of its capacity. Owned by [`super::sessions`].

use std::collections::HashMap;

use greenroom::domain::ids::SessionId;

/// A map that holds a bounded number of recently used entries.
#[derive(Debug)]
pub(super) struct GenerationalCache<V> {
    generation_capacity: usize,
    recent: HashMap<SessionId, V>,
    previous: HashMap<SessionId, V>,
}

impl<V> GenerationalCache<V> {
    /// Creates a cache for at most `count` entries.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self {
            generation_capacity: (count / 2).max(1),
            recent: HashMap::new(),
            previous: HashMap::new(),
        }
    }

    /// Returns the value of a session and marks it as recently used.
    pub(super) fn get(&mut self, session: &SessionId) -> Option<&mut V> {
        if let Some(value) = self.previous.remove(session) {
            self.insert(session.clone(), value);
        }
        self.recent.get_mut(session)
    }

    /// Inserts or replaces the value of a session.
    pub(super) fn insert(&mut self, session: SessionId, value: V) {
        self.previous.remove(&session);
        if self.recent.len() >= self.generation_capacity && !self.recent.contains_key(&session) {
            self.previous = std::mem::take(&mut self.recent);
        }
        self.recent.insert(session, value);
    }

    /// Removes the value of a session and returns it.
    pub(super) fn remove(&mut self, session: &SessionId) -> Option<V> {
        let recent = self.recent.remove(session);
        recent.or_else(|| self.previous.remove(session))
    }

    /// Iterates over all entries in no particular order. Does not mark them as used.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&SessionId, &V)> {
        self.recent.iter().chain(&self.previous)
    }

    /// Returns the number of entries.
    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.previous.len()
    }
}
