//! The judgement of aborts that the system did not request. The agent server aborts its own sessions when an instance
//! ends, and a person aborts a session whose instance lives on. The registry owns one [`AbortGrace`]; pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ids::SessionId;
use super::time::Timestamp;

/// An end of an instance up to this long before an abort explains the abort. The plugin's connection is closed before
/// the aborts, and the process of a terminal interface lives on for up to 5 s.
const END_BEFORE: Duration = Duration::from_secs(6);

/// Ends older than this no longer matter: the report of an abort may be late.
const KEEP_ENDS: Duration = Duration::from_secs(60);

/// How an abort is judged whose grace has passed without an end of its instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The instance lives on: a person aborted the session.
    Person,
    /// The abort was received before a restart of the service. It is a person's if a server serves the directory.
    PersonIfServed(Option<Arc<str>>),
}

#[derive(Debug)]
struct Pending {
    /// None if the directory is unknown: an end of any instance explains the abort.
    directory: Option<Arc<str>>,
    restored: bool,
}

/// The aborts that wait for their judgement, and the recent ends of instances.
#[derive(Debug)]
pub struct AbortGrace {
    grace: Duration,
    pending: BTreeMap<SessionId, Pending>,
    /// The last abort of each directory with pending aborts.
    last_aborts: BTreeMap<Option<Arc<str>>, Timestamp>,
    ends: BTreeMap<Arc<str>, Timestamp>,
    /// The last end of every instance at once.
    end_of_all: Option<Timestamp>,
    /// The last loss of the event stream.
    stream_lost: Option<Timestamp>,
}

impl AbortGrace {
    /// Creates the state without aborts. `grace` is `lifecycle.abort_grace`.
    pub fn new(grace: Duration) -> Self {
        Self {
            grace,
            pending: BTreeMap::new(),
            last_aborts: BTreeMap::new(),
            ends: BTreeMap::new(),
            end_of_all: None,
            stream_lost: None,
        }
    }

    /// Records an abort of a session at `at`. Returns true if the session was cut off: the instance has ended already, and
    /// not before the turn began. Otherwise the abort waits for its judgement.
    pub fn aborted(
        &mut self,
        session: &SessionId,
        directory: Option<Arc<str>>,
        at: Timestamp,
        turn_began: Option<Timestamp>,
    ) -> bool {
        if self.has_ended_since(directory.as_deref(), at, turn_began) {
            self.remove(session);
            return true;
        }
        self.add(session, directory, at, false);
        false
    }

    /// Records an abort that an earlier process received and did not judge. Its grace begins again.
    pub fn restored(&mut self, session: &SessionId, directory: Option<Arc<str>>, now: Timestamp) {
        self.add(session, directory, now, true);
    }

    /// Records the end of the instance of a directory, or of every instance. Returns the sessions that were cut off.
    pub fn instance_ended(
        &mut self,
        directory: Option<&Arc<str>>,
        at: Timestamp,
    ) -> Vec<SessionId> {
        self.ends.retain(|_, end| at.since(*end) <= KEEP_ENDS);
        match directory {
            Some(directory) => {
                self.ends.insert(Arc::clone(directory), at);
            }
            None => self.end_of_all = Some(at),
        }
        let is_explained = |pending: &Pending| {
            directory.is_none()
                || pending.directory.is_none()
                || pending.directory.as_ref() == directory
        };
        let cut_off: Vec<SessionId> = self
            .pending
            .iter()
            .filter(|(_, pending)| is_explained(pending))
            .map(|(session, _)| session.clone())
            .collect();
        for session in &cut_off {
            self.remove(session);
        }
        cut_off
    }

    /// Records the loss of the event stream. Returns the sessions that were cut off: all with a pending abort. An abort
    /// that is received on the next stream is not explained by the loss, because its server lives on.
    pub fn stream_lost(&mut self, at: Timestamp) -> Vec<SessionId> {
        self.stream_lost = Some(at);
        let cut_off = std::mem::take(&mut self.pending);
        self.last_aborts.clear();
        cut_off.into_keys().collect()
    }

    /// Returns the time of the next call of [`AbortGrace::due`].
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.last_aborts
            .values()
            .map(|last| *last + self.grace)
            .min()
    }

    /// Returns the sessions whose grace has passed at `now`, and how their aborts are judged.
    pub fn due(&mut self, now: Timestamp) -> Vec<(SessionId, Verdict)> {
        let grace = self.grace;
        let is_over = |last: &Timestamp| *last + grace <= now;
        let due: Vec<(SessionId, Verdict)> = self
            .pending
            .iter()
            .filter(|(_, pending)| self.last_aborts.get(&pending.directory).is_none_or(is_over))
            .map(|(session, pending)| {
                let verdict = if pending.restored {
                    Verdict::PersonIfServed(pending.directory.clone())
                } else {
                    Verdict::Person
                };
                (session.clone(), verdict)
            })
            .collect();
        for (session, _) in &due {
            self.remove(session);
        }
        due
    }

    /// Returns true if an abort of the session waits for its judgement.
    #[cfg(test)]
    fn is_pending(&self, session: &SessionId) -> bool {
        self.pending.contains_key(session)
    }

    /// Removes a session that needs no judgement any more. Returns false if none was pending.
    pub fn remove(&mut self, session: &SessionId) -> bool {
        let Some(removed) = self.pending.remove(session) else {
            return false;
        };
        let is_last = !(self.pending.values()).any(|other| other.directory == removed.directory);
        if is_last {
            self.last_aborts.remove(&removed.directory);
        }
        true
    }

    fn add(
        &mut self,
        session: &SessionId,
        directory: Option<Arc<str>>,
        at: Timestamp,
        restored: bool,
    ) {
        self.remove(session);
        let last = self.last_aborts.entry(directory.clone()).or_insert(at);
        *last = (*last).max(at);
        let pending = Pending {
            directory,
            restored,
        };
        self.pending.insert(session.clone(), pending);
    }

    fn has_ended_since(
        &self,
        directory: Option<&str>,
        at: Timestamp,
        turn_began: Option<Timestamp>,
    ) -> bool {
        // A turn that began after the end runs in the next instance.
        let explains = |end: &Timestamp| {
            at.since(*end) <= END_BEFORE && turn_began.is_none_or(|began| began < *end)
        };
        let of_directory = match directory {
            Some(directory) => self.ends.get(directory).is_some_and(explains),
            None => self.ends.values().any(explains),
        };
        let before_loss = |lost: Timestamp| at <= lost && lost.since(at) <= self.grace;
        of_directory
            || self.end_of_all.as_ref().is_some_and(explains)
            || self.stream_lost.is_some_and(before_loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grace() -> AbortGrace {
        AbortGrace::new(Duration::from_secs(2))
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn dir(name: &str) -> Option<Arc<str>> {
        Some(Arc::from(name))
    }

    #[test]
    fn end_before_the_turn_does_not_explain_its_abort() {
        let mut grace = grace();
        grace.instance_ended(dir("/d").as_ref(), at(1000));
        assert!(!grace.aborted(&"a".into(), dir("/d"), at(3500), Some(at(1000))));
        assert!(grace.aborted(&"b".into(), dir("/d"), at(3500), Some(at(999))));
        assert!(grace.aborted(&"c".into(), dir("/d"), at(3500), None));
    }

    #[test]
    fn abort_without_end_is_a_persons_after_the_grace() {
        let mut grace = grace();
        assert!(!grace.aborted(&"a".into(), dir("/d"), at(1000), None));
        assert_eq!(grace.next_deadline(), Some(at(3000)));
        assert_eq!(grace.due(at(2999)), []);
        assert_eq!(grace.due(at(3000)), [("a".into(), Verdict::Person)]);
        assert_eq!(grace.next_deadline(), None);
    }

    #[test]
    fn end_after_the_aborts_cuts_off_the_sessions_of_its_directory() {
        let mut grace = grace();
        grace.aborted(&"a".into(), dir("/d"), at(1000), None);
        grace.aborted(&"b".into(), dir("/d"), at(2500), None);
        grace.aborted(&"c".into(), dir("/e"), at(1000), None);
        // The grace of a directory ends after its last abort.
        assert_eq!(grace.due(at(3000)), [("c".into(), Verdict::Person)]);
        let ended: Arc<str> = "/d".into();
        assert_eq!(
            grace.instance_ended(Some(&ended), at(4400)),
            ["a".into(), "b".into()]
        );
        assert_eq!(grace.next_deadline(), None);
    }

    #[test]
    fn end_before_the_abort_cuts_off() {
        let mut grace = grace();
        let ended: Arc<str> = "/d".into();
        grace.instance_ended(Some(&ended), at(1000));
        assert!(grace.aborted(&"a".into(), dir("/d"), at(7000), None));
        assert!(!grace.aborted(&"b".into(), dir("/e"), at(1100), None));
        assert!(!grace.aborted(&"c".into(), dir("/d"), at(7001), None));
        // Without a directory every end counts.
        assert!(grace.aborted(&"d".into(), None, at(1100), None));
    }

    #[test]
    fn end_of_every_instance_cuts_off_all() {
        let mut grace = grace();
        grace.aborted(&"a".into(), dir("/d"), at(1000), None);
        grace.aborted(&"b".into(), None, at(1000), None);
        assert_eq!(grace.instance_ended(None, at(1500)).len(), 2);
        assert!(grace.aborted(&"c".into(), dir("/e"), at(1600), None));
    }

    #[test]
    fn loss_of_the_stream_cuts_off_earlier_aborts_only() {
        let mut grace = grace();
        grace.aborted(&"a".into(), dir("/d"), at(1000), None);
        grace.aborted(&"b".into(), None, at(1000), None);
        assert_eq!(grace.stream_lost(at(1500)).len(), 2);
        assert_eq!(grace.next_deadline(), None);
        // Reported late.
        assert!(grace.aborted(&"c".into(), dir("/e"), at(1500), None));
        // Received on the next stream.
        assert!(!grace.aborted(&"d".into(), dir("/e"), at(1501), None));
    }

    #[test]
    fn late_report_of_an_abort_is_explained_by_an_end_after_it() {
        let mut grace = grace();
        let ended: Arc<str> = "/d".into();
        grace.instance_ended(Some(&ended), at(1120));
        assert!(grace.aborted(&"a".into(), dir("/d"), at(1000), None));
    }

    #[test]
    fn restored_abort_is_judged_by_the_server() {
        let mut grace = grace();
        grace.restored(&"a".into(), dir("/d"), at(9000));
        assert!(grace.is_pending(&"a".into()));
        assert_eq!(
            grace.due(at(11_000)),
            [("a".into(), Verdict::PersonIfServed(dir("/d")))]
        );
        assert!(!grace.is_pending(&"a".into()));
    }
}
