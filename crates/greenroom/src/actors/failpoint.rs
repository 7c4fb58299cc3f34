//! Failpoints: named points in the code at which a test can cause a panic. Every handler, timer, call and start of an actor
//! hits one. A test passes a [`FaultInjector`] to the builder; without one, a failpoint costs one comparison.

use std::fmt;
use std::sync::Arc;

/// Decides at which failpoints the system panics.
pub trait FaultInjector: Send + Sync + 'static {
    /// Returns true if the actor must panic at this failpoint now. Failpoints are named `actor: what`, for instance
    /// `registry: Granted`, `task: start`, `task: create is answered`.
    fn should_fail(&self, failpoint: &'static str) -> bool;
}

/// The failpoints of a system, with their injector if there is one.
#[derive(Clone, Default)]
pub(crate) struct Failpoints(Option<Arc<dyn FaultInjector>>);

impl Failpoints {
    pub(crate) fn injected_by(fault_injector: Option<Arc<dyn FaultInjector>>) -> Self {
        Self(fault_injector)
    }

    /// Panics if the injector chooses this failpoint.
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
