//! State that is kept over restarts of the registry: addresses of running actors, calls and aborts in flight, held slots, the
//! current limits. Every entry is an address, a setting, or is removed by the drop of a guard. Decisions about this state
//! belong to the registry alone.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Addr};
use tokio::sync::{oneshot, watch};

use super::actor_ref::ActorRef;
use super::registry::{AbortCallEnded, TaskRegistry};
use crate::config::Limits;
use crate::domain::concurrency::PermitId;
use crate::domain::ids::{ConcurrencyKey, NoticeId, Run, TaskId};
use crate::handle::ShutdownMode;
use crate::lock::lock;
use crate::maps::Map;

/// Actors of one kind by name, each with a number that distinguishes it from others of that name.
pub(crate) type LiveActors<K, A> = BTreeMap<K, (u64, Addr<A>)>;

type ByName<K, A> = Map<K, (u64, Addr<A>)>;

/// The addresses of the actors of one kind. Written by the registry. Clones share the directory.
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

    /// Takes out the actors that are running, in the order of their names, and removes the others.
    pub(crate) fn take_live(&self) -> LiveActors<K, A> {
        let mut live = std::mem::take(&mut *lock(&self.0));
        live.retain(|_, (_, actor)| actor.connected());
        live.into_iter().collect()
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

/// By run: a flag that is set once the session is prompted again.
type Superseded = BTreeMap<(TaskId, Run), Arc<AtomicBool>>;

/// The aborts of ended runs that are not answered yet. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct PendingAborts(Arc<Mutex<Superseded>>);

impl PendingAborts {
    /// Registers the abort of an ended run. The holder of the ticket is responsible for the abort; if `wanted` is false, no
    /// abort is needed and the ticket is settled from the start.
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

    /// Removes all aborts, so that no resume and no shutdown waits for one.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }

    /// Returns the flag of the newest pending abort of a task. It is set once the session is prompted again.
    pub(crate) fn of(&self, task: &TaskId) -> Option<Arc<AtomicBool>> {
        let aborts = lock(&self.0);
        let of_task = aborts.range((task.clone(), Run(0))..=(task.clone(), Run(u32::MAX)));
        of_task.last().map(|(_, superseded)| Arc::clone(superseded))
    }
}

/// The responsibility for the abort of an ended run. Dropping the ticket reports to the registry that the abort was
/// answered, given up, or not needed. A ticket dropped by a panic, before it was settled, reports that too: the registry
/// aborts again.
pub(crate) struct AbortTicket {
    task: TaskId,
    run: Run,
    /// Written by the registry when the session is prompted again; read by the abort, which then stops.
    superseded: Arc<AtomicBool>,
    /// Written by the abort when it is answered or given up; the registry receives it when the ticket is dropped.
    settled: AtomicBool,
    /// True if no abort is needed and none is checked afterwards.
    needless: AtomicBool,
    aborts: PendingAborts,
    registry: ActorRef<TaskRegistry>,
}

impl AbortTicket {
    /// Marks the abort as answered; its effect may still be checked.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// Marks the abort as not needed.
    pub(crate) fn not_needed(&self) {
        self.needless.store(true, Ordering::Release);
        self.settle();
    }

    /// Returns the flag that is set once the session is prompted again.
    pub(crate) fn superseded(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.superseded)
    }
}

impl Drop for AbortTicket {
    fn drop(&mut self) {
        // Nothing here may panic: a panic in a drop during unwinding aborts the process.
        lock(&self.aborts.0).remove(&(self.task.clone(), self.run));
        self.registry.send(AbortCallEnded {
            task: self.task.clone(),
            run: self.run,
            superseded: Arc::clone(&self.superseded),
            settled: self.settled.load(Ordering::Acquire),
            needless: self.needless.load(Ordering::Acquire),
        });
    }
}

/// Identifies a call in flight whose effect cannot be undone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CallId {
    /// Creates the session for that attempt of a run.
    Create(TaskId, Run, u32),
    /// Sends the prompt of that number of a run.
    Prompt(TaskId, Run, u32),
    /// Sends a message to a parent.
    Notice(NoticeId),
}

/// Calls in flight whose effect cannot be undone. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct CallsInFlight(Arc<Mutex<Calls>>);

/// The waiters for the end of a call; dropping the senders wakes them.
type Waiting = Vec<oneshot::Sender<()>>;

#[derive(Default)]
struct Calls {
    next: u64,
    by_call: BTreeMap<(CallId, u64), Waiting>,
}

/// Marks a call as in flight until it is dropped.
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

    /// Waits until no call of that id is in flight, at most for `limit`. A call can outlive the actor that made it: its
    /// effect can be looked up only after the call has ended. Returns false if a call is still in flight.
    pub(crate) async fn finished(&self, call: &CallId, limit: Duration) -> bool {
        let ends: Vec<oneshot::Receiver<()>> = {
            let mut calls = lock(&self.0);
            let named = (call.clone(), 0)..=(call.clone(), u64::MAX);
            let waited_for = calls.by_call.range_mut(named).map(|(_, waiting)| {
                // Waiters that gave up are removed.
                waiting.retain(|waits| !waits.is_closed());
                let (sender, receiver) = oneshot::channel();
                waiting.push(sender);
                receiver
            });
            waited_for.collect()
        };
        let all = async {
            for end in ends {
                // The sender is dropped at the end of the call; no value is ever sent.
                let _ = end.await;
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.0).by_call.len()
    }
}

/// The slots that are held: a slot is held as long as its permit exists. Clones share them.
#[derive(Clone, Default, Debug)]
pub(crate) struct HeldPermits {
    held: Arc<Mutex<BTreeMap<PermitId, ConcurrencyKey>>>,
    /// The highest permit id so far.
    last: Arc<AtomicU64>,
}

impl HeldPermits {
    pub(crate) fn insert(&self, permit: PermitId, key: ConcurrencyKey) {
        self.last.fetch_max(permit.0, Ordering::AcqRel);
        lock(&self.held).insert(permit, key);
    }

    pub(crate) fn remove(&self, permit: PermitId) {
        lock(&self.held).remove(&permit);
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.held).len()
    }

    /// Returns every held slot, and the number after which new permit ids continue.
    pub(crate) fn all(&self) -> (Vec<(PermitId, ConcurrencyKey)>, u64) {
        let held = lock(&self.held);
        let all = held.iter().map(|(permit, key)| (*permit, key.clone()));
        (all.collect(), self.last.load(Ordering::Acquire))
    }
}

/// Settings and observations of the running system. Written by the registry; `closing` is written by the handle.
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

    /// Returns the mode of the requested shutdown, if one was requested.
    pub(crate) fn closing_mode(&self) -> Option<ShutdownMode> {
        *self.closing.borrow()
    }

    /// Requests a shutdown. The first request decides the mode.
    pub(crate) fn set_closing(&self, mode: ShutdownMode) {
        self.closing
            .send_modify(|closing| *closing = closing.or(Some(mode)));
    }

    /// Waits until a shutdown is requested.
    pub(crate) async fn wait_for_closing(&self) {
        // An error is impossible: the sender is a field of `self`.
        let _ = self.closing.subscribe().wait_for(Option::is_some).await;
    }

    /// Returns the number of the registry that starts now, from 1.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::AcqRel) + 1
    }
}
