//! Poller: owns the poll timer. While runs are watched it reads the session statuses of each directory from the agent
//! server, one call per directory at a time, and sends the status to every run that was watched when the call began, if the
//! status is relevant to that run (`domain/watch` decides). A failed call yields the status "unknown", or that the process
//! of the sessions has ended.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::sync::Arc;
use std::sync::atomic;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, SpawnHandle};

use super::env::{Env, panic_error, spawn_call, within};
use super::task::{StatusPolled, TaskActor};
use crate::domain::ids::{Run, SessionId, TaskId};
use crate::domain::task::Retrying;
use crate::domain::time::Timestamp;
use crate::domain::watch::{PollContext, PollInterest, PollView, PolledStatus};
use crate::handle::{ResourceCounts, counted};
use crate::maps::Map;
use crate::ports::agent_server::{ServerError, SessionStatus};

/// Starts to watch a run, or updates its directory.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Watch {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) session: SessionId,
    pub(crate) directory: Arc<str>,
    pub(crate) actor: Addr<TaskActor>,
}

/// Stops watching a run.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Unwatch(pub(crate) TaskId);

/// Stops watching all runs: a restarted registry sends its running runs anew.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct UnwatchAll;

/// Sets which polled statuses a run receives.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SetPollInterest {
    pub(crate) task: TaskId,
    /// The watch number of the run: an interest under an earlier number is outdated.
    pub(crate) number: u64,
    pub(crate) interest: PollInterest,
}

/// Polls at once, besides the ticks: events may have been missed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Reconcile;

#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

#[derive(Message)]
#[rtype(result = "()")]
struct Answered {
    directory: Arc<str>,
    polled_at: Timestamp,
    /// Runs with a lower watch number were watched when the call began.
    before: u64,
    answer: Result<BTreeMap<SessionId, SessionStatus>, ServerError>,
}

struct WatchedRun {
    run: Run,
    actor: Addr<TaskActor>,
    /// The watch number, unique per watch, also over restarts of the poller: an answer does not apply to runs watched after
    /// its call began.
    number: u64,
    view: PollView,
}

/// The runs of one directory, in the order of their sessions, as in the server's answers.
type Directory = BTreeMap<(SessionId, TaskId), WatchedRun>;

/// The statuses of an answer, read in the order of the sessions.
struct SortedStatuses {
    next: Option<(SessionId, SessionStatus)>,
    rest: btree_map::IntoIter<SessionId, SessionStatus>,
}

impl SortedStatuses {
    fn new(statuses: BTreeMap<SessionId, SessionStatus>) -> Self {
        let mut rest = statuses.into_iter();
        Self {
            next: rest.next(),
            rest,
        }
    }

    /// Returns the status of a session. The calls are in the order of the sessions, so that one pass is enough.
    fn of(&mut self, session: &SessionId) -> PolledStatus {
        while let Some((other, status)) = &self.next {
            match other.cmp(session) {
                Ordering::Less => self.next = self.rest.next(),
                Ordering::Equal => return polled_status(status),
                Ordering::Greater => break,
            }
        }
        PolledStatus::Absent
    }
}

pub(crate) struct Poller {
    env: Env,
    // Bounded by the number of runs: each is removed when it ends.
    watched: BTreeMap<Arc<str>, Directory>,
    locations: Map<TaskId, (Arc<str>, SessionId)>,
    in_flight: BTreeSet<Arc<str>>,
    timer: Option<SpawnHandle>,
}

impl Poller {
    pub(crate) fn new(env: Env) -> Self {
        env.failpoints.hit("poller: start");
        Self {
            env,
            watched: BTreeMap::new(),
            locations: Map::default(),
            in_flight: BTreeSet::new(),
            timer: None,
        }
    }

    fn unwatch(&mut self, task: &TaskId) {
        let Some((directory, session)) = self.locations.remove(task) else {
            return;
        };
        if let Some(runs) = self.watched.get_mut(&directory) {
            runs.remove(&(session, task.clone()));
            if runs.is_empty() {
                self.watched.remove(&directory);
            }
        }
    }

    fn poll(&mut self, ctx: &mut Context<Self>) {
        let before = self.env.watch_numbers.load(atomic::Ordering::Relaxed);
        for directory in self.watched.keys() {
            if !self.in_flight.insert(Arc::clone(directory)) {
                continue;
            }
            let (env, addr) = (self.env.clone(), ctx.address());
            let polled_at = env.now();
            let (directory, polled) = (Arc::clone(directory), Arc::clone(directory));
            spawn_call(
                &self.env,
                "poller: status is answered",
                Box::pin(async move {
                    within(env.config.calls.other, env.server.statuses(&polled)).await
                }),
                |panic| Err(panic_error(panic)),
                move |answer| {
                    addr.do_send(Answered {
                        directory,
                        polled_at,
                        before,
                        answer,
                    });
                },
            );
        }
    }

    fn schedule_tick(&mut self, ctx: &mut Context<Self>) {
        self.timer = Some(ctx.notify_later(Tick, self.env.config.lifecycle.poll_interval));
    }
}

impl Actor for Poller {
    type Context = Context<Self>;
}

impl Handler<Watch> for Poller {
    type Result = ();

    fn handle(&mut self, watch: Watch, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("poller: Watch");
        let Watch {
            task,
            run,
            session,
            directory,
            actor,
        } = watch;
        self.unwatch(&task);
        let watched = WatchedRun {
            run,
            actor,
            number: self
                .env
                .watch_numbers
                .fetch_add(1, atomic::Ordering::Relaxed),
            view: PollView::default(),
        };
        self.watched
            .entry(Arc::clone(&directory))
            .or_default()
            .insert((session.clone(), task.clone()), watched);
        self.locations.insert(task, (directory, session));
        if self.timer.is_none() {
            self.schedule_tick(ctx);
        }
    }
}

impl Handler<Unwatch> for Poller {
    type Result = ();

    fn handle(&mut self, unwatch: Unwatch, _: &mut Context<Self>) {
        self.env.failpoints.hit("poller: Unwatch");
        // The timer keeps its phase until a tick finds no watched run.
        self.unwatch(&unwatch.0);
    }
}

impl Handler<UnwatchAll> for Poller {
    type Result = ();

    fn handle(&mut self, _: UnwatchAll, _: &mut Context<Self>) {
        self.env.failpoints.hit("poller: UnwatchAll");
        self.watched.clear();
        self.locations.clear();
    }
}

impl Handler<Reconcile> for Poller {
    type Result = ();

    fn handle(&mut self, _: Reconcile, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("poller: Reconcile");
        self.poll(ctx);
    }
}

impl Handler<Tick> for Poller {
    type Result = ();

    fn handle(&mut self, _: Tick, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("poller: Tick");
        self.timer = None;
        if self.watched.is_empty() {
            return;
        }
        self.schedule_tick(ctx);
        self.poll(ctx);
    }
}

impl Handler<Answered> for Poller {
    type Result = ();

    fn handle(&mut self, answered: Answered, _: &mut Context<Self>) {
        self.env.failpoints.hit("poller: Answered");
        self.in_flight.remove(&answered.directory);
        if let Err(failure) = &answered.answer {
            tracing::debug!(directory = %answered.directory, %failure, "a status call failed");
        }
        let Some(runs) = self.watched.get_mut(&answered.directory) else {
            return;
        };
        let now = self.env.now();
        let mut statuses = match answered.answer {
            Ok(statuses) => Ok(SortedStatuses::new(statuses)),
            Err(failure) => Err(failed_status(&failure)),
        };
        for ((session, _), watched) in runs {
            let polled = match &mut statuses {
                Ok(statuses) => statuses.of(session),
                Err(failed) => failed.clone(),
            };
            let polled = watched.view.confirmed(polled);
            if watched.number < answered.before
                && let Some(context) = watched.view.observe(&polled, answered.polled_at, now)
            {
                watched.notify(polled, answered.polled_at, context);
            }
        }
    }
}

impl Handler<SetPollInterest> for Poller {
    type Result = ();

    fn handle(&mut self, interest: SetPollInterest, _: &mut Context<Self>) {
        self.env.failpoints.hit("poller: Attends");
        let Some((directory, session)) = self.locations.get(&interest.task) else {
            return;
        };
        let key = (session.clone(), interest.task);
        let runs = self.watched.get_mut(directory);
        if let Some(watched) = runs.and_then(|runs| runs.get_mut(&key))
            && watched.number == interest.number
            && let Some((polled_at, context)) = watched.view.set_interest(interest.interest)
        {
            watched.notify(PolledStatus::Busy, polled_at, context);
        }
    }
}

impl WatchedRun {
    fn notify(&self, polled: PolledStatus, polled_at: Timestamp, context: PollContext) {
        self.actor.do_send(StatusPolled {
            run: self.run,
            number: self.number,
            status: polled,
            polled_at,
            context,
        });
    }
}

fn failed_status(failure: &ServerError) -> PolledStatus {
    match failure {
        ServerError::ProcessEnded(_) => PolledStatus::ProcessEnded,
        _ => PolledStatus::Unknown,
    }
}

fn polled_status(status: &SessionStatus) -> PolledStatus {
    match status {
        SessionStatus::Busy => PolledStatus::Busy,
        SessionStatus::Idle => PolledStatus::Idle,
        SessionStatus::Retry {
            attempt,
            message,
            until,
        } => PolledStatus::Retry(Retrying {
            attempt: *attempt,
            message: message.clone(),
            until: *until,
        }),
    }
}

impl Poller {
    fn count(&self, counts: &mut ResourceCounts) {
        counts.polled = self.locations.len();
        counts.polls_in_flight = self.in_flight.len();
        counts.timers += usize::from(self.timer.is_some());
    }
}

counted!(Poller);
