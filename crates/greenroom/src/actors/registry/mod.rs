//! TaskRegistry: owns the table of tasks, its indexes and the removal deadlines. It decides about every task that is not
//! running, routes events to the actor concerned, and finalises every end of a run. The handle sends it queries and commands;
//! task actors, key queues and notifiers send it reports.
//!
//! Its modules: `admission` (launch, resume, track), `waiting` (queues), `runs`, `finaliser` (ends), `commands` (cancel, send,
//! takeover), `cut_off` (aborts from outside, runs that wait for a server), `events` (the server's events, reachability), `parents` and `notifiers` (batches and pending messages), `asks`
//! (open requests of children), `queries` (readers), `records` (journal and publication), `supervision` (restarts of other
//! actors), `recovery` (restart of the registry), `shutdown`.

mod admission;
mod asks;
mod commands;
mod cut_off;
mod events;
mod finaliser;
mod messages;
mod notifiers;
mod parents;
mod queries;
mod records;
mod recovery;
mod resource_counts;
mod runs;
mod shutdown;
mod supervision;
mod table;
mod toasts;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, SpawnHandle};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::sync::oneshot;

use super::actor_ref::ActorRef;
use super::env::Env;
use super::key_queue::KeyQueue;
use super::parent_notifier::ParentNotifier;
use super::poller::Poller;
use super::runtime_state::{ActorDirectory, HeldPermits, PendingAborts, RuntimeFlags};
use super::slot_manager::{SlotManager, SlotPermit};
use super::task::{Dependents, TaskActor};
use super::toaster::Toaster;
use crate::config::Limits;
use crate::domain::abort_grace::AbortGrace;
use crate::domain::concurrency::QueueSeq;
use crate::domain::histories::Histories;
use crate::domain::idempotency::LaunchKeys;
use crate::domain::ids::{ConcurrencyKey, Run, SessionId, TaskId};
use crate::domain::lifecycle::End;
use crate::domain::session_event::SessionEvent;
use crate::domain::task::Task;
use crate::domain::time::{Timestamp, duration_text};
use crate::handle::{Changes, WaitFor};
use crate::maps::Map;

pub(crate) use admission::LaunchOnce;
pub(crate) use asks::{AskGone, FindAsk, FoundAsk, ListAsks};
pub(crate) use commands::{CancelAnswer, CancelTask, SendTo};
pub(crate) use cut_off::{ParentAbortRecorded, ParentAborted};
pub(crate) use events::{InstanceEnded, LinkChanged, OwnerChanged};
pub(crate) use messages::{
    AbortCallEnded, AbortCheckEnded, BatchClosed, DepthOf, DirectoryKnown, Granted,
    PendingMessages, RunAborted, RunChanged, RunCutOff, RunEnded, RunPrompted, RunSnapshot,
    RunStarted, Unreachable, WakeAccepted,
};
pub(crate) use parents::Parent;
pub(crate) use queries::{
    CountTasks, Descendants, Find, FindDecided, FoundTask, KeyWait, ListTasks, Ping, ReadHistory,
    ReadReadiness, ReadWaits, TasksOf, WaitForRun,
};
pub(crate) use resource_counts::ReadResourceCounts;
pub(crate) use shutdown::Shutdown;
pub(crate) use supervision::supervise_registry;

/// A request that the registry answers in one step.
pub(crate) trait Query: Send + 'static {
    type Answer: Send + 'static;
    /// True if the answer contains a decision, which must be durable before the answer is sent.
    const DECIDES: bool = false;

    fn answer(self, registry: &mut TaskRegistry, ctx: &mut Context<TaskRegistry>) -> Self::Answer;

    /// Returns the answer that is sent instead if the journal cannot be written, for the reason `why`, and the run whose
    /// acceptance is revoked.
    fn on_journal_failure(
        answer: Self::Answer,
        _why: &str,
    ) -> (Self::Answer, Option<(TaskId, Run)>) {
        (answer, None)
    }
}

/// How long an answer waits until its decision is durable: a journal that hangs must not block a caller forever.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// A query and the sender for its answer.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct QueryMessage<Q: Query> {
    pub(crate) query: Q,
    pub(crate) reply: oneshot::Sender<Q::Answer>,
}

impl<Q: Query> Handler<QueryMessage<Q>> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, message: QueryMessage<Q>, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: Ask");
        let answer = message.query.answer(self, ctx);
        if !Q::DECIDES || self.env.durability.is_current() {
            // The caller may have been dropped.
            let _ = message.reply.send(answer);
            return;
        }
        let (registry, durable) = (
            self.refs.registry.clone(),
            self.env.durability.published_or_failing(),
        );
        actix_rt::spawn(async move {
            let durable = tokio::time::timeout(WRITTEN_WITHIN, durable).await;
            let answer = match durable.unwrap_or_else(|_| Err(not_written_in_time())) {
                Ok(()) => answer,
                Err(why) => {
                    let (answer, revoked) = Q::on_journal_failure(answer, &why);
                    if let Some((task, run)) = revoked {
                        registry.send(admission::RevokeAcceptance { task, run, why });
                    }
                    answer
                }
            };
            // The caller may have been dropped.
            let _ = message.reply.send(answer);
        });
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct DeadlineReached;

/// What happens at a deadline of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// An ended task is removed from memory.
    Remove(TaskId, Run),
    /// A waiting task has waited too long.
    QueueTtl(TaskId, Run),
    /// The grace of an abort has passed.
    AbortGrace,
    /// The server of a directory in which runs wait is probed again.
    ProbeDirectory(Arc<str>),
}

/// Identifies a deadline. Deadlines of the same instant are processed in the order in which they were set.
type DeadlineKey = (Timestamp, u64);

/// A caller that waits for a run.
struct Waiter {
    run: Run,
    until: WaitFor,
    reply: oneshot::Sender<Option<Task>>,
}

/// A task in memory, with the state that the registry keeps about it.
pub(crate) struct TaskEntry {
    /// The record, shared with its readers: a change copies it while it is shared.
    task: Arc<Task>,
    accepted: QueueSeq,
    /// The sequence number in the wait queue, while the task is queued.
    queued: Option<QueueSeq>,
    actor: Option<Addr<TaskActor>>,
    /// The sequence number of the current run, kept so that the run can return to its position in the queue.
    queue_seq: QueueSeq,
    /// The newest run that was granted a slot: if its actor panics while it starts, the session is looked up before one is
    /// created.
    granted_run: Option<Run>,
    /// The newest run whose prompt the server has accepted.
    prompted: Option<Run>,
    /// The newest run whose session needs no abort any more.
    aborted: Option<Run>,
    /// The first end that was requested of the actor, in case the actor panics.
    requested_end: Option<Box<End>>,
    /// The slot granted while the abort of the run before was not answered.
    granted: Option<Box<SlotPermit>>,
    /// The parent whose batch contains the task.
    batch: Option<SessionId>,
    /// Stops the pending abort of the last ended run, which reads it. The registry sets it when the session is
    /// prompted again or gets a newer task, and replaces it when a run ends.
    superseded: Arc<AtomicBool>,
    removal: Option<DeadlineKey>,
    expiry: Option<DeadlineKey>,
    waiters: Vec<Waiter>,
    /// The state of dependents that the actor received last. The registry writes it with each message, and reads it to send
    /// changes only.
    sent_dependents: Dependents,
    /// The panics of the run's actor, after its end the panics of its abort. Only the registry writes and reads it: a run or an
    /// abort is given up after `finaliser::MAX_PANICS`.
    deaths: u32,
    /// The record as it was appended last.
    record: Option<Arc<Task>>,
    /// The number of changes that are not published yet, and the record that readers see meanwhile.
    unpublished: usize,
    published: Option<Arc<Task>>,
}

struct WaitQueue {
    queue: Addr<KeyQueue>,
    waiting: BTreeMap<QueueSeq, TaskId>,
}

/// The references to the other actors, and the state that is kept over restarts of the registry.
#[derive(Clone)]
pub(crate) struct ActorRefs {
    pub(crate) registry: ActorRef<TaskRegistry>,
    pub(crate) slots: ActorRef<SlotManager>,
    pub(crate) poller: ActorRef<Poller>,
    pub(crate) toaster: ActorRef<Toaster>,
    pub(crate) tasks: ActorDirectory<TaskId, TaskActor>,
    pub(crate) notifiers: ActorDirectory<SessionId, ParentNotifier>,
    pub(crate) aborts: PendingAborts,
    pub(crate) held_permits: HeldPermits,
    pub(crate) flags: Arc<RuntimeFlags>,
}

impl ActorRefs {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            registry: ActorRef::default(),
            slots: ActorRef::default(),
            poller: ActorRef::default(),
            toaster: ActorRef::default(),
            tasks: ActorDirectory::default(),
            notifiers: ActorDirectory::default(),
            aborts: PendingAborts::default(),
            held_permits: HeldPermits::default(),
            flags: Arc::new(RuntimeFlags::new(limits)),
        }
    }
}

pub(crate) struct TaskRegistry {
    env: Env,
    refs: ActorRefs,
    changes: Changes,
    limits: Limits,
    // Boxed, so that a table that grows copies references.
    tasks: Map<TaskId, Box<TaskEntry>>,
    by_acceptance: BTreeMap<QueueSeq, TaskId>,
    by_session: Map<SessionId, TaskId>,
    children: Map<SessionId, BTreeSet<QueueSeq>>,
    open_children: Map<SessionId, usize>,
    launch_keys: LaunchKeys,
    wait_queues: BTreeMap<ConcurrencyKey, WaitQueue>,
    waiting: usize,
    /// The size of the texts of the waiting runs, in bytes.
    waiting_bytes: u64,
    parents: BTreeMap<SessionId, Parent>,
    histories: Histories,
    deadlines: BTreeMap<DeadlineKey, Deadline>,
    timer: Option<(Timestamp, SpawnHandle)>,
    next_seq: QueueSeq,
    next_number: u64,
    rng: ChaCha8Rng,
    reachable: bool,
    probing: bool,
    probe_tries: u32,
    /// True while a notification of `DurabilityAdvanced` is requested.
    awaits_durable: bool,
    closing: Option<shutdown::Closing>,
    /// The aborts that wait for their judgement; none if aborts are not judged.
    abort_grace: Option<AbortGrace>,
    abort_deadline: Option<DeadlineKey>,
    /// The aborts in the journal whose judgement is not recorded, by session.
    unjudged: BTreeMap<SessionId, cut_off::ReceivedAbort>,
    /// The runs that were cut off and wait for a server, by directory.
    server_waits: BTreeMap<Arc<str>, cut_off::ServerWait>,
    /// The buffer for taken events, empty between two messages.
    event_buffer: Vec<SessionEvent>,
}

impl TaskRegistry {
    pub(crate) fn new(env: Env, refs: ActorRefs, changes: Changes) -> Self {
        env.failpoints.hit("registry: start");
        let generation = refs.flags.next_generation();
        let mut rng = match env.config.seed {
            Some(seed) => ChaCha8Rng::seed_from_u64(seed),
            None => ChaCha8Rng::from_seed(random_seed()),
        };
        // A restarted registry must not repeat the numbers of an earlier one.
        rng.set_stream(generation);
        Self {
            limits: refs.flags.limits(),
            reachable: refs.flags.reachable(),
            abort_grace: env.config.lifecycle.abort_grace.map(AbortGrace::new),
            env,
            refs,
            changes,
            tasks: Map::default(),
            by_acceptance: BTreeMap::new(),
            by_session: Map::default(),
            children: Map::default(),
            open_children: Map::default(),
            launch_keys: LaunchKeys::default(),
            wait_queues: BTreeMap::new(),
            waiting: 0,
            waiting_bytes: 0,
            parents: BTreeMap::new(),
            histories: Histories::default(),
            deadlines: BTreeMap::new(),
            timer: None,
            next_seq: 1,
            // The numbers of queues and notifiers are unique over restarts of the registry.
            next_number: generation << 40,
            rng,
            probing: false,
            probe_tries: 0,
            awaits_durable: false,
            closing: None,
            abort_deadline: None,
            unjudged: BTreeMap::new(),
            server_waits: BTreeMap::new(),
            event_buffer: Vec::new(),
        }
    }

    fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn next_queue_seq(&mut self) -> QueueSeq {
        let queue_seq = self.next_seq;
        self.next_seq += 1;
        queue_seq
    }

    /// Returns an id with eight hex digits of a random UUID that no known task has.
    fn new_id(&mut self) -> TaskId {
        loop {
            let mut bytes = [0; 16];
            self.rng.fill_bytes(&mut bytes);
            let random = uuid::Builder::from_random_bytes(bytes)
                .into_uuid()
                .as_fields()
                .0;
            let id = TaskId::from_random(random);
            if !self.tasks.contains_key(&id) && !self.env.journal.contains(&id) {
                return id;
            }
        }
    }

    fn set_deadline(
        &mut self,
        at: Timestamp,
        what: Deadline,
        ctx: &mut Context<Self>,
    ) -> DeadlineKey {
        let key = (at, self.next_number());
        self.deadlines.insert(key, what);
        self.arm(ctx);
        key
    }

    /// Sets the one timer to the earliest deadline.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let due = self.deadlines.first_key_value().map(|((at, _), _)| *at);
        if due == self.timer.as_ref().map(|(at, _)| *at) {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
        if let Some(at) = due {
            self.timer = Some((
                at,
                ctx.notify_later(DeadlineReached, self.env.time_until(at)),
            ));
        }
    }
}

impl Actor for TaskRegistry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.refs.registry.set(ctx.address());
        self.begin(ctx);
    }
}

impl Handler<DeadlineReached> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, _: DeadlineReached, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: TimeUp");
        self.timer = None;
        let now = self.env.now();
        while let Some(first) = self
            .deadlines
            .first_entry()
            .filter(|first| first.key().0 <= now)
        {
            match first.remove() {
                Deadline::Remove(task, run) => self.remove_ended(&task, run, ctx),
                Deadline::QueueTtl(task, run) => self.expire_waiting(&task, run, ctx),
                Deadline::AbortGrace => self.abort_grace_over(ctx),
                Deadline::ProbeDirectory(directory) => self.probe_directory(&directory),
            }
        }
        self.arm(ctx);
    }
}

fn not_written_in_time() -> Arc<str> {
    let limit = duration_text(WRITTEN_WITHIN);
    format!("the write did not finish within {limit}").into()
}

fn random_seed() -> [u8; 32] {
    use rand::TryRng;
    use rand::rngs::SysRng;
    let mut seed = [0; 32];
    if SysRng.try_fill_bytes(&mut seed).is_err() {
        // Without the system's randomness the clock is the seed: ids are names, not secrets.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = since.unwrap_or_default().as_nanos();
        seed[..16].copy_from_slice(&nanos.to_le_bytes());
    }
    seed
}
