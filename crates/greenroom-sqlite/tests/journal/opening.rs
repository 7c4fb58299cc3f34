//! A file that is opened: made for its owner alone, for one process at a time, and refused with a way out if it is not what
//! it should be. It is never replaced.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use greenroom::ports::journal::Journal;
use greenroom_sqlite::OpenError;
use rusqlite::Connection;

use crate::kept::{Stage, accept, kept, mode, until};

fn refused(stage: &Stage) -> OpenError {
    let before = fs::read(stage.path()).unwrap();
    let error = stage.try_open().expect_err("it is refused");
    assert!(!error.hint().is_empty());
    let message = error.to_string();
    assert!(message.contains("journal.db"), "{message}");
    assert!(
        fs::read(stage.path()).unwrap() == before,
        "left as it is: {message}"
    );
    error
}

#[test]
fn only_its_owner_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/journal.db");
    let journal = greenroom_sqlite::SqliteJournal::open(&path, crate::kept::RETENTION).unwrap();
    let place = accept(&journal, 0);
    until(&journal, |now| now.durable >= place);
    for end in ["", "-wal", "-shm", ".lock"] {
        let file = folder.path().join(format!("a/b/journal.db{end}"));
        assert_eq!(mode(&file), 0o600, "{end:?}");
    }
    assert_eq!(mode(&folder.path().join("a")), 0o700);
    assert_eq!(mode(&folder.path().join("a/b")), 0o700);
}

#[test]
fn one_process_at_a_time() {
    let stage = Stage::new();
    let journal = stage.open();
    let pid = std::process::id();
    match stage.try_open() {
        Err(OpenError::Held {
            pid: Some(held), ..
        }) => assert_eq!(held, pid),
        other => panic!("{other:?}"),
    }
    let error = stage.try_open().unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("in use by the process {pid}"))
    );
    drop(journal);
    // What a process leaves that was killed: its lock file, held by nobody.
    fs::write(stage.path().with_extension("db.lock"), "1\n").unwrap();
    stage.open();
}

#[test]
fn a_file_that_is_something_else_is_refused() {
    let stage = Stage::new();
    fs::write(stage.path(), "tasks = []\n".repeat(1000)).unwrap();
    assert!(matches!(refused(&stage), OpenError::Foreign { .. }));

    let stage = Stage::new();
    fs::write(stage.path(), "a note of mine").unwrap();
    assert!(matches!(refused(&stage), OpenError::Foreign { .. }));

    let stage = Stage::new();
    let other = Connection::open(stage.path()).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    let error = stage.try_open().unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");

    let stage = Stage::new();
    fs::create_dir(stage.path()).unwrap();
    assert!(matches!(stage.try_open(), Err(OpenError::Unusable { .. })));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let below = folder.path().join("file/journal.db");
    let error = greenroom_sqlite::SqliteJournal::open(&below, crate::kept::RETENTION);
    assert!(
        matches!(error, Err(OpenError::Unusable { .. })),
        "{error:?}"
    );
}

#[test]
fn a_file_that_was_cut_off_is_refused() {
    let stage = Stage::filled(200);
    let whole = fs::read(stage.path()).unwrap();
    for part in [
        0,
        1,
        50,
        100,
        600,
        2048,
        4096,
        4097,
        whole.len() / 2,
        whole.len() - 4096,
    ] {
        fs::write(stage.path(), &whole[..part]).unwrap();
        let error = refused(&stage);
        assert!(
            matches!(error, OpenError::Damaged { .. } | OpenError::Foreign { .. }),
            "{part}: {error:?}"
        );
    }
    fs::write(stage.path(), &whole).unwrap();
    assert_eq!(stage.open().load().unwrap().tasks.len(), 200);
}

#[test]
fn a_garbled_page_is_refused_or_matters_to_nobody() {
    const PAGE: usize = 4096;
    let stage = Stage::filled(60);
    let whole = fs::read(stage.path()).unwrap();
    let before = kept(&stage.open());
    let mut found = 0;
    for page in 0..whole.len() / PAGE {
        fs::write(stage.path(), &whole).unwrap();
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(stage.path())
            .unwrap();
        file.seek(SeekFrom::Start((page * PAGE) as u64)).unwrap();
        let noise: Vec<u8> = (0..PAGE)
            .map(|n| (n * 7919 + page * 31 + 5) as u8)
            .collect();
        file.write_all(&noise).unwrap();
        drop(file);
        match stage.try_open() {
            Ok(journal) => assert_eq!(kept(&journal), before, "page {page}"),
            Err(error) => {
                found += 1;
                assert!(
                    matches!(error, OpenError::Damaged { .. } | OpenError::Foreign { .. }),
                    "page {page}: {error:?}"
                );
            }
        }
        for end in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{end}", stage.path().display()));
        }
    }
    assert!(found > whole.len() / PAGE / 2, "{found} pages");
}

#[test]
fn a_row_that_says_nothing_is_named() {
    for (table, garble) in [
        (
            "tasks",
            "UPDATE tasks SET record = '{\"id\": 7}' WHERE left_at IS NULL",
        ),
        (
            "tasks",
            "UPDATE tasks SET record = 'x' WHERE left_at IS NOT NULL",
        ),
        (
            "ledger",
            "UPDATE ledger SET body = '{\"unheardOf\": {}}' WHERE seq = 3",
        ),
    ] {
        let stage = Stage::filled(20);
        Connection::open(stage.path())
            .unwrap()
            .execute_batch(garble)
            .unwrap();
        let error = refused(&stage).to_string();
        assert!(error.contains(&format!("table {table}, row ")), "{error}");
    }
}

#[test]
fn a_newer_version_is_refused() {
    let stage = Stage::filled(1);
    let db = Connection::open(stage.path()).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = refused(&stage);
    assert!(
        matches!(error, OpenError::Newer { version: 99, .. }),
        "{error:?}"
    );
    assert!(error.hint().contains("newer version"));
}

#[test]
fn an_older_version_is_copied_and_brought_up_to_date() {
    let stage = Stage::new();
    let old = Connection::open(stage.path()).unwrap();
    old.execute_batch(include_str!("v1.sql")).unwrap();
    drop(old);
    let copy = stage.path().with_extension("db.v1.bak");
    for _ in 0..2 {
        let journal = stage.open();
        let kept = journal.load().unwrap();
        let task = &kept.tasks[0];
        assert_eq!(task.task.id.as_str(), "bg_0000cafe");
        assert_eq!(task.task.prompt, "Find out why the build is slow.".into());
        assert_eq!(task.granted.map(|run| run.0), Some(1));
        assert_eq!(kept.left[0].id.as_str(), "bg_0000beef");
        assert_eq!(kept.accounts[0].1.open(), 1);
        assert_eq!(kept.newest_change, 5);
        assert_eq!(journal.story(&"bg_0000cafe".into()).len(), 2);
    }
    assert_eq!(mode(&copy), 0o600);
    assert_eq!(version(&copy), 1);
    assert_eq!(version(&stage.path()), 2);
    let copied = Connection::open(&copy).unwrap();
    let tasks: i64 = copied
        .query_row("SELECT count(*) FROM tasks", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tasks, 2);
}

fn version(path: &Path) -> i64 {
    let db = Connection::open(path).unwrap();
    db.pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap()
}
