//! Where our own failures can be brought about on purpose. Every handler, timer, call and start of an actor passes a named
//! place; whoever wants to see what a panic there leads to hands in a [`Saboteur`]. Nobody does in production, where a
//! place costs one comparison.

use std::fmt;
use std::sync::Arc;

/// Decides where the system fails.
pub trait Saboteur: Send + Sync + 'static {
    /// True if it is to panic at this place now. Places are named `actor: what`, for instance `registry: Granted`,
    /// `task: start`, `task: create is answered`.
    fn strikes(&self, place: &'static str) -> bool;
}

/// The places an actor passes.
#[derive(Clone, Default)]
pub(crate) struct Places(Option<Arc<dyn Saboteur>>);

impl Places {
    pub(crate) fn watched_by(saboteur: Option<Arc<dyn Saboteur>>) -> Self {
        Self(saboteur)
    }

    /// Passes a place.
    pub(crate) fn pass(&self, place: &'static str) {
        if let Some(saboteur) = &self.0
            && saboteur.strikes(place)
        {
            panic!("sabotage at {place}");
        }
    }
}

impl fmt::Debug for dyn Saboteur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Saboteur")
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Places").field(&self.0.is_some()).finish()
    }
}
