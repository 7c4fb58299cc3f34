//! TaskRegistry: owns the table of tasks, its indexes and the removal deadlines. It decides for every task that is not
//! running, routes events to the one who decides, and is the finaliser of every way to the end.
//!
//! Its rooms: `admission` (launch, resume, track), `line` (waiting), `runs`, `finaliser` (the end), `orders` (cancel, send,
//! takeover), `events` (the server's events, the way to the server), `parents` (batches and debts), `asks` (what children
//! wait for), `queries` (readers), `keepers` (the actors it answers for), `restoring` (how one begins where another
//! stopped), `shutdown`.

mod admission;
mod asks;
mod commands;
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
use std::time::Duration;

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
use super::task::TaskActor;
use super::toaster::Toaster;
use crate::config::Limits;
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
pub(crate) use events::LinkChanged;
pub(crate) use messages::{
    AbortDone, AbortOver, BatchClosed, DepthOf, DirectoryKnown, Granted, PendingMessages,
    RunChanged, RunEnded, RunPrompted, RunSnapshot, RunStarted, Unreachable, WakeAccepted,
};
pub(crate) use parents::Parent;
pub(crate) use queries::{
    CountTasks, Descendants, Find, FindDecided, FoundTask, KeyWait, ListTasks, ReadHistory,
    ReadReadiness, ReadWaits, TasksOf, WaitForRun,
};
pub(crate) use resource_counts::ReadResourceCounts;
pub(crate) use shutdown::Shutdown;
pub(crate) use supervision::supervise_registry;

/// A question that is answered at once.
pub(crate) trait Query: Send + 'static {
    type Answer: Send + 'static;
    /// True if the answer says what was decided, and so must be durable before it is given.
    const DECIDES: bool = false;

    fn answer(self, registry: &mut TaskRegistry, ctx: &mut Context<TaskRegistry>) -> Self::Answer;

    /// The answer to give instead where the journal cannot be written, for that reason, and the run that is taken back.
    fn on_journal_failure(
        answer: Self::Answer,
        _why: &str,
    ) -> (Self::Answer, Option<(TaskId, Run)>) {
        (answer, None)
    }
}

/// How long an answer that must be durable waits for the journal: one that hangs without failing must not keep anybody
/// waiting for ever.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// A question and where its answer goes.
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
            // Whoever asked may have gone away.
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
            // Whoever asked may have gone away.
            let _ = message.reply.send(answer);
        });
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct DeadlineReached;

/// What a deadline of the registry is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// An ended task leaves memory.
    Remove(TaskId, Run),
    /// A waiting task has waited too long.
    QueueTtl(TaskId, Run),
}

/// Names one deadline: deadlines of one instant come in the order in which they were set.
type DeadlineKey = (Timestamp, u64);

/// Somebody who waits for a run.
struct Waiter {
    run: Run,
    until: WaitFor,
    reply: oneshot::Sender<Option<Task>>,
}

/// A task in memory and all that belongs to it.
pub(crate) struct TaskEntry {
    /// Shared with whoever has the record: a change makes a copy of its own where somebody has.
    task: Arc<Task>,
    accepted: QueueSeq,
    /// Its place in line, while it waits there.
    queued: Option<QueueSeq>,
    actor: Option<Addr<TaskActor>>,
    /// The age it queued with, kept so that it can take its old place again.
    queue_seq: QueueSeq,
    /// The newest run that was granted a slot: if its actor dies while it starts, the session is looked for before one is
    /// made.
    granted_run: Option<Run>,
    /// The newest run whose prompt the server has.
    prompted: Option<Run>,
    /// The newest run whose session needs no abort any more.
    aborted: Option<Run>,
    /// The order to end it that its actor was given first.
    requested_end: Option<Box<End>>,
    /// Granted while the abort of the run before was not answered.
    granted: Option<Box<SlotPermit>>,
    /// The parent whose batch it is in.
    batch: Option<SessionId>,
    superseded: Arc<AtomicBool>,
    removal: Option<DeadlineKey>,
    expiry: Option<DeadlineKey>,
    waiters: Vec<Waiter>,
    sent_dependents: (usize, bool),
    deaths: u32,
    /// As it was appended last.
    record: Option<Arc<Task>>,
    /// How many of its changes readers have not been shown yet, and what they see of it meanwhile.
    unpublished: usize,
    published: Option<Arc<Task>>,
}

struct WaitQueue {
    queue: Addr<KeyQueue>,
    waiting: BTreeMap<QueueSeq, TaskId>,
}

/// Where the other actors are, and what outlives a registry.
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
    /// True while it has asked to be told when more is durable.
    awaits_durable: bool,
    closing: Option<shutdown::Closing>,
    /// Room for events, empty between two turns.
    batch: Vec<SessionEvent>,
}

impl TaskRegistry {
    pub(crate) fn new(env: Env, refs: ActorRefs, changes: Changes) -> Self {
        env.failpoints.hit("registry: start");
        let generation = refs.flags.next_generation();
        let mut rng = match env.config.seed {
            Some(seed) => ChaCha8Rng::seed_from_u64(seed),
            None => ChaCha8Rng::from_seed(random_seed()),
        };
        // A later registry must not draw what an earlier one has drawn.
        rng.set_stream(generation);
        Self {
            limits: refs.flags.limits(),
            reachable: refs.flags.reachable(),
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
            parents: BTreeMap::new(),
            histories: Histories::default(),
            deadlines: BTreeMap::new(),
            timer: None,
            next_seq: 1,
            // Numbers tell queues and notifiers from those of an earlier registry.
            next_number: generation << 40,
            rng,
            probing: false,
            probe_tries: 0,
            awaits_durable: false,
            closing: None,
            batch: Vec::new(),
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

    /// Eight hex digits of a random UUID, drawn again if any known task has them.
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

    /// One timer for the earliest deadline.
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
            }
        }
        self.arm(ctx);
    }
}

fn not_written_in_time() -> Arc<str> {
    let limit = duration_text(WRITTEN_WITHIN);
    format!("what was asked for was not written within {limit}").into()
}

fn random_seed() -> [u8; 32] {
    use rand::TryRng;
    use rand::rngs::SysRng;
    let mut seed = [0; 32];
    if SysRng.try_fill_bytes(&mut seed).is_err() {
        // Without the machine's randomness the clock must do: ids are names, not secrets.
        let nanos = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
        seed[..8].copy_from_slice(&nanos.to_le_bytes());
    }
    seed
}
