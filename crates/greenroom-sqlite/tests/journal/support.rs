//! Shared helpers: a journal in a temporary folder, and tasks to append.

use std::path::{Path, PathBuf};
use std::time::Duration;

use greenroom::domain::ids::TaskId;
use greenroom::domain::task::TaskStatus;
pub use greenroom::ports::journal::conformance::RETENTION;
use greenroom::ports::journal::conformance::{
    Comparable, at, change, comparable, in_state, record, task,
};
use greenroom::ports::journal::{Journal, JournalEntry, JournalStatus, Lsn};
use greenroom_sqlite::{OpenError, SqliteJournal};

/// The time limit of every wait.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A temporary folder with the path of a journal.
pub struct TestJournal {
    folder: tempfile::TempDir,
}

impl TestJournal {
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

    /// Returns a journal with that many tasks in memory, and as many evicted ones.
    pub fn filled(tasks: u64) -> Self {
        let fixture = Self::new();
        let journal = fixture.open();
        for number in 0..tasks {
            accept(&journal, number);
            evict(&journal, number);
        }
        drop(journal);
        fixture
    }
}

/// Appends an accepted task; returns the log position.
pub fn accept(journal: &dyn Journal, number: u64) -> Lsn {
    let id = format!("bg_{number:08x}");
    let parent = format!("ses_p{}", number % 7);
    let new = task(&id, Some(&parent));
    let joined = JournalEntry::Joined {
        parent: parent.as_str().into(),
        task: id.as_str().into(),
        run: new.run,
        directory: None,
    };
    journal.append(at(1), vec![change(number, &new, number + 1, None), joined])
}

/// Appends a task that ends and is evicted from memory.
pub fn evict(journal: &dyn Journal, number: u64) {
    let id = format!("bg_f{number:07x}");
    let ended = in_state(&task(&id, None), TaskStatus::Completed);
    let left = JournalEntry::Forgotten(TaskId::new(id), at(2));
    journal.append(at(2), vec![record(number, &ended), left]);
}

pub fn contents(journal: &dyn Journal) -> Comparable {
    comparable(journal.load().unwrap())
}

/// Waits for a status that matches.
pub fn until(journal: &dyn Journal, matches: impl Fn(&JournalStatus) -> bool) -> JournalStatus {
    let mut status = journal.status();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let wait = async { tokio::time::timeout(TIMEOUT, status.wait_for(|now| matches(now))).await };
    let status = runtime.block_on(wait).expect("in time");
    status.unwrap().clone()
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
