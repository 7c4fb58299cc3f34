//! Opening a file: created for its owner alone, used by one process at a time, refused with a hint if it is not valid. It is
//! never replaced.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use greenroom::ports::journal::Journal;
use greenroom_sqlite::OpenError;
use rusqlite::Connection;

use crate::support::{TestJournal, accept, contents, mode, until};

fn refused(fixture: &TestJournal) -> OpenError {
    let before = fs::read(fixture.path()).unwrap();
    let error = fixture.try_open().expect_err("it is refused");
    assert!(!error.hint().is_empty());
    let message = error.to_string();
    assert!(message.contains("journal.db"), "{message}");
    assert!(
        fs::read(fixture.path()).unwrap() == before,
        "left as it is: {message}"
    );
    error
}

#[test]
fn files_are_readable_by_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/journal.db");
    let journal = greenroom_sqlite::SqliteJournal::open(&path, crate::support::RETENTION).unwrap();
    let lsn = accept(&journal, 0);
    until(&journal, |now| now.durable >= lsn);
    for end in ["", "-wal", "-shm", ".lock"] {
        let file = folder.path().join(format!("a/b/journal.db{end}"));
        assert_eq!(mode(&file), 0o600, "{end:?}");
    }
    assert_eq!(mode(&folder.path().join("a")), 0o700);
    assert_eq!(mode(&folder.path().join("a/b")), 0o700);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn symlinked_lock_is_refused_and_its_target_unchanged() {
    let fixture = TestJournal::new();
    drop(fixture.open());
    let lock = fixture.path().with_file_name("journal.db.lock");
    let target = fixture.path().with_file_name("target");
    fs::write(&target, "precious").unwrap();
    fs::remove_file(&lock).unwrap();
    std::os::unix::fs::symlink(&target, &lock).unwrap();
    let error = refused(&fixture);
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    // The same for a link to nothing, which must not create a file.
    fs::remove_file(&target).unwrap();
    refused(&fixture);
    assert!(!target.exists());
}

#[test]
fn fifo_is_refused_at_once() {
    for end in ["", ".lock", "-wal"] {
        let fixture = TestJournal::new();
        if !end.is_empty() {
            drop(fixture.open());
        }
        let path = fixture.path().with_file_name(format!("journal.db{end}"));
        let _ = fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let error = fixture.try_open().expect_err("it is refused");
        assert!(error.to_string().contains("a FIFO"), "{end}: {error}");
        if end.is_empty() {
            let error = greenroom_sqlite::maintenance::stats(&path).expect_err("it is refused");
            assert!(error.to_string().contains("a FIFO"), "{error}");
        }
    }
}

#[test]
fn journal_that_all_users_can_write_is_refused_with_the_cure() {
    let fixture = TestJournal::new();
    drop(fixture.open());
    let folder = fixture.path().parent().unwrap().to_owned();
    set_mode(&folder, 0o777);
    let hint = fixture.try_open().expect_err("it is refused").hint();
    assert!(hint.contains("chmod go-w "), "{hint}");
    set_mode(&folder, 0o700);
    set_mode(&fixture.path(), 0o666);
    let hint = refused(&fixture).hint();
    assert!(
        hint.contains("chmod 600 ") && hint.contains("journal.db"),
        "{hint}"
    );
    // A group may be meant: a warning.
    set_mode(&fixture.path(), 0o660);
    drop(fixture.open());
}

#[test]
fn second_process_is_refused() {
    let fixture = TestJournal::new();
    let journal = fixture.open();
    let pid = std::process::id();
    match fixture.try_open() {
        Err(OpenError::InUse {
            pid: Some(held), ..
        }) => assert_eq!(held, pid),
        other => panic!("{other:?}"),
    }
    let error = fixture.try_open().unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("in use by the process {pid}"))
    );
    drop(journal);
    // A killed process leaves its lock file, which is not locked.
    fs::write(fixture.path().with_extension("db.lock"), "1\n").unwrap();
    fixture.open();
}

#[test]
fn foreign_file_is_refused() {
    let fixture = TestJournal::new();
    fs::write(fixture.path(), "tasks = []\n".repeat(1000)).unwrap();
    assert!(matches!(refused(&fixture), OpenError::Foreign { .. }));

    let fixture = TestJournal::new();
    fs::write(fixture.path(), "a note of mine").unwrap();
    assert!(matches!(refused(&fixture), OpenError::Foreign { .. }));

    let fixture = TestJournal::new();
    let other = Connection::open(fixture.path()).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    let error = fixture.try_open().unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");

    let fixture = TestJournal::new();
    fs::create_dir(fixture.path()).unwrap();
    assert!(matches!(
        fixture.try_open(),
        Err(OpenError::Unusable { .. })
    ));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let below = folder.path().join("file/journal.db");
    let error = greenroom_sqlite::SqliteJournal::open(&below, crate::support::RETENTION);
    assert!(
        matches!(error, Err(OpenError::Unusable { .. })),
        "{error:?}"
    );
}

#[test]
fn truncated_file_is_refused() {
    let fixture = TestJournal::filled(200);
    let whole = fs::read(fixture.path()).unwrap();
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
        fs::write(fixture.path(), &whole[..part]).unwrap();
        let error = refused(&fixture);
        assert!(
            matches!(error, OpenError::Damaged { .. } | OpenError::Foreign { .. }),
            "{part}: {error:?}"
        );
    }
    fs::write(fixture.path(), &whole).unwrap();
    assert_eq!(fixture.open().load().unwrap().tasks.len(), 200);
}

#[test]
fn damaged_page_is_refused_or_unused() {
    const PAGE: usize = 4096;
    let fixture = TestJournal::filled(60);
    let whole = fs::read(fixture.path()).unwrap();
    let before = contents(&fixture.open());
    let mut found = 0;
    for page in 0..whole.len() / PAGE {
        fs::write(fixture.path(), &whole).unwrap();
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(fixture.path())
            .unwrap();
        file.seek(SeekFrom::Start((page * PAGE) as u64)).unwrap();
        let noise: Vec<u8> = (0..PAGE)
            .map(|n| (n * 7919 + page * 31 + 5) as u8)
            .collect();
        file.write_all(&noise).unwrap();
        drop(file);
        match fixture.try_open() {
            Ok(journal) => assert_eq!(contents(&journal), before, "page {page}"),
            Err(error) => {
                found += 1;
                assert!(
                    matches!(error, OpenError::Damaged { .. } | OpenError::Foreign { .. }),
                    "page {page}: {error:?}"
                );
            }
        }
        for end in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{end}", fixture.path().display()));
        }
    }
    assert!(found > whole.len() / PAGE / 2, "{found} pages");
}

#[test]
fn unreadable_row_is_named() {
    for (table, damage) in [
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
            "UPDATE ledger SET body = '{\"unknown\": {}}' WHERE seq = 3",
        ),
    ] {
        let fixture = TestJournal::filled(20);
        Connection::open(fixture.path())
            .unwrap()
            .execute_batch(damage)
            .unwrap();
        let error = refused(&fixture).to_string();
        assert!(error.contains(&format!("table {table}, row ")), "{error}");
    }
}

#[test]
fn newer_version_is_refused() {
    let fixture = TestJournal::filled(1);
    let db = Connection::open(fixture.path()).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = refused(&fixture);
    assert!(
        matches!(error, OpenError::Newer { version: 99, .. }),
        "{error:?}"
    );
    assert!(error.hint().contains("newer version"));
}

#[test]
fn older_version_is_backed_up_and_migrated() {
    let fixture = TestJournal::new();
    let old = Connection::open(fixture.path()).unwrap();
    old.execute_batch(include_str!("v1.sql")).unwrap();
    drop(old);
    let copy = fixture.path().with_extension("db.v1.bak");
    for _ in 0..2 {
        let journal = fixture.open();
        let recovered = journal.load().unwrap();
        let task = &recovered.tasks[0];
        assert_eq!(task.task.id.as_str(), "bg_0000cafe");
        assert_eq!(task.task.prompt, "Find out why the build is slow.".into());
        assert_eq!(task.granted.map(|run| run.0), Some(1));
        assert_eq!(recovered.left[0].id.as_str(), "bg_0000beef");
        assert_eq!(recovered.outboxes[0].1.open(), 1);
        assert_eq!(recovered.newest_change, 5);
        assert_eq!(journal.timeline(&"bg_0000cafe".into()).len(), 2);
    }
    assert_eq!(mode(&copy), 0o600);
    assert_eq!(version(&copy), 1);
    assert_eq!(version(&fixture.path()), 5);
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
