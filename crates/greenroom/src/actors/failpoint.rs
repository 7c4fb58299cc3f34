//! Where our own failures can be brought about on purpose. Every handler, timer, call and start of an actor passes a named
//! place; whoever wants to see what a panic there leads to hands in a [`FaultInjector`]. Nobody does in production, where a
//! place costs one comparison.

use std::fmt;
use std::sync::Arc;

/// Decides where the system fails.
pub trait FaultInjector: Send + Sync + 'static {
    /// True if it is to panic at this place now. Failpoints are named `actor: what`, for instance `registry: Granted`,
    /// `task: start`, `task: create is answered`.
    fn should_fail(&self, failpoint: &'static str) -> bool;
}

/// The places an actor passes.
#[derive(Clone, Default)]
pub(crate) struct Failpoints(Option<Arc<dyn FaultInjector>>);

impl Failpoints {
    pub(crate) fn injected_by(fault_injector: Option<Arc<dyn FaultInjector>>) -> Self {
        Self(fault_injector)
    }

    /// Passes a place.
    pub(crate) fn hit(&self, failpoint: &'static str) {
        if let Some(fault_injector) = &self.0
            && fault_injector.should_fail(failpoint)
        {
            panic!("failpoint at {failpoint}");
        }
    }
}

impl fmt::Debug for dyn FaultInjector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultInjector")
    }
}

impl fmt::Debug for Failpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Failpoints")
            .field(&self.0.is_some())
            .finish()
    }
}
