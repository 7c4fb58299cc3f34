//! The slot table: the limit of each key, the holders of slots, and the order of grants. The only accounting of slots;
//! the slot manager is its actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ids::ConcurrencyKey;
use crate::config::Limits;

/// The unit that a limit counts: one key, or a provider with all of its models without their own entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    Key(ConcurrencyKey),
    Provider(Arc<str>),
}

/// Identifies one held slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermitId(pub u64);

/// The position in the order of acceptance; smaller is older.
pub type QueueSeq = u64;

impl Limits {
    /// Returns the limit of a key, zero for unlimited: its own entry, else the limit of its provider, else the default.
    /// The provider of a key is the text before the first `/`.
    pub fn of(&self, key: &ConcurrencyKey) -> u32 {
        self.rule(key).1
    }

    /// Returns true if two keys count against the same limit.
    pub fn share_limit(&self, one: &ConcurrencyKey, other: &ConcurrencyKey) -> bool {
        self.rule(one).0 == self.rule(other).0
    }

    fn rule(&self, key: &ConcurrencyKey) -> (Bucket, u32) {
        let text = key.as_str();
        if let Some(&limit) = self.models.get(text) {
            return (Bucket::Key(key.clone()), limit);
        }
        // An agent named like a provider has that provider's limit, but its own slots.
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

/// The head of a key's queue, in the order of grants. The key breaks ties.
type QueueHead = (QueueSeq, ConcurrencyKey);

/// The use of one limit.
#[derive(Debug, Default)]
struct LimitUsage {
    limit: u32,
    held: usize,
    queue_heads: BTreeSet<QueueHead>,
    /// The oldest head, if the limit has room: its entry in `SlotTable::ready`.
    ready: Option<QueueHead>,
}

impl LimitUsage {
    fn has_room(&self) -> bool {
        self.limit == 0 || self.held < self.limit as usize
    }
}

/// The holders of slots, the requests for slots, and the limits. The cost of a grant does not depend on the number of
/// holders or waiting keys.
#[derive(Debug)]
pub struct SlotTable {
    limits: Limits,
    holders: BTreeMap<PermitId, (ConcurrencyKey, Bucket)>,
    queue_heads: BTreeMap<ConcurrencyKey, (QueueSeq, Bucket)>,
    // One entry per bucket with a holder or a head.
    usage: BTreeMap<Bucket, LimitUsage>,
    // The oldest head of every bucket with a head and room.
    ready: BTreeMap<QueueHead, Bucket>,
    next: u64,
    open: bool,
}

impl SlotTable {
    /// Creates an empty table.
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

    /// Requests a slot for the head of a key's queue. A repeated request replaces its position.
    pub fn request(&mut self, key: ConcurrencyKey, queue_seq: QueueSeq) {
        self.withdraw(&key);
        let (bucket, limit) = self.limits.rule(&key);
        self.queue_heads
            .insert(key.clone(), (queue_seq, bucket.clone()));
        self.change(bucket, limit, |usage| {
            usage.queue_heads.insert((queue_seq, key));
        });
    }

    /// Withdraws the request of a key.
    pub fn withdraw(&mut self, key: &ConcurrencyKey) {
        if let Some((queue_seq, bucket)) = self.queue_heads.remove(key) {
            let limit = self.limits.of(key);
            self.change(bucket, limit, |usage| {
                usage.queue_heads.remove(&(queue_seq, key.clone()));
            });
        }
    }

    /// Releases a slot. Returns false if the slot was released before: a release is idempotent.
    pub fn release(&mut self, permit: PermitId) -> bool {
        let Some((key, bucket)) = self.holders.remove(&permit) else {
            return false;
        };
        let limit = self.limits.of(&key);
        self.change(bucket, limit, |usage| usage.held -= 1);
        true
    }

    /// Takes a slot at once, above the limit if necessary, so that new starts wait.
    pub fn adopt(&mut self, key: ConcurrencyKey) -> PermitId {
        let permit = PermitId(self.next);
        self.next += 1;
        self.hold(permit, key);
        permit
    }

    /// Continues permit ids after `last`, the last id of an earlier table.
    pub fn continue_after(&mut self, last: u64) {
        self.next = self.next.max(last + 1);
    }

    /// Restores a slot that an earlier table granted.
    pub fn restore(&mut self, permit: PermitId, key: ConcurrencyKey) {
        self.next = self.next.max(permit.0 + 1);
        self.hold(permit, key);
    }

    /// Opens or closes the table. A closed table grants no slot (the server is unreachable, or the system shuts down).
    pub fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// Changes the limits. A higher limit grants waiting requests at the next [`SlotTable::grant`]; a lower limit
    /// revokes no slot.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        // A key may now count against another limit: everything is counted again.
        self.usage.clear();
        self.ready.clear();
        for (permit, (key, _)) in std::mem::take(&mut self.holders) {
            self.hold(permit, key);
        }
        for (key, (queue_seq, _)) in std::mem::take(&mut self.queue_heads) {
            self.request(key, queue_seq);
        }
    }

    /// Returns the limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Grants one slot to the oldest head with room. Called until it returns none.
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

    /// Returns the slots in use under the limit of a key.
    pub fn used_against(&self, key: &ConcurrencyKey) -> usize {
        let (bucket, _) = self.limits.rule(key);
        self.usage.get(&bucket).map_or(0, |usage| usage.held)
    }

    /// Returns the number of slots held by each key.
    pub fn held_by_key(&self) -> BTreeMap<ConcurrencyKey, usize> {
        let mut held = BTreeMap::new();
        for (key, _) in self.holders.values() {
            *held.entry(key.clone()).or_default() += 1;
        }
        held
    }

    /// Returns the number of slots held by all keys.
    pub fn held(&self) -> usize {
        self.holders.len()
    }

    /// Returns the number of keys with a pending request.
    pub fn requested(&self) -> usize {
        self.queue_heads.len()
    }

    fn hold(&mut self, permit: PermitId, key: ConcurrencyKey) {
        let (bucket, limit) = self.limits.rule(&key);
        let before = self.holders.insert(permit, (key, bucket.clone()));
        debug_assert!(before.is_none(), "a permit has one holder");
        self.change(bucket, limit, |usage| usage.held += 1);
    }

    /// Changes the use of a limit, and updates the order of grants.
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

    /// The reference model: counts everything each time.
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
        /// After any sequence of operations the grant equals the grant of the reference model.
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

        /// After any sequence of operations no grant exceeds a limit.
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
