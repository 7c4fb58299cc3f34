//! The process that serves a session. opencode's processes of one folder share their sessions, so that only the owner is
//! called for one. Kept in the journal: a restarted service calls the same process.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// An opencode process in one directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOwner {
    /// The process id.
    pub pid: u32,
    /// The directory of its instance.
    pub directory: Arc<str>,
}
