//! Which process a session belongs to: the one that named it last, in an event, a call of a tool, or by making it for us.
//! Pure: whoever routes calls asks, and tells what it has learned.

use greenroom::domain::ids::SessionId;
use greenroom_bridge::BridgeKey;

use super::newest::Newest;

/// Sessions at work that are remembered. Whose they are cannot be asked of anybody else.
pub const AT_WORK: usize = 100_000;
/// Sessions at rest that are remembered: parents that wait, children that may be resumed. Beyond them a session is one
/// that nobody has named, as all are after a restart: whoever is connected is asked for it.
pub const AT_REST: usize = 10_000;

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
    /// Ours that were last known to work: what is not known of them is not "idle".
    at_work: Newest<Known>,
    at_rest: Newest<Known>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::remembering(AT_WORK, AT_REST)
    }
}

impl Sessions {
    /// Remembers that many of each.
    pub fn remembering(at_work: usize, at_rest: usize) -> Self {
        Self {
            at_work: Newest::of(at_work),
            at_rest: Newest::of(at_rest),
        }
    }

    /// What is known of it. Who asks uses it.
    pub fn get(&mut self, session: &SessionId) -> Option<&Known> {
        self.known(session).map(|known| &*known)
    }

    fn known(&mut self, session: &SessionId) -> Option<&mut Known> {
        match self.at_work.get(session) {
            Some(known) => Some(known),
            None => self.at_rest.get(session),
        }
    }

    /// It belongs to `owner` from now on.
    pub fn name(&mut self, session: &SessionId, owner: &Owner) {
        if let Some(known) = self.known(session) {
            if known.owner != *owner {
                known.owner = owner.clone();
            }
            return;
        }
        let known = Known {
            owner: owner.clone(),
            parent: None,
            untold: None,
            directory: None,
            ours: false,
        };
        self.at_rest.put(session.clone(), known);
    }

    /// We call for it.
    pub fn called(&mut self, session: &SessionId) {
        if let Some(known) = self.known(session) {
            known.ours = true;
        }
    }

    /// It was made through us. It may be known to work already.
    pub fn made(&mut self, session: SessionId, known: Known) {
        match self.at_work.get(&session) {
            Some(named) => *named = known,
            None => self.at_rest.put(session, known),
        }
    }

    /// Its parent and title, once: its process is told of it now.
    pub fn tell(&mut self, session: &SessionId) -> Option<(SessionId, String)> {
        let known = self.known(session)?;
        Some((known.parent.clone()?, known.untold.take()?))
    }

    /// Whether it works, as far as anybody has said. What is none of ours concerns nobody.
    pub fn works(&mut self, session: &SessionId, works: bool) {
        let (from, to) = match works {
            true => (&mut self.at_rest, &mut self.at_work),
            false => (&mut self.at_work, &mut self.at_rest),
        };
        if from.get(session).is_some_and(|known| known.ours)
            && let Some(known) = from.take(session)
        {
            to.put(session.clone(), known);
        }
        // Its parent is to be told of it, however long that rests meanwhile.
        let parent = self.known(session).and_then(|known| known.parent.clone());
        if let Some(parent) = parent {
            self.known(&parent);
        }
    }

    /// It is no more.
    pub fn forget(&mut self, session: &SessionId) {
        self.at_work.take(session);
        self.at_rest.take(session);
    }

    /// Those last known to work that may be asked about by `directory`, with their owners.
    pub fn working_in(&self, directory: &str) -> Vec<(SessionId, Owner)> {
        let known = self.at_work.iter().filter_map(|(session, known)| {
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
        self.at_work.len() + self.at_rest.len()
    }

    /// True if none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        let mut sessions = Sessions::remembering(60, 40);
        sessions.name(&session(0), &bridge(1));
        for number in 1..10_000 {
            sessions.name(&session(number), &bridge(2));
            sessions.called(&session(number));
            sessions.works(&session(number), number % 2 == 0);
            assert_eq!(sessions.get(&session(0)).unwrap().owner, bridge(1));
            assert!(sessions.len() <= 100);
        }
        assert_eq!(sessions.get(&session(1)), None);
        assert_eq!(sessions.get(&session(2)), None);
        assert_eq!(sessions.get(&session(9_998)).unwrap().owner, bridge(2));
        assert_eq!(sessions.get(&session(9_999)).unwrap().owner, bridge(2));
    }

    #[test]
    fn a_parent_at_rest_is_remembered_for_as_long_as_its_child_says_that_it_works() {
        let mut sessions = Sessions::remembering(10, 10);
        let (parent, child) = (session(1), session(2));
        sessions.name(&parent, &bridge(1));
        let made = Known {
            owner: bridge(1),
            parent: Some(parent.clone()),
            untold: None,
            directory: None,
            ours: true,
        };
        sessions.made(child.clone(), made);
        for number in 3..100 {
            sessions.name(&session(number), &bridge(2));
            sessions.works(&child, true);
        }
        assert_eq!(sessions.get(&session(50)), None);
        let known = sessions.get(&parent);
        assert_eq!(known.map(|known| &known.owner), Some(&bridge(1)));
    }

    #[test]
    fn lives_that_are_over_give_way_and_one_that_works_does_not() {
        let mut sessions = Sessions::default();
        let mut life = |number: usize, ends: bool| {
            let made = Known {
                owner: bridge(1),
                parent: None,
                untold: None,
                directory: Some("/p".to_owned()),
                ours: true,
            };
            sessions.made(session(number), made);
            sessions.works(&session(number), true);
            if ends {
                sessions.works(&session(number), false);
            }
            sessions.len()
        };
        life(0, false);
        for number in 1..3 * AT_REST {
            assert!(life(number, true) <= AT_REST + 1);
        }
        assert_eq!(sessions.working_in("/p"), [(session(0), bridge(1))]);
        assert_eq!(sessions.get(&session(0)).unwrap().owner, bridge(1));
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
