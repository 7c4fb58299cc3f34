//! The subscription of a run to polls. Most polls repeat the previous status, so the run publishes its interest
//! ([`Watch::interest`], at the times of [`PollSubscription`]). The poller keeps a [`PollView`] per run and sends only
//! statuses of interest. A run with filtered statuses behaves like a run with all of them. Pure.

use super::{PolledStatus, Watch};
use crate::domain::time::Timestamp;

/// The interest of a run in polled statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollInterest {
    /// All statuses: even a busy status would change the state of the run.
    All {
        /// The time of the first poll that matters.
        since: Timestamp,
    },
    /// Changes only: a busy or unknown status is irrelevant until `until`.
    Changes {
        /// The time at which the run would have to end as silent.
        until: Timestamp,
    },
}

impl Watch {
    /// Returns the interest of the run in polls from now on.
    pub fn interest(&self, now: Timestamp) -> PollInterest {
        let awaits_check =
            (self.check.as_ref()).is_some_and(|check| check.signs_of_life == self.signs_of_life);
        let is_known_busy = self.seen_busy
            && self.idle_since.is_none()
            && !self.deferred
            && self.absent_polls == 0
            && self.holds_slot
            && !awaits_check;
        if !is_known_busy {
            return PollInterest::All {
                since: self.idle_since.map_or(now, |idle| idle.min(now)),
            };
        }
        // An open request, or a prompt in flight, only postpones this.
        let last_news = (self.progress.last_update)
            .max(self.observed_since)
            .max(self.prompt_accepted.unwrap_or(self.observed_since));
        PollInterest::Changes {
            until: last_news + self.config.lifecycle.task_ttl,
        }
    }

    /// Records that polls until `until` listed the run as busy, which is only a sign of life.
    pub fn was_busy(&mut self, until: Timestamp) {
        self.last_sign_of_life = self.last_sign_of_life.max(until);
    }
}

/// The context of a polled status that is sent to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollContext {
    /// The time of the last busy poll that was not sent, for [`Watch::was_busy`].
    pub busy_until: Option<Timestamp>,
    /// The time until which the poller omits busy statuses.
    pub changes_only_until: Option<Timestamp>,
}

/// The poller's view of the interest of one run. A new view sends every status.
#[derive(Debug, Clone, Copy, Default)]
pub struct PollView {
    changes_only_until: Option<Timestamp>,
    busy_until: Option<Timestamp>,
    /// True if the poll before found that the process had ended.
    process_has_ended: bool,
}

impl PollView {
    /// Returns what a poll shows of the run. That its process has ended counts from the second poll in a row on: one refused
    /// connection may be a server that restarts.
    pub fn confirmed(&mut self, status: PolledStatus) -> PolledStatus {
        let has_ended = status == PolledStatus::ProcessEnded;
        match std::mem::replace(&mut self.process_has_ended, has_ended) {
            false if has_ended => PolledStatus::Unknown,
            _ => status,
        }
    }

    /// Processes the status from a poll at `polled_at`. None if the status need not be sent to the run.
    pub fn observe(
        &mut self,
        status: &PolledStatus,
        polled_at: Timestamp,
        now: Timestamp,
    ) -> Option<PollContext> {
        let unchanged = self.changes_only_until.is_some_and(|until| now <= until);
        match status {
            PolledStatus::Busy if unchanged => {
                self.busy_until = self.busy_until.max(Some(polled_at));
                None
            }
            PolledStatus::Unknown if unchanged => None,
            _ => Some(self.context()),
        }
    }

    /// Sets the interest of the run. Returns the time and context of a busy poll that was omitted meanwhile and that
    /// the run needs.
    pub fn set_interest(&mut self, interest: PollInterest) -> Option<(Timestamp, PollContext)> {
        match interest {
            PollInterest::Changes { until } => {
                self.changes_only_until = Some(until);
                None
            }
            PollInterest::All { since } => {
                self.changes_only_until = None;
                let missed = self.busy_until.take_if(|busy| *busy > since)?;
                Some((missed, self.context()))
            }
        }
    }

    fn context(&mut self) -> PollContext {
        PollContext {
            busy_until: self.busy_until.take(),
            changes_only_until: self.changes_only_until,
        }
    }
}

/// The state of a run's subscription: the number under which only changes are sent, if any. A new subscription has
/// published nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct PollSubscription {
    changes_only: Option<u64>,
}

impl PollSubscription {
    /// Returns the time of the last busy poll that was not sent to the run, for a poll under the watch number `number`. A
    /// restarted poller watches under another number and has lost both the interest and this time: the run counts as busy
    /// until `polled_at`.
    pub fn was_busy(
        &mut self,
        number: u64,
        context: PollContext,
        polled_at: Timestamp,
    ) -> Option<Timestamp> {
        let forgotten = self.changes_only.take_if(|of| *of != number).is_some();
        context.busy_until.or(forgotten.then_some(polled_at))
    }

    /// Returns the interest to publish after a poll with this number: changes only. A restarted poller loses the
    /// interest.
    pub fn after_poll(
        &mut self,
        watch: &Watch,
        number: u64,
        context: PollContext,
        now: Timestamp,
    ) -> Option<PollInterest> {
        let interest = watch.interest(now);
        let is_new = context.changes_only_until.is_none_or(|until| until < now);
        let PollInterest::Changes { until } = interest else {
            return None;
        };
        (until >= now && is_new).then(|| {
            self.changes_only = Some(number);
            interest
        })
    }

    /// Returns the interest to publish after a change of the run, with its number: all statuses again.
    pub fn after_change(&mut self, watch: &Watch, now: Timestamp) -> Option<(u64, PollInterest)> {
        let number = self.changes_only?;
        let interest = watch.interest(now);
        matches!(interest, PollInterest::All { .. }).then(|| {
            self.changes_only = None;
            (number, interest)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;
    use crate::domain::session_event::SessionEventKind;
    use crate::domain::task::{AskKind, Progress, Retrying};
    use crate::domain::transcript::{Message, Part};
    use crate::domain::watch::{CheckAnswer, CheckFindings, CheckToken, WatchAction};

    /// The inputs of a run.
    #[derive(Debug, Clone)]
    enum Input {
        TimePasses(u64),
        Event(SessionEventKind),
        /// A poll that is answered after this many milliseconds. Interest published meanwhile arrives before or after
        /// it.
        Poll(PolledStatus, u64),
        Checked(CheckFindings),
        CheckFailed,
        PromptAccepted,
        Dependents(usize, bool),
        Sending,
        SendFinished(bool),
        WakeAccepted,
        EventLinkLost,
        ObservedSince,
    }

    fn event_kind() -> impl Strategy<Value = SessionEventKind> {
        let message = |role: &str, finish: Option<&str>| Message {
            id: Some("msg_1".into()),
            role: Some(role.to_owned()),
            completed: finish.map(|_| Timestamp::from_millis(1)),
            finish: finish.map(str::to_owned),
            ..Message::default()
        };
        let part = |kind: &str| Part {
            kind: kind.to_owned(),
            text: Some("so far".to_owned()),
            ..Part::default()
        };
        prop_oneof![
            4 => Just(SessionEventKind::Idle),
            4 => Just(SessionEventKind::Busy),
            2 => Just(SessionEventKind::Delta { message: None }),
            1 => Just(SessionEventKind::Work),
            2 => Just(SessionEventKind::Message(Box::new(message("assistant", Some("stop"))))),
            1 => Just(SessionEventKind::Message(Box::new(message("assistant", None)))),
            1 => Just(SessionEventKind::Part { message: None, part: Box::new(part("text")) }),
            1 => Just(SessionEventKind::Part { message: None, part: Box::new(part("tool")) }),
            1 => Just(SessionEventKind::Retry { attempt: None, message: "later".into(), until: None }),
            1 => Just(SessionEventKind::AskOpened { id: "a".into(), kind: AskKind::Question, what: "?".into() }),
            1 => Just(SessionEventKind::Answered { id: "a".into() }),
        ]
    }

    fn status() -> impl Strategy<Value = PolledStatus> {
        prop_oneof![
            8 => Just(PolledStatus::Busy),
            2 => Just(PolledStatus::Idle),
            3 => Just(PolledStatus::Absent),
            2 => Just(PolledStatus::Unknown),
            1 => Just(PolledStatus::ProcessEnded),
            1 => Just(PolledStatus::Retry(Retrying { attempt: None, message: "later".into(), until: None })),
        ]
    }

    fn findings() -> impl Strategy<Value = CheckFindings> {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0..3_usize);
        flags.prop_map(|(output, prompted, unfinished, open_todos)| CheckFindings {
            output,
            prompted,
            answered: output,
            finished: output && !unfinished,
            unfinished,
            failed: None,
            open_todos,
        })
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            6 => prop_oneof![0..50_u64, 1_000..8_000_u64, 20_000..300_000_u64].prop_map(Input::TimePasses),
            8 => event_kind().prop_map(Input::Event),
            14 => (status(), prop_oneof![Just(0), 0..200_u64]).prop_map(|(seen, later)| Input::Poll(seen, later)),
            4 => findings().prop_map(Input::Checked),
            1 => Just(Input::CheckFailed),
            2 => Just(Input::PromptAccepted),
            2 => (0..2_usize, any::<bool>()).prop_map(|(open, pending)| Input::Dependents(open, pending)),
            1 => Just(Input::Sending),
            1 => any::<bool>().prop_map(Input::SendFinished),
            1 => Just(Input::WakeAccepted),
            1 => Just(Input::EventLinkLost),
            1 => Just(Input::ObservedSince),
        ]
    }

    /// One run, with the behaviour of its actor.
    struct Run {
        watch: Watch,
        check: Option<CheckToken>,
        actions: Vec<(Timestamp, WatchAction)>,
    }

    impl Run {
        fn new(now: Timestamp) -> Self {
            let config = Arc::new(Config::default());
            Self {
                watch: Watch::new(config, Progress::none(now), false, true, now),
                check: None,
                actions: Vec::new(),
            }
        }

        fn ended(&self) -> bool {
            (self.actions.iter()).any(|(_, action)| matches!(action, WatchAction::End(_)))
        }

        fn update(&mut self, now: Timestamp, update: impl FnOnce(&mut Watch) -> Vec<WatchAction>) {
            if self.ended() {
                return;
            }
            for action in update(&mut self.watch) {
                match &action {
                    WatchAction::Check(token) => self.check = Some(*token),
                    WatchAction::ReleaseSlot => self.watch.set_holds_slot(false),
                    WatchAction::RetakeSlot => self.watch.set_holds_slot(true),
                    _ => {}
                }
                self.actions.push((now, action));
                if self.ended() {
                    return;
                }
            }
        }

        fn apply(&mut self, input: &Input, now: Timestamp) {
            let check = self.check;
            self.update(now, |watch| match input {
                Input::Event(kind) => watch.event(kind, now),
                Input::Checked(findings) => check.map_or_else(Vec::new, |token| {
                    watch.checked(token, CheckAnswer::Found(findings.clone()), now)
                }),
                Input::CheckFailed => check.map_or_else(Vec::new, |token| {
                    watch.checked(token, CheckAnswer::Failed("away".into()), now)
                }),
                Input::Dependents(open, pending) => watch.dependents(*open, *pending, now),
                Input::SendFinished(true) => watch.prompted_again(now),
                Input::TimePasses(_) | Input::Poll(..) => watch.on_deadline(now),
                other => {
                    match other {
                        Input::PromptAccepted => watch.prompt_accepted(now),
                        Input::Sending => watch.sending(),
                        Input::SendFinished(_) => watch.not_sent(),
                        Input::WakeAccepted => watch.wake_accepted(now),
                        Input::EventLinkLost => watch.event_link_lost(),
                        _ => watch.observed_since(now),
                    }
                    Vec::new()
                }
            });
        }
    }

    /// A run that receives only the statuses that pass its view. Published interest is in flight until it is delivered.
    struct FilteredRun {
        run: Run,
        view: PollView,
        poll_subscription: PollSubscription,
        /// The watch number at the poller.
        number: u64,
        in_flight: Vec<(u64, PollInterest)>,
        observed_polls: usize,
    }

    impl FilteredRun {
        /// Loses the view. The new poller watches under another number.
        fn restart_poller(&mut self) {
            self.view = PollView::default();
            self.number += 1;
        }

        fn queue_interest(&mut self, now: Timestamp) {
            let interest = self.poll_subscription.after_change(&self.run.watch, now);
            self.in_flight.extend(interest);
        }

        fn deliver_interest(&mut self, now: Timestamp) {
            for (number, interest) in std::mem::take(&mut self.in_flight) {
                if number == self.number
                    && let Some((polled_at, context)) = self.view.set_interest(interest)
                {
                    self.observed(&PolledStatus::Busy, polled_at, context, now);
                }
            }
        }

        fn observed(
            &mut self,
            seen: &PolledStatus,
            polled_at: Timestamp,
            context: PollContext,
            now: Timestamp,
        ) {
            self.observed_polls += 1;
            if let Some(until) = self
                .poll_subscription
                .was_busy(self.number, context, polled_at)
            {
                self.run.watch.was_busy(until);
            }
            self.run
                .update(now, |watch| watch.observed(seen, polled_at, now));
            self.queue_interest(now);
            let interest =
                self.poll_subscription
                    .after_poll(&self.run.watch, self.number, context, now);
            self.in_flight
                .extend(interest.map(|interest| (self.number, interest)));
        }
    }

    fn start() -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }

    fn filtered_run() -> FilteredRun {
        FilteredRun {
            run: Run::new(start()),
            view: PollView::default(),
            poll_subscription: PollSubscription::default(),
            number: 1,
            in_flight: Vec::new(),
            observed_polls: 0,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// A run with filtered statuses takes the same actions at the same times as a run with all statuses.
        #[test]
        fn filtered_run_equals_full_run(
            inputs in prop::collection::vec((input(), any::<bool>()), 1..120)
        ) {
            let mut now = start();
            let (mut full, mut filtered) = (Run::new(now), filtered_run());
            for (input, late) in inputs {
                let mut polled = None;
                // Calls to the server take longer than a message: only one poll may overtake it.
                let overtaken = filtered.in_flight.len();
                match &input {
                    Input::Poll(seen, later) => {
                        // Polled at a time without another input.
                        now = now + Duration::from_millis(1);
                        polled = Some((seen.clone(), now));
                        now = now + Duration::from_millis(*later);
                    }
                    Input::TimePasses(millis) => {
                        filtered.deliver_interest(now);
                        now = now + Duration::from_millis(*millis);
                    }
                    _ => filtered.deliver_interest(now),
                }
                full.apply(&input, now);
                filtered.run.apply(&input, now);
                filtered.queue_interest(now);
                if let Some((seen, polled_at)) = polled {
                    full.update(now, |watch| watch.observed(&seen, polled_at, now));
                    if let Some(context) = filtered.view.observe(&seen, polled_at, now) {
                        filtered.observed(&seen, polled_at, context, now);
                    }
                }
                if !late || overtaken > 0 {
                    filtered.deliver_interest(now);
                }
                if filtered.in_flight.is_empty() {
                    prop_assert_eq!(&full.actions, &filtered.run.actions);
                }
                if full.ended() {
                    break;
                }
            }
            filtered.deliver_interest(now);
            prop_assert_eq!(&full.actions, &filtered.run.actions);
        }
    }

    #[test]
    fn busy_run_gets_one_poll() {
        let mut filtered = filtered_run();
        filtered.run.apply(&Input::PromptAccepted, start());
        for poll in 1..200 {
            let now = start() + Duration::from_secs(3 * poll);
            if let Some(context) = filtered.view.observe(&PolledStatus::Busy, now, now) {
                filtered.observed(&PolledStatus::Busy, now, context, now);
            }
            filtered.deliver_interest(now);
        }
        assert_eq!(
            (filtered.observed_polls, filtered.run.actions.len()),
            (1, 0)
        );
    }

    #[test]
    fn restarted_poller_gets_interest_again() {
        let mut filtered = filtered_run();
        filtered.run.apply(&Input::PromptAccepted, start());
        let polls = |filtered: &mut FilteredRun, from: u64, to: u64| {
            for poll in from..to {
                let now = start() + Duration::from_secs(3 * poll);
                if let Some(context) = filtered.view.observe(&PolledStatus::Busy, now, now) {
                    filtered.observed(&PolledStatus::Busy, now, context, now);
                }
                filtered.deliver_interest(now);
            }
        };
        polls(&mut filtered, 1, 100);
        // A restarted poller without state.
        filtered.restart_poller();
        polls(&mut filtered, 100, 200);
        assert_eq!(
            (filtered.observed_polls, filtered.run.actions.len()),
            (2, 0)
        );
        // The session is not listed at once. The run does not end yet, since it was busy until the previous poll.
        filtered.restart_poller();
        let now = start() + Duration::from_secs(600);
        let context = filtered.view.observe(&PolledStatus::Absent, now, now);
        filtered.observed(&PolledStatus::Absent, now, context.expect("observed"), now);
        assert!(!filtered.run.ended());
    }

    #[test]
    fn silent_busy_run_ends_at_its_limit() {
        let mut filtered = filtered_run();
        filtered.run.apply(&Input::PromptAccepted, start());
        let polls = (1..).map(|poll| start() + Duration::from_secs(3 * poll));
        let ended = polls.take(1000).find(|now| {
            if let Some(context) = filtered.view.observe(&PolledStatus::Busy, *now, *now) {
                filtered.observed(&PolledStatus::Busy, *now, context, *now);
            }
            filtered.deliver_interest(*now);
            filtered.run.ended()
        });
        assert_eq!(ended, Some(start() + Duration::from_secs(30 * 60 + 3)));
    }
}
