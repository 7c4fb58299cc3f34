//! What outlives a registry that dies, so that the next one finds it: which actors live, which calls and aborts are under
//! way, which slots are held, the limits as they were last set. Everything here is either an address or is given back by
//! being dropped; what is decided about it is decided by the registry alone.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, Addr};
use tokio::sync::{oneshot, watch};

use super::actor_ref::ActorRef;
use super::registry::{AbortDone, TaskRegistry};
use crate::config::Limits;
use crate::domain::concurrency::PermitId;
use crate::domain::ids::{ConcurrencyKey, NoticeId, Run, TaskId};
use crate::handle::ShutdownMode;
use crate::maps::Map;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Actors of one kind by name, each with a number that tells it from others of that name.
pub(crate) type LiveActors<K, A> = BTreeMap<K, (u64, Addr<A>)>;

type ByName<K, A> = Map<K, (u64, Addr<A>)>;

/// Where they are kept. Written by the registry.
pub(crate) struct ActorDirectory<K, A: Actor>(Arc<Mutex<ByName<K, A>>>);

impl<K, A: Actor> Clone for ActorDirectory<K, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, A: Actor> Default for ActorDirectory<K, A> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Ord + Hash + Clone, A: Actor> ActorDirectory<K, A> {
    pub(crate) fn put(&self, name: K, number: u64, actor: Addr<A>) {
        lock(&self.0).insert(name, (number, actor));
    }

    pub(crate) fn remove(&self, name: &K) {
        let removed = lock(&self.0).remove(name);
        drop(removed);
    }

    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.0));
        drop(all);
    }

    /// Takes out all that live, in the order of their names.
    pub(crate) fn take_live(&self) -> LiveActors<K, A> {
        let mut live = std::mem::take(&mut *lock(&self.0));
        live.retain(|_, (_, actor)| actor.connected());
        live.into_iter().collect()
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

/// By run: whether somebody has prompted its session since.
type Superseded = BTreeMap<(TaskId, Run), Arc<AtomicBool>>;

/// The aborts of ended runs that are not answered.
#[derive(Clone, Default)]
pub(crate) struct PendingAborts(Arc<Mutex<Superseded>>);

impl PendingAborts {
    /// Somebody has to answer for the abort of that run from now on, if one is wanted; the ticket is how.
    pub(crate) fn begin(
        &self,
        task: TaskId,
        run: Run,
        superseded: Arc<AtomicBool>,
        wanted: bool,
        registry: ActorRef<TaskRegistry>,
    ) -> AbortTicket {
        lock(&self.0).insert((task.clone(), run), Arc::clone(&superseded));
        AbortTicket {
            task,
            run,
            superseded,
            settled: AtomicBool::new(!wanted),
            needless: AtomicBool::new(!wanted),
            aborts: self.clone(),
            registry,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Nobody waits for any of them any more.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }

    /// The newest abort of a task that is not answered: the flag that says whether somebody has prompted the session since.
    pub(crate) fn of(&self, task: &TaskId) -> Option<Arc<AtomicBool>> {
        let aborts = lock(&self.0);
        let of_task = aborts.range((task.clone(), Run(0))..=(task.clone(), Run(u32::MAX)));
        of_task.last().map(|(_, superseded)| Arc::clone(superseded))
    }
}

/// Whoever holds it answers for the abort of an ended run. Dropping it says that the abort was answered, given up, or not
/// needed; it cannot be forgotten. Dropped before that was settled, by a panic, it says so: the abort is still to be made.
pub(crate) struct AbortTicket {
    task: TaskId,
    run: Run,
    superseded: Arc<AtomicBool>,
    settled: AtomicBool,
    /// Nothing has to be looked after any more either.
    needless: AtomicBool,
    aborts: PendingAborts,
    registry: ActorRef<TaskRegistry>,
}

impl AbortTicket {
    /// The abort was answered; whoever made it still looks whether it had its effect.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// No abort is needed.
    pub(crate) fn not_needed(&self) {
        self.needless.store(true, Ordering::Release);
        self.settle();
    }

    /// Set once somebody prompts the session again.
    pub(crate) fn superseded(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.superseded)
    }
}

impl Drop for AbortTicket {
    fn drop(&mut self) {
        // Nothing here can panic: a panic in a drop while unwinding would end the process.
        lock(&self.aborts.0).remove(&(self.task.clone(), self.run));
        self.registry.send(AbortDone {
            task: self.task.clone(),
            run: self.run,
            superseded: Arc::clone(&self.superseded),
            settled: self.settled.load(Ordering::Acquire),
            needless: self.needless.load(Ordering::Acquire),
        });
    }
}

/// What a call whose effect cannot be taken back is known by while it is under way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CallId {
    /// A session is made for that attempt of a run.
    Create(TaskId, Run, u32),
    /// That prompt of a run.
    Prompt(TaskId, Run, u32),
    /// A message to a parent.
    Notice(NoticeId),
}

/// Calls whose effect cannot be taken back, while they are under way.
#[derive(Clone, Default)]
pub(crate) struct CallsInFlight(Arc<Mutex<Calls>>);

/// Whoever waits for the end of a call hears it when this is dropped.
type Waiting = Vec<oneshot::Sender<()>>;

#[derive(Default)]
struct Calls {
    next: u64,
    by_call: BTreeMap<(CallId, u64), Waiting>,
}

/// A call is under way until this is dropped.
pub(crate) struct CallGuard {
    name: (CallId, u64),
    calls: CallsInFlight,
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let waiting = lock(&self.calls.0).by_call.remove(&self.name);
        drop(waiting);
    }
}

impl CallsInFlight {
    pub(crate) fn begin(&self, call: CallId) -> CallGuard {
        let mut calls = lock(&self.0);
        calls.next += 1;
        let name = (call, calls.next);
        calls.by_call.insert(name.clone(), Vec::new());
        CallGuard {
            name,
            calls: self.clone(),
        }
    }

    /// ReadWaits until no call of that name is under way, at most that long. A call whose maker has died may still have its
    /// effect: only after it is over can be looked for what it has left.
    pub(crate) async fn finished(&self, call: &CallId, limit: Duration) {
        let ends: Vec<oneshot::Receiver<()>> = {
            let mut calls = lock(&self.0);
            let named = (call.clone(), 0)..=(call.clone(), u64::MAX);
            let waited_for = calls.by_call.range_mut(named).map(|(_, waiting)| {
                // Who gave up waiting is not kept.
                waiting.retain(|waits| !waits.is_closed());
                let (sender, receiver) = oneshot::channel();
                waiting.push(sender);
                receiver
            });
            waited_for.collect()
        };
        let all = async {
            for end in ends {
                // An error says that the call is over; nothing is ever sent.
                let _ = end.await;
            }
        };
        // Longer than its limit no call lasts.
        let _ = tokio::time::timeout(limit, all).await;
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.0).by_call.len()
    }
}

/// The slots that are held: a slot is held as long as its permit exists.
#[derive(Clone, Default, Debug)]
pub(crate) struct HeldPermits(
    Arc<Mutex<BTreeMap<PermitId, ConcurrencyKey>>>,
    Arc<AtomicU64>,
);

impl HeldPermits {
    pub(crate) fn insert(&self, permit: PermitId, key: ConcurrencyKey) {
        self.1.fetch_max(permit.0, Ordering::AcqRel);
        lock(&self.0).insert(permit, key);
    }

    pub(crate) fn remove(&self, permit: PermitId) {
        lock(&self.0).remove(&permit);
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Every slot held, and the number after which new permits are counted.
    pub(crate) fn all(&self) -> (Vec<(PermitId, ConcurrencyKey)>, u64) {
        let held = lock(&self.0);
        let all = held.iter().map(|(permit, key)| (*permit, key.clone()));
        (all.collect(), self.1.load(Ordering::Acquire))
    }
}

/// What was set or found out while the system ran. Written by the registry.
pub(crate) struct RuntimeFlags {
    limits: Mutex<Limits>,
    reachable: AtomicBool,
    closing: watch::Sender<Option<ShutdownMode>>,
    generations: AtomicU64,
}

impl RuntimeFlags {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits: Mutex::new(limits),
            reachable: AtomicBool::new(true),
            closing: watch::Sender::new(None),
            generations: AtomicU64::new(0),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        lock(&self.limits).clone()
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        *lock(&self.limits) = limits;
    }

    pub(crate) fn reachable(&self) -> bool {
        self.reachable.load(Ordering::Acquire)
    }

    pub(crate) fn set_reachable(&self, reachable: bool) {
        self.reachable.store(reachable, Ordering::Release);
    }

    pub(crate) fn closing(&self) -> bool {
        self.closing.borrow().is_some()
    }

    /// How a shutdown that was asked for treats what is open.
    pub(crate) fn closing_mode(&self) -> Option<ShutdownMode> {
        *self.closing.borrow()
    }

    /// A shutdown is asked for. The first word counts.
    pub(crate) fn set_closing(&self, mode: ShutdownMode) {
        self.closing
            .send_modify(|closing| *closing = closing.or(Some(mode)));
    }

    /// ReadWaits until a shutdown is asked for.
    pub(crate) async fn closes(&self) {
        // The sender lives as long as this does.
        let _ = self.closing.subscribe().wait_for(Option::is_some).await;
    }

    /// The number of the registry that begins now, from 1.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::AcqRel) + 1
    }
}
