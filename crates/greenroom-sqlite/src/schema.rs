//! The tables, as versions that follow each other. A file of an older version is copied and brought up to date, one of a
//! newer version refused.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::error::OpenError;
use crate::file;

/// What makes a database one of ours ("GRNR").
const OURS: i64 = 0x4752_4e52;

/// Each brings the tables from the version of its place to the next.
const STEPS: [&str; 2] = [
    // 1: what is kept.
    "
    -- Where the writer stands within the process that writes, and what has been let go of.
    CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO marks VALUES ('place', 0), ('changes_gone', 0);
    -- Every task, as it is now. `record` is without what `texts` holds.
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
    -- What a run was told, which may be long: once, and not with every change.
    CREATE TABLE texts (
        task TEXT NOT NULL,
        run INTEGER NOT NULL,
        prompt TEXT NOT NULL,
        skill_content TEXT,
        UNIQUE (task, run)
    );
    -- What each parent is owed and was told: entries in their order (kind 0) after an account as a whole (kind 1).
    CREATE TABLE ledger (
        seq INTEGER PRIMARY KEY,
        parent TEXT NOT NULL,
        kind INTEGER NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX ledger_parent ON ledger (parent, seq);
    -- Entries of a parent since it was last written as a whole, and how many there may be.
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
    -- What happened to tasks and to messages, in words.
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
    // 2: what is over is found without looking at everything.
    "
    CREATE INDEX tasks_live ON tasks (accepted) WHERE left_at IS NULL;
    CREATE INDEX tasks_left ON tasks (left_at) WHERE left_at IS NOT NULL;
    CREATE INDEX changes_at ON changes (at);
    CREATE INDEX parents_open ON parents (parent) WHERE settled = 0 OR silenced = 1;
    CREATE INDEX parents_settled ON parents (changed_at) WHERE settled = 1;
    ",
];

/// The version that is written.
pub(crate) const VERSION: i64 = STEPS.len() as i64;

/// What a file says of itself.
enum Found {
    Empty,
    Version(i64),
}

fn look(db: &Connection, path: &Path) -> Result<Found, OpenError> {
    let failed = |source| OpenError::of(path, source);
    let number = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = number("user_version").map_err(failed)?;
    let application = number("application_id").map_err(failed)?;
    let tables = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
        row.get::<_, i64>(0)
    });
    match (application, version, tables.map_err(failed)?) {
        (0, 0, 0) => Ok(Found::Empty),
        (OURS, version, _) if version > VERSION => Err(OpenError::Newer {
            path: path.to_owned(),
            version,
            known: VERSION,
        }),
        (OURS, version, tables) if version > 0 && tables > 0 => Ok(Found::Version(version)),
        _ => Err(OpenError::Foreign {
            path: path.to_owned(),
            what: "it is the database of another program".to_owned(),
        }),
    }
}

/// Refuses a file that cannot be read as it is.
pub(crate) fn must_be_current(db: &Connection, path: &Path) -> Result<(), OpenError> {
    match look(db, path)? {
        Found::Version(VERSION) => Ok(()),
        Found::Version(version) => Err(OpenError::Older {
            path: path.to_owned(),
            version,
            known: VERSION,
        }),
        Found::Empty => Err(OpenError::Missing {
            path: path.to_owned(),
        }),
    }
}

/// Makes the tables, or brings them up to date after a copy of the file was made beside it.
pub(crate) fn bring_up_to_date(db: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let begin = match look(db, path)? {
        Found::Version(VERSION) => return Ok(()),
        Found::Version(version) => {
            back_up(db, path, version)?;
            tracing::info!(journal = %path.display(), version, to = VERSION, "bringing the journal up to date");
            version
        }
        Found::Empty => 0,
    };
    let mut step = || -> rusqlite::Result<()> {
        let steps = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for step in STEPS.iter().skip(usize::try_from(begin).unwrap_or(0)) {
            steps.execute_batch(step)?;
        }
        steps.pragma_update(None, "application_id", OURS)?;
        steps.pragma_update(None, "user_version", VERSION)?;
        steps.commit()
    };
    step().map_err(|source| OpenError::of(path, source))
}

/// A copy as it was, readable by its owner alone. One of the same version from before is replaced.
fn back_up(db: &Connection, path: &Path, version: i64) -> Result<(), OpenError> {
    let copy = file::beside(path, &format!(".v{version}.bak"));
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
    file::private(&copy).map_err(|error| failed(error.to_string()))?;
    let name = copy
        .to_str()
        .ok_or_else(|| failed("its path is no text".to_owned()))?;
    db.execute("VACUUM INTO ?1", [name])
        .map_err(|error| failed(error.to_string()))?;
    Ok(())
}
