//! Slots: which limit a key counts against, who holds one, whose turn it is, and why a key waits. The one accounting of
//! slots; the slot manager is its mailbox.

use std::collections::BTreeMap;

use super::ids::ConcurrencyKey;
use crate::config::Limits;

/// What a limit is counted on: one key, or a provider for all of its models without an entry of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    Key(ConcurrencyKey),
    Provider(String),
}

/// Names one slot that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermitId(pub u64);

/// The order of acceptance; the smaller is the older.
pub type Age = u64;

impl Limits {
    /// The limit of a key, zero for none: its own entry, else its provider's, else the default. In a key given as text
    /// the provider is what stands before the first `/`.
    pub fn of(&self, key: &ConcurrencyKey) -> u32 {
        self.rule(key).1
    }

    /// True if two keys count against one limit.
    pub fn share_a_limit(&self, one: &ConcurrencyKey, other: &ConcurrencyKey) -> bool {
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
                Some(&limit) => (Bucket::Provider(provider.to_owned()), limit),
                None => (Bucket::Key(key.clone()), self.default),
            },
            None => (
                Bucket::Key(key.clone()),
                self.providers.get(text).copied().unwrap_or(self.default),
            ),
        }
    }
}

/// Who holds a slot, who asks for one, and the limits between them.
#[derive(Debug)]
pub struct SlotTable {
    limits: Limits,
    holders: BTreeMap<PermitId, ConcurrencyKey>,
    heads: BTreeMap<ConcurrencyKey, Age>,
    next: u64,
    open: bool,
}

impl SlotTable {
    /// Nothing held, nothing asked for.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            holders: BTreeMap::new(),
            heads: BTreeMap::new(),
            next: 1,
            open: true,
        }
    }

    /// A key's head asks for a slot. Asking again replaces its age.
    pub fn ask(&mut self, key: ConcurrencyKey, age: Age) {
        self.heads.insert(key, age);
    }

    /// Nobody waits for that key any more.
    pub fn withdraw(&mut self, key: &ConcurrencyKey) {
        self.heads.remove(key);
    }

    /// A slot comes back. False if it had come back already: a release is idempotent by holder.
    pub fn release(&mut self, permit: PermitId) -> bool {
        self.holders.remove(&permit).is_some()
    }

    /// A slot at once, above the limit if it must be, so that new starts wait.
    pub fn adopt(&mut self, key: ConcurrencyKey) -> PermitId {
        let permit = PermitId(self.next);
        self.next += 1;
        self.holders.insert(permit, key);
        permit
    }

    /// Numbers of permits up to that one have been given by a predecessor.
    pub fn continue_after(&mut self, last: u64) {
        self.next = self.next.max(last + 1);
    }

    /// Takes over a slot that a predecessor had given.
    pub fn restore(&mut self, permit: PermitId, key: ConcurrencyKey) {
        self.next = self.next.max(permit.0 + 1);
        self.holders.insert(permit, key);
    }

    /// While closed no slot is granted (the server cannot be reached, or we are shutting down).
    pub fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// Changes the limits. Raising one grants what waits, at the next [`SlotTable::grant`]; lowering stops nothing.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
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
        let key = self
            .heads
            .iter()
            .filter(|(key, _)| self.has_room(key))
            .min_by_key(|&(_, &age)| age)?
            .0
            .clone();
        self.heads.remove(&key);
        let permit = self.adopt(key.clone());
        Some((key, permit))
    }

    /// Slots held of the limit that a key counts against.
    pub fn used_with(&self, key: &ConcurrencyKey) -> usize {
        let (bucket, _) = self.limits.rule(key);
        self.holders
            .values()
            .filter(|held| self.limits.rule(held).0 == bucket)
            .count()
    }

    /// Slots that a key itself holds, for every key that holds any.
    pub fn held_by_key(&self) -> BTreeMap<ConcurrencyKey, usize> {
        let mut held = BTreeMap::new();
        for key in self.holders.values() {
            *held.entry(key.clone()).or_default() += 1;
        }
        held
    }

    /// Slots held by all keys together.
    pub fn held(&self) -> usize {
        self.holders.len()
    }

    /// Keys whose oldest waiting start has asked for a slot.
    pub fn asked(&self) -> usize {
        self.heads.len()
    }

    fn has_room(&self, key: &ConcurrencyKey) -> bool {
        let limit = self.limits.of(key);
        limit == 0 || self.used_with(key) < limit as usize
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

    fn take(table: &mut SlotTable, text: &str, age: Age) -> Option<PermitId> {
        table.ask(key(text), age);
        let granted = table.grant();
        table.withdraw(&key(text));
        granted.map(|(_, permit)| permit)
    }

    #[test]
    fn the_most_specific_rule_wins() {
        assert_eq!(limits().of(&key("acme/big")), 1);
        assert_eq!(limits().of(&key("acme/free")), 0);
        assert_eq!(limits().of(&key("acme/other/x")), 2);
        assert_eq!(limits().of(&key("worker")), 2);
        assert_eq!(limits().of(&key("constructor")), 2);
    }

    #[test]
    fn a_provider_limit_is_shared_by_its_models_but_not_with_an_agent_of_that_name() {
        let mut table = SlotTable::new(limits());
        assert!(take(&mut table, "acme/small", 1).is_some());
        assert!(take(&mut table, "acme/tiny", 2).is_some());
        assert!(take(&mut table, "acme/small", 3).is_none());
        assert!(take(&mut table, "acme/big", 4).is_some());
        assert!(take(&mut table, "acme", 5).is_some());
    }

    #[test]
    fn the_oldest_waiting_start_goes_first_among_keys_that_share_a_limit() {
        let mut table = SlotTable::new(Limits { max: 1, ..limits() });
        let held = take(&mut table, "a", 1).unwrap();
        table.ask(key("z"), 2);
        table.ask(key("b"), 3);
        assert!(table.grant().is_none());
        assert!(table.release(held));
        assert_eq!(table.grant().unwrap().0, key("z"));
    }

    #[test]
    fn a_slot_comes_back_once() {
        let mut table = SlotTable::new(limits());
        let held = take(&mut table, "a", 1).unwrap();
        assert!(table.release(held));
        assert!(!table.release(held));
        assert_eq!(table.held(), 0);
    }

    #[test]
    fn lowering_a_limit_stops_nothing_and_raising_it_grants() {
        let mut table = SlotTable::new(limits());
        take(&mut table, "a", 1).unwrap();
        take(&mut table, "a", 2).unwrap();
        table.set_limits(Limits {
            default: 1,
            ..limits()
        });
        assert_eq!(table.held(), 2);
        table.ask(key("a"), 3);
        assert!(table.grant().is_none());
        table.set_limits(Limits {
            default: 3,
            ..limits()
        });
        assert!(table.grant().is_some());
    }

    proptest! {
        /// No grant is ever made over a limit, whatever is asked, released and changed in whatever order.
        #[test]
        fn no_grant_exceeds_a_limit(moves in proptest::collection::vec((0u8..4, 0usize..5, 0u32..4), 1..200)) {
            let names = ["acme/a", "acme/b", "acme/big", "worker", "acme"];
            let mut table = SlotTable::new(limits());
            let mut held = Vec::new();
            for (age, (what, which, number)) in moves.into_iter().enumerate() {
                match what {
                    0 => table.ask(key(names[which]), age as u64),
                    1 if !held.is_empty() => { table.release(held.remove(which % held.len())); }
                    2 => table.set_limits(Limits { default: number, max: number * 2, ..limits() }),
                    _ => {}
                }
                let before = table.held();
                let mut granted = 0;
                while let Some((key, permit)) = table.grant() {
                    let limit = table.limits().of(&key) as usize;
                    prop_assert!(limit == 0 || table.used_with(&key) <= limit);
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
