//! Hash maps and sets with a fast hash for short keys. Keys are ids and names. The limits keep an attacker from
//! choosing many keys, and the hash is seeded at random as well.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

/// A map without an order. No visible behaviour may depend on its iteration order.
pub type Map<K, V> = HashMap<K, V, RandomState>;

/// A set without an order. No visible behaviour may depend on its iteration order.
pub type Set<K> = HashSet<K, RandomState>;
