//! Slots: which limit a key counts against, who holds one, whose turn it is, and why a key waits. The one accounting of
//! slots; the slot manager is its mailbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ids::ConcurrencyKey;
use crate::config::Limits;

/// What a limit is counted on: one key, or a provider for all of its models without an entry of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    Key(ConcurrencyKey),
    Provider(Arc<str>),
}

/// Names one slot that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermitId(pub u64);

/// The order of acceptance; the smaller is the older.
pub type QueueSeq = u64;

impl Limits {
    /// The limit of a key, zero for none: its own entry, else its provider's, else the default. In a key given as text
    /// the provider is what stands before the first `/`.
    pub fn of(&self, key: &ConcurrencyKey) -> u32 {
        self.rule(key).1
    }

    /// True if two keys count against one limit.
    pub fn share_limit(&self, one: &ConcurrencyKey, other: &ConcurrencyKey) -> bool {
        self.rule(one).0 == self.rule(other).0
    }

    fn rule(&self, key: &ConcurrencyKey) -> (Bucket, u32) {
        let text = key.as_str();
        if let Some(&limit) = self.models.get(text) {
            return (Bucket::Key(key.clone()), limit);
        }
        // An agent called like a provider reads that entry, but its slots are its own.
        match text.split_once('/') {
            Some((provider, _)) => match self.providers.get(provider) {
                Some(&limit) => (Bucket::Provider(provider.into()), limit),
                None => (Bucket::Key(key.clone()), self.default),
            },
            None => (
                Bucket::Key(key.clone()),
                self.providers.get(text).copied().unwrap_or(self.default),
            ),
        }
    }
}

/// A head in the order in which heads are served; the name decides where two are of one age.
type QueueHead = (QueueSeq, ConcurrencyKey);

/// What counts against one limit.
#[derive(Debug, Default)]
struct LimitUsage {
    limit: u32,
    held: usize,
    queue_heads: BTreeSet<QueueHead>,
    /// Its oldest head, as it stands among those that have room.
    ready: Option<QueueHead>,
}

impl LimitUsage {
    fn has_room(&self) -> bool {
        self.limit == 0 || self.held < self.limit as usize
    }
}

/// Who holds a slot, who asks for one, and the limits between them. A grant costs the same however many hold a slot and
/// however many keys wait.
#[derive(Debug)]
pub struct SlotTable {
    limits: Limits,
    holders: BTreeMap<PermitId, (ConcurrencyKey, Bucket)>,
    queue_heads: BTreeMap<ConcurrencyKey, (QueueSeq, Bucket)>,
    // One for every bucket with a holder or a head.
    usage: BTreeMap<Bucket, LimitUsage>,
    // The oldest head of every bucket that has one, and room.
    ready: BTreeMap<QueueHead, Bucket>,
    next: u64,
    open: bool,
}

impl SlotTable {
    /// Nothing held, nothing asked for.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            holders: BTreeMap::new(),
            queue_heads: BTreeMap::new(),
            usage: BTreeMap::new(),
            ready: BTreeMap::new(),
            next: 1,
            open: true,
        }
    }

    /// A key's head asks for a slot. Asking again replaces its age.
    pub fn request(&mut self, key: ConcurrencyKey, queue_seq: QueueSeq) {
        self.withdraw(&key);
        let (bucket, limit) = self.limits.rule(&key);
        self.queue_heads
            .insert(key.clone(), (queue_seq, bucket.clone()));
        self.change(bucket, limit, |usage| {
            usage.queue_heads.insert((queue_seq, key));
        });
    }

    /// Nobody waits for that key any more.
    pub fn withdraw(&mut self, key: &ConcurrencyKey) {
        if let Some((queue_seq, bucket)) = self.queue_heads.remove(key) {
            let limit = self.limits.of(key);
            self.change(bucket, limit, |usage| {
                usage.queue_heads.remove(&(queue_seq, key.clone()));
            });
        }
    }

    /// A slot comes back. False if it had come back already: a release is idempotent by holder.
    pub fn release(&mut self, permit: PermitId) -> bool {
        let Some((key, bucket)) = self.holders.remove(&permit) else {
            return false;
        };
        let limit = self.limits.of(&key);
        self.change(bucket, limit, |usage| usage.held -= 1);
        true
    }

    /// A slot at once, above the limit if it must be, so that new starts wait.
    pub fn adopt(&mut self, key: ConcurrencyKey) -> PermitId {
        let permit = PermitId(self.next);
        self.next += 1;
        self.hold(permit, key);
        permit
    }

    /// Numbers of permits up to that one have been given by a predecessor.
    pub fn continue_after(&mut self, last: u64) {
        self.next = self.next.max(last + 1);
    }

    /// Takes over a slot that a predecessor had given.
    pub fn restore(&mut self, permit: PermitId, key: ConcurrencyKey) {
        self.next = self.next.max(permit.0 + 1);
        self.hold(permit, key);
    }

    /// While closed no slot is granted (the server cannot be reached, or we are shutting down).
    pub fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// Changes the limits. Raising one grants what waits, at the next [`SlotTable::grant`]; lowering stops nothing.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        // Which limit a key counts against may be another now: everything is counted anew.
        self.usage.clear();
        self.ready.clear();
        for (permit, (key, _)) in std::mem::take(&mut self.holders) {
            self.hold(permit, key);
        }
        for (key, (queue_seq, _)) in std::mem::take(&mut self.queue_heads) {
            self.request(key, queue_seq);
        }
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Gives one slot to the oldest head that has room, if any has. Called until it answers none.
    pub fn grant(&mut self) -> Option<(ConcurrencyKey, PermitId)> {
        if !self.open || (self.limits.max > 0 && self.holders.len() >= self.limits.max as usize) {
            return None;
        }
        let ((_, key), _) = self.ready.first_key_value()?;
        let key = key.clone();
        self.withdraw(&key);
        let permit = self.adopt(key.clone());
        Some((key, permit))
    }

    /// Slots held of the limit that a key counts against.
    pub fn used_against(&self, key: &ConcurrencyKey) -> usize {
        let (bucket, _) = self.limits.rule(key);
        self.usage.get(&bucket).map_or(0, |usage| usage.held)
    }

    /// Slots that a key itself holds, for every key that holds any.
    pub fn held_by_key(&self) -> BTreeMap<ConcurrencyKey, usize> {
        let mut held = BTreeMap::new();
        for (key, _) in self.holders.values() {
            *held.entry(key.clone()).or_default() += 1;
        }
        held
    }

    /// Slots held by all keys together.
    pub fn held(&self) -> usize {
        self.holders.len()
    }

    /// Keys whose oldest waiting start has asked for a slot.
    pub fn requested(&self) -> usize {
        self.queue_heads.len()
    }

    fn hold(&mut self, permit: PermitId, key: ConcurrencyKey) {
        let (bucket, limit) = self.limits.rule(&key);
        let before = self.holders.insert(permit, (key, bucket.clone()));
        debug_assert!(before.is_none(), "a permit has one holder");
        self.change(bucket, limit, |usage| usage.held += 1);
    }

    /// Changes what counts against a limit, and what follows from it for whose turn it is.
    fn change(&mut self, bucket: Bucket, limit: u32, change: impl FnOnce(&mut LimitUsage)) {
        let usage = self.usage.entry(bucket.clone()).or_default();
        usage.limit = limit;
        change(usage);
        let next = if usage.has_room() {
            usage.queue_heads.first().cloned()
        } else {
            None
        };
        let unused = usage.held == 0 && usage.queue_heads.is_empty();
        if usage.ready != next {
            if let Some(before) = usage.ready.take() {
                self.ready.remove(&before);
            }
            if let Some(next) = &next {
                self.ready.insert(next.clone(), bucket.clone());
            }
            usage.ready = next;
        }
        if unused {
            self.usage.remove(&bucket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> Limits {
        Limits {
            default: 2,
            providers: [("acme".to_owned(), 2)].into(),
            models: [("acme/big".to_owned(), 1), ("acme/free".to_owned(), 0)].into(),
            ..Limits::default()
        }
    }

    fn key(text: &str) -> ConcurrencyKey {
        text.into()
    }

    fn take(table: &mut SlotTable, text: &str, queue_seq: QueueSeq) -> Option<PermitId> {
        table.request(key(text), queue_seq);
        let granted = table.grant();
        table.withdraw(&key(text));
        granted.map(|(_, permit)| permit)
    }

    #[test]
    fn most_specific_rule_wins() {
        assert_eq!(limits().of(&key("acme/big")), 1);
        assert_eq!(limits().of(&key("acme/free")), 0);
        assert_eq!(limits().of(&key("acme/other/x")), 2);
        assert_eq!(limits().of(&key("worker")), 2);
        assert_eq!(limits().of(&key("constructor")), 2);
    }

    #[test]
    fn provider_limit_is_shared_by_its_models_only() {
        let mut table = SlotTable::new(limits());
        assert!(take(&mut table, "acme/small", 1).is_some());
        assert!(take(&mut table, "acme/tiny", 2).is_some());
        assert!(take(&mut table, "acme/small", 3).is_none());
        assert!(take(&mut table, "acme/big", 4).is_some());
        assert!(take(&mut table, "acme", 5).is_some());
    }

    #[test]
    fn oldest_head_is_granted_first_across_keys() {
        let mut table = SlotTable::new(Limits { max: 1, ..limits() });
        let held = take(&mut table, "a", 1).unwrap();
        table.request(key("z"), 2);
        table.request(key("b"), 3);
        assert!(table.grant().is_none());
        assert!(table.release(held));
        assert_eq!(table.grant().unwrap().0, key("z"));
    }

    #[test]
    fn slot_is_released_once() {
        let mut table = SlotTable::new(limits());
        let held = take(&mut table, "a", 1).unwrap();
        assert!(table.release(held));
        assert!(!table.release(held));
        assert_eq!(table.held(), 0);
    }

    #[test]
    fn lower_limit_keeps_holders_and_higher_limit_grants() {
        let mut table = SlotTable::new(limits());
        take(&mut table, "a", 1).unwrap();
        take(&mut table, "a", 2).unwrap();
        table.set_limits(Limits {
            default: 1,
            ..limits()
        });
        assert_eq!(table.held(), 2);
        table.request(key("a"), 3);
        assert!(table.grant().is_none());
        table.set_limits(Limits {
            default: 3,
            ..limits()
        });
        assert!(table.grant().is_some());
    }

    /// The same accounting, told the plain way: everything is counted each time.
    fn oldest_with_room(
        table: &SlotTable,
        queue_heads: &BTreeMap<ConcurrencyKey, QueueSeq>,
        held: &[(PermitId, ConcurrencyKey)],
    ) -> Option<QueueSeq> {
        let limits = table.limits();
        if limits.max > 0 && held.len() >= limits.max as usize {
            return None;
        }
        let has_room = |key: &ConcurrencyKey| {
            let used = held
                .iter()
                .filter(|(_, other)| limits.share_limit(other, key));
            limits.of(key) == 0 || used.count() < limits.of(key) as usize
        };
        let seqs = queue_heads
            .iter()
            .filter(|(key, _)| has_room(key))
            .map(|(_, queue_seq)| *queue_seq);
        seqs.min()
    }

    proptest! {
        /// Whatever is asked, withdrawn, released, adopted and changed: the slot goes to whom a plain count gives it.
        #[test]
        fn grants_equal_reference_model(moves in proptest::collection::vec((0u8..6, 0usize..5, 0u32..4), 1..200)) {
            let names = ["acme/a", "acme/b", "acme/big", "worker", "acme"];
            let mut table = SlotTable::new(limits());
            let (mut queue_heads, mut held) = (BTreeMap::new(), Vec::new());
            for (queue_seq, (change, which, number)) in moves.into_iter().enumerate() {
                let (name, queue_seq) = (key(names[which]), queue_seq as u64);
                match change {
                    0 | 1 => {
                        table.request(name.clone(), queue_seq);
                        queue_heads.insert(name, queue_seq);
                    }
                    2 if !held.is_empty() => {
                        let (permit, _) = held.remove(which % held.len());
                        prop_assert!(table.release(permit));
                    }
                    3 => {
                        let providers = [("acme".to_owned(), number)].into();
                        table.set_limits(Limits { default: number, max: number * 2, providers, ..limits() });
                    }
                    4 => {
                        table.withdraw(&name);
                        queue_heads.remove(&name);
                    }
                    _ => held.push((table.adopt(name.clone()), name)),
                }
                loop {
                    let expected = oldest_with_room(&table, &queue_heads, &held);
                    let granted = table.grant();
                    let queue_seq = granted.as_ref().and_then(|(key, _)| queue_heads.remove(key));
                    prop_assert_eq!(queue_seq, expected);
                    let Some((key, permit)) = granted else { break };
                    held.push((permit, key));
                }
                prop_assert_eq!(table.requested(), queue_heads.len());
                prop_assert_eq!(table.held(), held.len());
                for name in names {
                    let used = held.iter().filter(|(_, other)| table.limits().share_limit(other, &key(name)));
                    prop_assert_eq!(table.used_against(&key(name)), used.count());
                }
            }
        }

        /// No grant is ever made over a limit, whatever is asked, released and changed in whatever order.
        #[test]
        fn no_grant_exceeds_a_limit(moves in proptest::collection::vec((0u8..4, 0usize..5, 0u32..4), 1..200)) {
            let names = ["acme/a", "acme/b", "acme/big", "worker", "acme"];
            let mut table = SlotTable::new(limits());
            let mut held = Vec::new();
            for (queue_seq, (change, which, number)) in moves.into_iter().enumerate() {
                match change {
                    0 => table.request(key(names[which]), queue_seq as u64),
                    1 if !held.is_empty() => { table.release(held.remove(which % held.len())); }
                    2 => table.set_limits(Limits { default: number, max: number * 2, ..limits() }),
                    _ => {}
                }
                let before = table.held();
                let mut granted = 0;
                while let Some((key, permit)) = table.grant() {
                    let limit = table.limits().of(&key) as usize;
                    prop_assert!(limit == 0 || table.used_against(&key) <= limit);
                    granted += 1;
                    held.push(permit);
                }
                let max = table.limits().max as usize;
                prop_assert!(max == 0 || granted == 0 || before + granted <= max);
                prop_assert_eq!(table.held(), held.len());
            }
        }
    }
}
