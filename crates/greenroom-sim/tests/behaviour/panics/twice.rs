//! Deaths that come close together, or just when something else happens: what one of them has answered the other must not
//! answer once more.

use super::*;

/// Strikes at several places, each at one passing of it.
struct Several {
    at: Vec<(&'static str, usize)>,
    passed: Mutex<BTreeMap<&'static str, usize>>,
}

impl Saboteur for Several {
    fn strikes(&self, place: &'static str) -> bool {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = passed.entry(place).or_default();
        *nth += 1;
        self.at.contains(&(place, *nth))
    }
}

#[test]
fn a_batch_that_closes_while_the_registry_is_rebuilt_is_told_once() {
    // In each of these the registry is rebuilt in the instant in which a notifier has read its parent and closes its batch.
    for at in [
        [("registry: AbortDone", 3), ("task: EndAccepted", 3)],
        [("registry: AbortDone", 7), ("task: EndAccepted", 7)],
        [("registry: Debts", 14), ("task: EndAccepted", 5)],
        [
            ("registry: a change is in the journal", 16),
            ("registry: Debts", 10),
        ],
    ] {
        let name = format!("{at:?}");
        let several = Arc::new(Several {
            at: at.into(),
            passed: Mutex::default(),
        });
        let panics = sabotaged_story(several, move |s| async move {
            tell(&s).await;
            holds(&s, &name).await;
        });
        assert_eq!(panics.len(), 2, "{at:?}: {panics:?}");
    }
}
