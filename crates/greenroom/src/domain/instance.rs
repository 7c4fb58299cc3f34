//! An instance of the agent server: one process that serves one directory. Pure.

use std::sync::Arc;

/// An instance of the agent server, as far as it is known: an unknown part fits every one.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// The directory. None as an end: every instance of the server has ended.
    pub directory: Option<Arc<str>>,
    /// The id of the process. Several processes may serve one directory.
    pub process: Option<u32>,
}

impl Instance {
    /// Returns the instance of a directory in an unknown process.
    pub fn in_directory(directory: Option<&str>) -> Self {
        Self {
            directory: directory.map(Arc::from),
            process: None,
        }
    }

    /// Returns true unless a known part differs.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        fn fit<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_none_or(|(one, other)| one == other)
        }
        fit(self.directory.as_ref(), other.directory.as_ref())
            && fit(self.process.as_ref(), other.process.as_ref())
    }
}
