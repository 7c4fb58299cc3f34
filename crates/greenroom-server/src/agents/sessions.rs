//! Which process a session belongs to: the one that named it last, in an event, a call of a tool, or by making it for us.
//! Pure: whoever routes calls asks, and tells what it has learned.

use std::collections::{HashMap, HashSet};

use greenroom::domain::ids::SessionId;
use greenroom_bridge::BridgeKey;

/// Sessions remembered: the newest half for certain, of the older half those that were used since.
pub const REMEMBERED: usize = 100_000;

/// To whom a session belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// An opencode process with a bridge.
    Bridge(BridgeKey),
    /// The opencode at the URL.
    Url,
}

/// What is known of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Who has it.
    pub owner: Owner,
    /// Whose child it is, if it was made through us.
    pub parent: Option<SessionId>,
    /// What it was called when it was made, until its parent's process has been told of it.
    pub untold: Option<String>,
    /// Where it works, if it was made through us.
    pub directory: Option<String>,
    /// True if we have ever called for it: what it does concerns us.
    pub ours: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Sessions {
    half: usize,
    young: HashMap<SessionId, Known>,
    old: HashMap<SessionId, Known>,
    /// Sessions that were last known to work: what is not known of them is not "idle". Forgotten with the session.
    active: HashSet<SessionId>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::remembering(REMEMBERED)
    }
}

impl Sessions {
    /// Remembers that many.
    pub fn remembering(count: usize) -> Self {
        Self {
            half: (count / 2).max(1),
            young: HashMap::new(),
            old: HashMap::new(),
            active: HashSet::new(),
        }
    }

    /// What is known of it. Who asks uses it.
    pub fn get(&mut self, session: &SessionId) -> Option<&Known> {
        if !self.young.contains_key(session) {
            let known = self.old.remove(session)?;
            self.keep(session.clone(), known);
        }
        self.young.get(session)
    }

    /// It belongs to `owner` from now on.
    pub fn name(&mut self, session: &SessionId, owner: &Owner) {
        if self.get(session).is_some_and(|known| known.owner == *owner) {
            return;
        }
        if let Some(known) = self.young.get_mut(session) {
            known.owner = owner.clone();
            return;
        }
        let known = Known {
            owner: owner.clone(),
            parent: None,
            untold: None,
            directory: None,
            ours: false,
        };
        self.keep(session.clone(), known);
    }

    /// We call for it.
    pub fn called(&mut self, session: &SessionId) {
        if self.get(session).is_some_and(|known| !known.ours)
            && let Some(known) = self.young.get_mut(session)
        {
            known.ours = true;
        }
    }

    /// It was made through us.
    pub fn made(&mut self, session: SessionId, known: Known) {
        self.keep(session, known);
    }

    /// Its parent and title, once: its process is told of it now.
    pub fn tell(&mut self, session: &SessionId) -> Option<(SessionId, String)> {
        self.get(session)?;
        let known = self.young.get_mut(session)?;
        Some((known.parent.clone()?, known.untold.take()?))
    }

    /// Whether it works, as far as anybody has said. What is none of ours concerns nobody.
    pub fn works(&mut self, session: &SessionId, works: bool) {
        if !works {
            self.active.remove(session);
        } else if self.get(session).is_some_and(|known| known.ours) {
            self.active.insert(session.clone());
        }
    }

    /// It is no more.
    pub fn forget(&mut self, session: &SessionId) {
        self.young.remove(session);
        self.old.remove(session);
        self.active.remove(session);
    }

    /// Those last known to work that may be asked about by `directory`, with their owners.
    pub fn working_in(&self, directory: &str) -> Vec<(SessionId, Owner)> {
        let known = self.active.iter().filter_map(|session| {
            let known = self.young.get(session).or_else(|| self.old.get(session))?;
            let at = match (&known.directory, &known.owner) {
                (Some(made_in), _) => made_in.as_str(),
                (None, Owner::Bridge(key)) => &key.directory,
                // It may be anywhere.
                (None, Owner::Url) => directory,
            };
            same_directory(at, directory).then(|| (session.clone(), known.owner.clone()))
        });
        known.collect()
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// True if none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn keep(&mut self, session: SessionId, known: Known) {
        self.old.remove(&session);
        if self.young.len() >= self.half && !self.young.contains_key(&session) {
            self.old = std::mem::take(&mut self.young);
            let (old, active) = (&self.old, &mut self.active);
            active.retain(|session| old.contains_key(session));
        }
        self.young.insert(session, known);
    }
}

/// True if two texts name the same folder, as far as texts tell.
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
    fn a_session_belongs_to_whoever_named_it_last() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.get(&session(1)), None);
        for owner in [bridge(1), bridge(2), Owner::Url, bridge(1)] {
            sessions.name(&session(1), &owner);
            assert_eq!(sessions.get(&session(1)).unwrap().owner, owner);
        }
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_used() {
        let mut sessions = Sessions::remembering(100);
        sessions.name(&session(0), &bridge(1));
        for number in 1..10_000 {
            sessions.name(&session(number), &bridge(2));
            sessions.called(&session(number));
            sessions.works(&session(number), true);
            assert_eq!(sessions.get(&session(0)).unwrap().owner, bridge(1));
            assert!(sessions.len() <= 100);
            assert!(sessions.active.len() <= 100);
        }
        assert_eq!(sessions.get(&session(1)), None);
        assert_eq!(sessions.get(&session(9_999)).unwrap().owner, bridge(2));
    }

    #[test]
    fn a_process_is_told_of_a_child_once() {
        let mut sessions = Sessions::default();
        let made = Known {
            owner: bridge(1),
            parent: Some(session(1)),
            untold: Some("t".to_owned()),
            directory: Some("/elsewhere".to_owned()),
            ours: true,
        };
        sessions.made(session(2), made);
        assert_eq!(
            sessions.tell(&session(2)),
            Some((session(1), "t".to_owned()))
        );
        assert_eq!(sessions.tell(&session(2)), None);
        assert_eq!(sessions.tell(&session(1)), None);
    }

    #[test]
    fn who_works_is_known_by_directory() {
        let mut sessions = Sessions::default();
        sessions.name(&session(1), &bridge(1));
        sessions.name(&session(2), &bridge(1));
        sessions.name(&session(4), &bridge(1));
        sessions.called(&session(1));
        sessions.called(&session(2));
        sessions.works(&session(4), true);
        sessions.works(&session(1), true);
        sessions.works(&session(2), true);
        sessions.works(&session(3), true);
        sessions.works(&session(2), false);
        assert_eq!(sessions.working_in("/p/"), [(session(1), bridge(1))]);
        assert!(sessions.working_in("/q").is_empty());
        sessions.forget(&session(1));
        assert!(sessions.working_in("/p").is_empty());
    }
}
