//! The maps of the system: those of std with a hash that is quick for short keys. Keys are ids and names, and an attacker who
//! could choose many of them at will is stopped long before by the limits; the hash is seeded at random all the same.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

/// A map without order; nothing that can be seen may depend on how it is walked.
pub type Map<K, V> = HashMap<K, V, RandomState>;

/// A set without order, likewise.
pub type Set<K> = HashSet<K, RandomState>;
