//! What the other tests share: a journal in a folder of its own, and tasks to put into it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use greenroom::domain::ids::TaskId;
use greenroom::domain::task::TaskStatus;
pub use greenroom::ports::journal::conformance::RETENTION;
use greenroom::ports::journal::conformance::{
    Comparable, at, change, comparable, in_state, record, task,
};
use greenroom::ports::journal::{Entry, Journal, Place, Standing};
use greenroom_sqlite::{OpenError, SqliteJournal};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with the path of a journal in it.
pub struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    pub fn open(&self) -> SqliteJournal {
        self.try_open().unwrap()
    }

    pub fn try_open(&self) -> Result<SqliteJournal, OpenError> {
        SqliteJournal::open(&self.path(), RETENTION)
    }

    /// One with so many tasks in memory and as many that have left it.
    pub fn filled(tasks: u64) -> Self {
        let place = Self::new();
        let journal = place.open();
        for number in 0..tasks {
            accept(&journal, number);
            leave(&journal, number);
        }
        drop(journal);
        place
    }
}

/// A task is accepted; returns where the journal stands.
pub fn accept(journal: &dyn Journal, number: u64) -> Place {
    let id = format!("bg_{number:08x}");
    let parent = format!("ses_p{}", number % 7);
    let new = task(&id, Some(&parent));
    let joined = Entry::Joined {
        parent: parent.as_str().into(),
        task: id.as_str().into(),
        run: new.run,
        directory: None,
    };
    journal.append(at(1), vec![change(number, &new, number + 1, None), joined])
}

/// Another task ends, and leaves memory.
pub fn leave(journal: &dyn Journal, number: u64) {
    let id = format!("bg_f{number:07x}");
    let ended = in_state(&task(&id, None), TaskStatus::Completed);
    let left = Entry::Forgotten(TaskId::new(id), at(2));
    journal.append(at(2), vec![record(number, &ended), left]);
}

pub fn kept(journal: &dyn Journal) -> Comparable {
    comparable(journal.load().unwrap())
}

/// Waits until it stands so.
pub fn until(journal: &dyn Journal, so: impl Fn(&Standing) -> bool) -> Standing {
    let mut standing = journal.standing();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let reached = async { tokio::time::timeout(PATIENCE, standing.wait_for(|now| so(now))).await };
    let reached = runtime.block_on(reached).expect("in time");
    reached.unwrap().clone()
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
