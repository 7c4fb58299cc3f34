//! Idempotency keys of launches: the same key within 24 hours returns the same task. Owned by the registry; pure.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::TaskId;
use super::task::Launch;
use super::time::Timestamp;
use crate::maps::Map;

/// The time for which a key is remembered.
pub const KEY_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The number of keys remembered. The oldest is evicted first.
pub const MAX_KEYS: usize = 10_000;

/// The key was used for another launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyConflict;

/// A launch key, as the journal stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaunchKey {
    /// The key.
    pub key: String,
    /// The fingerprint of the launch.
    #[serde(rename = "print")]
    pub fingerprint: u64,
    /// The task.
    pub task: TaskId,
    /// The time of the launch.
    pub at: Timestamp,
}

impl LaunchKey {
    /// Records the launch of a task under a key.
    pub fn new(key: String, launch: &Launch, task: TaskId, at: Timestamp) -> Self {
        Self {
            key,
            fingerprint: fingerprint(launch),
            task,
            at,
        }
    }
}

#[derive(Debug)]
struct KnownLaunch {
    task: TaskId,
    fingerprint: u64,
    at: Timestamp,
}

/// The launch keys of the last 24 hours.
#[derive(Debug, Default)]
pub struct LaunchKeys {
    by_key: Map<String, KnownLaunch>,
    oldest_first: VecDeque<(Timestamp, String)>,
}

impl LaunchKeys {
    /// Returns the task launched under a key, none for a new key.
    ///
    /// # Errors
    /// [`KeyConflict`] if the key belongs to another launch.
    pub fn find(
        &mut self,
        key: &str,
        launch: &Launch,
        now: Timestamp,
    ) -> Result<Option<TaskId>, KeyConflict> {
        self.evict(now);
        match self.by_key.get(key) {
            None => Ok(None),
            Some(known) if known.fingerprint == fingerprint(launch) => Ok(Some(known.task.clone())),
            Some(_) => Err(KeyConflict),
        }
    }

    /// Records the launch of a task under a key.
    pub fn remember(&mut self, key: LaunchKey) {
        let LaunchKey {
            key,
            fingerprint,
            task,
            at,
        } = key;
        let known = KnownLaunch {
            task,
            fingerprint,
            at,
        };
        self.by_key.insert(key.clone(), known);
        self.oldest_first.push_back((at, key));
        self.evict(at);
    }

    /// Removes the keys of a task that was not accepted.
    pub fn forget(&mut self, task: &TaskId) {
        self.by_key.retain(|_, known| known.task != *task);
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Returns true if there are no keys.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn evict(&mut self, now: Timestamp) {
        while let Some((since, key)) = self.oldest_first.front()
            && (now.since(*since) >= KEY_LIFETIME || self.oldest_first.len() > MAX_KEYS)
        {
            // A key that was reused belongs to the newer launch.
            if self.by_key.get(key).is_some_and(|known| known.at == *since) {
                self.by_key.remove(key);
            }
            self.oldest_first.pop_front();
        }
    }
}

/// Returns the fingerprint of a launch: 64-bit FNV-1a of its JSON. It must not change between versions of the program,
/// since journals store it.
pub fn fingerprint(launch: &Launch) -> u64 {
    // A launch consists of strings and lists: it always has a JSON form, and always the same one.
    let text = serde_json::to_string(launch).unwrap_or_default();
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |print, byte| {
        (print ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(0);

    fn launch(prompt: &str) -> Launch {
        Launch {
            prompt: prompt.to_owned(),
            ..Launch::default()
        }
    }

    #[test]
    fn key_finds_its_task_for_a_day() {
        let mut keys = LaunchKeys::default();
        keys.remember(LaunchKey::new("k".into(), &launch("a"), "bg_1".into(), NOW));
        assert_eq!(keys.find("k", &launch("a"), NOW), Ok(Some("bg_1".into())));
        assert_eq!(keys.find("other", &launch("a"), NOW), Ok(None));
        assert_eq!(keys.find("k", &launch("a"), NOW + KEY_LIFETIME), Ok(None));
    }

    #[test]
    fn key_of_another_launch_conflicts() {
        let mut keys = LaunchKeys::default();
        keys.remember(LaunchKey::new("k".into(), &launch("a"), "bg_1".into(), NOW));
        assert_eq!(keys.find("k", &launch("b"), NOW), Err(KeyConflict));
    }

    #[test]
    fn keys_are_bounded() {
        let mut keys = LaunchKeys::default();
        for n in 0..MAX_KEYS + 5 {
            keys.remember(LaunchKey::new(
                n.to_string(),
                &launch("a"),
                "bg_1".into(),
                NOW,
            ));
        }
        assert_eq!(keys.by_key.len(), MAX_KEYS);
        assert_eq!(keys.find("0", &launch("a"), NOW), Ok(None));
    }
}
