//! The tables, as a sequence of migrations. A file of an older version is backed up and migrated; a file of a newer version
//! is refused.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::error::OpenError;
use crate::file;

/// Identifies a Greenroom journal ("GRNR").
const APPLICATION_ID: i64 = 0x4752_4e52;

/// The migration at index `n` leads from version `n` to version `n + 1`.
const MIGRATIONS: [&str; 5] = [
    // 1: the tables.
    "
    -- The log position of the writer, and the newest deleted change.
    CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO marks VALUES ('place', 0), ('changes_gone', 0);
    -- Every task in its current state. The prompt and the skill content are in `texts`, not in `record`.
    CREATE TABLE tasks (
        id TEXT PRIMARY KEY NOT NULL,
        accepted INTEGER NOT NULL,
        age INTEGER NOT NULL,
        granted INTEGER,
        prompted INTEGER,
        aborted INTEGER,
        session TEXT,
        status TEXT NOT NULL,
        run INTEGER NOT NULL,
        left_at INTEGER,
        record TEXT NOT NULL
    );
    CREATE INDEX tasks_session ON tasks (session) WHERE session IS NOT NULL;
    -- The prompt of a run, which may be long: stored once, not with every change.
    CREATE TABLE texts (
        task TEXT NOT NULL,
        run INTEGER NOT NULL,
        prompt TEXT NOT NULL,
        skill_content TEXT,
        UNIQUE (task, run)
    );
    -- The messages of each parent: one outbox (kind 1), followed by the entries that change it (kind 0), in order.
    CREATE TABLE ledger (
        seq INTEGER PRIMARY KEY,
        parent TEXT NOT NULL,
        kind INTEGER NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX ledger_parent ON ledger (parent, seq);
    -- The number of entries since an outbox was last written as one row, and its limit.
    CREATE TABLE parents (
        parent TEXT PRIMARY KEY NOT NULL,
        settled INTEGER NOT NULL,
        silenced INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        most_entries INTEGER NOT NULL
    );
    CREATE TABLE changes (
        number INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        task TEXT NOT NULL,
        run INTEGER NOT NULL,
        from_status TEXT,
        record TEXT NOT NULL
    );
    -- The timelines of tasks and messages.
    CREATE TABLE stories (
        subject TEXT NOT NULL,
        line INTEGER NOT NULL,
        at INTEGER NOT NULL,
        what TEXT NOT NULL,
        detail TEXT NOT NULL,
        PRIMARY KEY (subject, line)
    ) WITHOUT ROWID;
    CREATE TABLE keys (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, task TEXT NOT NULL, record TEXT NOT NULL);
    CREATE INDEX keys_task ON keys (task);
    ",
    // 2: indexes to find expired rows.
    "
    CREATE INDEX tasks_live ON tasks (accepted) WHERE left_at IS NULL;
    CREATE INDEX tasks_left ON tasks (left_at) WHERE left_at IS NOT NULL;
    CREATE INDEX changes_at ON changes (at);
    CREATE INDEX parents_open ON parents (parent) WHERE settled = 0 OR silenced = 1;
    CREATE INDEX parents_settled ON parents (changed_at) WHERE settled = 1;
    ",
    // 3: aborts that are not judged yet.
    "
    CREATE TABLE aborts (session TEXT PRIMARY KEY NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
    ",
    // 4: the processes that own sessions. The sequence number rises with each change.
    "
    CREATE TABLE owners (seq INTEGER PRIMARY KEY, session TEXT UNIQUE NOT NULL, pid INTEGER NOT NULL, directory TEXT NOT NULL);
    ",
    // 5: the appends that were missing at the last start at which any was, and the time of that start.
    "
    INSERT INTO marks VALUES ('missing', 0), ('missing_at', 0);
    ",
];

/// The version that is written.
pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

/// The version of a file.
enum FileVersion {
    Empty,
    Known(i64),
}

fn read_version(db: &Connection, path: &Path) -> Result<FileVersion, OpenError> {
    let failed = |source| OpenError::of(path, source);
    let number = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = number("user_version").map_err(failed)?;
    let application = number("application_id").map_err(failed)?;
    let tables = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
        row.get::<_, i64>(0)
    });
    match (application, version, tables.map_err(failed)?) {
        (0, 0, 0) => Ok(FileVersion::Empty),
        (APPLICATION_ID, version, _) if version > VERSION => Err(OpenError::Newer {
            path: path.to_owned(),
            version,
            known: VERSION,
        }),
        (APPLICATION_ID, version, tables) if version > 0 && tables > 0 => {
            Ok(FileVersion::Known(version))
        }
        _ => Err(OpenError::Foreign {
            path: path.to_owned(),
            what: "it is the database of another program".to_owned(),
        }),
    }
}

/// Fails unless the file has the current version.
pub(crate) fn require_current(db: &Connection, path: &Path) -> Result<(), OpenError> {
    match read_version(db, path)? {
        FileVersion::Known(VERSION) => Ok(()),
        FileVersion::Known(version) => Err(OpenError::Older {
            path: path.to_owned(),
            version,
            known: VERSION,
        }),
        FileVersion::Empty => Err(OpenError::Missing {
            path: path.to_owned(),
        }),
    }
}

/// Creates the tables, or migrates them after a backup of the file.
pub(crate) fn migrate(db: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let begin = match read_version(db, path)? {
        FileVersion::Known(VERSION) => return Ok(()),
        FileVersion::Known(version) => {
            write_backup(db, path, version)?;
            tracing::info!(journal = %path.display(), version, to = VERSION, "migrating the journal");
            version
        }
        FileVersion::Empty => 0,
    };
    let mut step = || -> rusqlite::Result<()> {
        let steps = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for step in MIGRATIONS.iter().skip(usize::try_from(begin).unwrap_or(0)) {
            steps.execute_batch(step)?;
        }
        steps.pragma_update(None, "application_id", APPLICATION_ID)?;
        steps.pragma_update(None, "user_version", VERSION)?;
        steps.commit()
    };
    step().map_err(|source| OpenError::of(path, source))
}

/// Writes a backup that is readable by its owner alone. It replaces an earlier backup of the same version.
fn write_backup(db: &Connection, path: &Path, version: i64) -> Result<(), OpenError> {
    let copy = file::sibling(path, &format!(".v{version}.bak"));
    let failed = |problem: String| OpenError::Backup {
        path: copy.clone(),
        problem,
    };
    match std::fs::remove_file(&copy) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(error.to_string()));
        }
        _ => {}
    }
    file::open_private(&copy).map_err(|error| failed(error.to_string()))?;
    let name = copy
        .to_str()
        .ok_or_else(|| failed("its path is not valid UTF-8".to_owned()))?;
    db.execute("VACUUM INTO ?1", [name])
        .map_err(|error| failed(error.to_string()))?;
    Ok(())
}
