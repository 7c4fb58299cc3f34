//! The conformance suite, for the journal in memory and the journal on disk.

use std::path::Path;
use std::sync::Arc;

use greenroom::ports::journal::conformance::{self, RETENTION};
use greenroom::ports::journal::{Journal, MemoryJournal};
use greenroom_sqlite::SqliteJournal;

fn open(path: &Path) -> Arc<dyn Journal> {
    Arc::new(SqliteJournal::open(path, RETENTION).unwrap())
}

#[test]
fn memory_journal_conforms() {
    conformance::all(&|| Arc::new(MemoryJournal::with_retention(RETENTION)));
}

#[test]
fn sqlite_journal_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let opened = std::cell::Cell::new(0);
    conformance::all(&|| {
        opened.set(opened.get() + 1);
        open(&folder.path().join(format!("{}.db", opened.get())))
    });
}

#[test]
fn sqlite_journal_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/journal.db");
    conformance::all_durable(&|| open(&path));
}
