//! What is known of a bounded number of sessions: the newest half for certain, of the older half those that were used
//! since. Costs little more than a map: nothing is put in order, half of it is let go of at a time. Owned by
//! [`super::sessions`].

use std::collections::HashMap;

use greenroom::domain::ids::SessionId;

/// See the module.
#[derive(Debug)]
pub(super) struct Newest<V> {
    half: usize,
    young: HashMap<SessionId, V>,
    old: HashMap<SessionId, V>,
}

impl<V> Newest<V> {
    /// Of that many at most.
    pub(super) fn of(count: usize) -> Self {
        Self {
            half: (count / 2).max(1),
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// What is known of it. Who asks uses it.
    pub(super) fn get(&mut self, session: &SessionId) -> Option<&mut V> {
        if let Some(known) = self.old.remove(session) {
            self.put(session.clone(), known);
        }
        self.young.get_mut(session)
    }

    /// That is known of it from now on.
    pub(super) fn put(&mut self, session: SessionId, known: V) {
        self.old.remove(&session);
        if self.young.len() >= self.half && !self.young.contains_key(&session) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(session, known);
    }

    /// What was known of it.
    pub(super) fn take(&mut self, session: &SessionId) -> Option<V> {
        let young = self.young.remove(session);
        young.or_else(|| self.old.remove(session))
    }

    /// All of them, in no order. It uses none.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&SessionId, &V)> {
        self.young.iter().chain(&self.old)
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
