//! The judgement of aborts that the system did not request. The agent server aborts its own sessions when an instance
//! ends, and a person aborts a session whose instance lives on. The registry owns one [`AbortGrace`]; pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ids::SessionId;
use super::instance::Instance;
use super::time::Timestamp;

/// An end of an instance up to this long before an abort explains the abort. The plugin's connection is closed before
/// the aborts, and the process of a terminal interface lives on for up to 5 s.
const END_BEFORE: Duration = Duration::from_secs(6);

/// Ends older than this no longer matter: the report of an abort may be late.
const KEEP_ENDS: Duration = Duration::from_secs(60);

/// Aborts in one instance up to this long apart were aborts of its end.
const BURST: Duration = Duration::from_millis(200);

/// How an abort is judged whose grace has passed without an end of its instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The instance has ended.
    CutOff,
    /// The instance lives on: a person aborted the session.
    Person,
    /// The abort was received before a restart of the service. It is a person's if a server serves the directory.
    PersonIfServed(Option<Arc<str>>),
}

#[derive(Debug)]
struct Pending {
    /// The end of an instance that fits explains the abort.
    instance: Instance,
    /// When an earlier process received the abort.
    restored: Option<Timestamp>,
}

/// The aborts that wait for their judgement, and the recent ends of instances.
#[derive(Debug)]
pub struct AbortGrace {
    grace: Duration,
    pending: BTreeMap<SessionId, Pending>,
    /// The last abort of each directory with pending aborts.
    last_aborts: BTreeMap<Option<Arc<str>>, Timestamp>,
    ends: BTreeMap<Instance, Timestamp>,
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
            stream_lost: None,
        }
    }

    /// Records an abort of a session at `at`. Returns true if the session was cut off: the instance has ended already, and
    /// not before the turn began. Otherwise the abort waits for its judgement.
    pub fn aborted(
        &mut self,
        session: &SessionId,
        instance: Instance,
        at: Timestamp,
        turn_began: Option<Timestamp>,
    ) -> bool {
        if self.has_ended_since(&instance, at, turn_began) {
            self.remove(session);
            return true;
        }
        self.add(session, instance, at, None);
        false
    }

    /// Records an abort that an earlier process received at `at` and did not judge. Its grace begins again.
    pub fn restored(
        &mut self,
        session: &SessionId,
        instance: Instance,
        at: Timestamp,
        now: Timestamp,
    ) {
        self.add(session, instance, now, Some(at));
    }

    /// Records the end of an instance. Returns the sessions that were cut off.
    pub fn instance_ended(&mut self, instance: &Instance, at: Timestamp) -> Vec<SessionId> {
        self.ends.retain(|_, end| at.since(*end) <= KEEP_ENDS);
        self.ends.insert(instance.clone(), at);
        let cut_off: Vec<SessionId> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.instance.fits(instance))
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
            .filter(|(_, pending)| {
                let last = self.last_aborts.get(&pending.instance.directory);
                last.is_none_or(is_over)
            })
            .map(|(session, pending)| {
                let verdict = match pending.restored {
                    Some(_) if self.is_one_of_several(session, pending) => Verdict::CutOff,
                    Some(_) => Verdict::PersonIfServed(pending.instance.directory.clone()),
                    None => Verdict::Person,
                };
                (session.clone(), verdict)
            })
            .collect();
        for (session, _) in &due {
            self.remove(session);
        }
        due
    }

    /// Returns true if an earlier process received another abort at about the same time in what may be the same instance: a
    /// person stops one session, the end of an instance all of them.
    fn is_one_of_several(&self, session: &SessionId, restored: &Pending) -> bool {
        self.pending.iter().any(|(other, pending)| {
            let gap = restored.restored.zip(pending.restored);
            other != session
                && pending.instance.fits(&restored.instance)
                && gap.is_some_and(|(one, other)| one.since(other).max(other.since(one)) <= BURST)
        })
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
        let directory = removed.instance.directory;
        let is_last = !(self.pending.values()).any(|other| other.instance.directory == directory);
        if is_last {
            self.last_aborts.remove(&directory);
        }
        true
    }

    fn add(
        &mut self,
        session: &SessionId,
        instance: Instance,
        at: Timestamp,
        restored: Option<Timestamp>,
    ) {
        self.remove(session);
        let directory = instance.directory.clone();
        let last = self.last_aborts.entry(directory).or_insert(at);
        *last = (*last).max(at);
        let pending = Pending { instance, restored };
        self.pending.insert(session.clone(), pending);
    }

    fn has_ended_since(
        &self,
        instance: &Instance,
        at: Timestamp,
        turn_began: Option<Timestamp>,
    ) -> bool {
        let is_explained = self.ends.iter().any(|(ended, end)| {
            ended.fits(instance)
                && at.since(*end) <= END_BEFORE
                // A turn that began after the end runs in the next instance.
                && turn_began.is_none_or(|began| began < *end)
        });
        let before_loss = |lost: Timestamp| at <= lost && lost.since(at) <= self.grace;
        is_explained || self.stream_lost.is_some_and(before_loss)
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

    fn dir(name: &str) -> Instance {
        Instance::in_directory(Some(name))
    }

    fn process(directory: &str, process: u32) -> Instance {
        Instance {
            process: Some(process),
            ..dir(directory)
        }
    }

    #[test]
    fn end_before_the_turn_does_not_explain_its_abort() {
        let mut grace = grace();
        grace.instance_ended(&dir("/d"), at(1000));
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
        assert_eq!(
            grace.instance_ended(&dir("/d"), at(4400)),
            ["a".into(), "b".into()]
        );
        assert_eq!(grace.next_deadline(), None);
    }

    #[test]
    fn end_before_the_abort_cuts_off() {
        let mut grace = grace();
        grace.instance_ended(&dir("/d"), at(1000));
        assert!(grace.aborted(&"a".into(), dir("/d"), at(7000), None));
        assert!(!grace.aborted(&"b".into(), dir("/e"), at(1100), None));
        assert!(!grace.aborted(&"c".into(), dir("/d"), at(7001), None));
        // Without a directory every end counts.
        assert!(grace.aborted(&"d".into(), Instance::default(), at(1100), None));
    }

    #[test]
    fn end_of_every_instance_cuts_off_all() {
        let mut grace = grace();
        grace.aborted(&"a".into(), dir("/d"), at(1000), None);
        grace.aborted(&"b".into(), Instance::default(), at(1000), None);
        assert_eq!(
            grace.instance_ended(&Instance::default(), at(1500)).len(),
            2
        );
        assert!(grace.aborted(&"c".into(), dir("/e"), at(1600), None));
    }

    #[test]
    fn loss_of_the_stream_cuts_off_earlier_aborts_only() {
        let mut grace = grace();
        grace.aborted(&"a".into(), dir("/d"), at(1000), None);
        grace.aborted(&"b".into(), Instance::default(), at(1000), None);
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
        grace.instance_ended(&dir("/d"), at(1120));
        assert!(grace.aborted(&"a".into(), dir("/d"), at(1000), None));
    }

    #[test]
    fn restored_abort_is_judged_by_the_server() {
        let mut grace = grace();
        grace.restored(&"a".into(), dir("/d"), at(500), at(9000));
        assert!(grace.is_pending(&"a".into()));
        assert_eq!(
            grace.due(at(11_000)),
            [("a".into(), Verdict::PersonIfServed(Some("/d".into())))]
        );
        assert!(!grace.is_pending(&"a".into()));
    }

    #[test]
    fn end_of_another_process_explains_no_abort() {
        let mut grace = grace();
        grace.aborted(&"a".into(), process("/d", 1), at(1000), None);
        assert!(grace.instance_ended(&process("/d", 2), at(1100)).is_empty());
        assert!(!grace.aborted(&"b".into(), process("/d", 1), at(1200), None));
        // A process that is not known may be either.
        assert!(grace.aborted(&"c".into(), dir("/d"), at(1200), None));
        assert_eq!(
            grace.instance_ended(&process("/d", 1), at(1300)),
            ["a".into(), "b".into()]
        );
        assert!(!grace.aborted(&"d".into(), process("/e", 1), at(1400), None));
    }

    #[test]
    fn restored_aborts_of_one_moment_were_aborts_of_an_end() {
        let mut grace = grace();
        grace.restored(&"a".into(), dir("/d"), at(500), at(9000));
        // The directory of a parent is not known.
        grace.restored(&"b".into(), Instance::default(), at(560), at(9000));
        grace.restored(&"c".into(), dir("/e"), at(5000), at(9000));
        assert_eq!(
            grace.due(at(11_000)),
            [
                ("a".into(), Verdict::CutOff),
                ("b".into(), Verdict::CutOff),
                ("c".into(), Verdict::PersonIfServed(Some("/e".into()))),
            ]
        );
    }
}
