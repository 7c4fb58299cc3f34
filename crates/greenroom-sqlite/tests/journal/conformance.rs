//! Both journals do what a journal must; one on disk comes back as it was.

use std::path::Path;
use std::sync::Arc;

use greenroom::ports::journal::conformance::{self, RETENTION};
use greenroom::ports::journal::{Journal, MemoryJournal};
use greenroom_sqlite::SqliteJournal;

fn open(path: &Path) -> Arc<dyn Journal> {
    Arc::new(SqliteJournal::open(path, RETENTION).unwrap())
}

#[test]
fn the_journal_in_memory_does_what_a_journal_must() {
    conformance::all(&|| Arc::new(MemoryJournal::keeping(RETENTION)));
}

#[test]
fn the_journal_on_disk_does_what_a_journal_must() {
    let folder = tempfile::tempdir().unwrap();
    let made = std::cell::Cell::new(0);
    conformance::all(&|| {
        made.set(made.get() + 1);
        open(&folder.path().join(format!("{}.db", made.get())))
    });
}

#[test]
fn the_journal_on_disk_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/journal.db");
    conformance::all_durable(&|| open(&path));
}
