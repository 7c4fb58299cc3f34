//! Why a journal cannot be used, each with what to do next. Made where the file is opened or looked after; shown by the
//! command.

use std::path::PathBuf;

/// A row that does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table}, row {row}: {problem}")]
pub struct RowError {
    /// The table.
    pub table: &'static str,
    /// Its key.
    pub row: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Why a journal is not opened. The file is never replaced or repaired on its own.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or the file cannot be made, read or written.
    #[error("cannot use the journal {}: {source}", path.display())]
    Unusable {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It can be read and not written.
    #[error("the journal {} cannot be written", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// Another process of ours uses it.
    #[error("the journal {} is in use by {}", path.display(), holder(*pid))]
    Held {
        /// The file.
        path: PathBuf,
        /// The process, as it said itself.
        pid: Option<u32>,
    },
    /// Another program keeps it locked.
    #[error("the journal {} is locked by another program", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing there to look at.
    #[error("there is no journal {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{} is no journal: {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// It is broken.
    #[error("the journal {} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// A later version of this program has written it.
    #[error("the journal {} has version {version}; this program knows {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
        /// The newest one known.
        known: i64,
    },
    /// An older version of this program has written it, and only a look was asked for.
    #[error("the journal {} has version {version}; this program keeps {known}", path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
        /// The one that is kept now.
        known: i64,
    },
    /// The copy that is made before a change of its form failed.
    #[error("no copy of the journal could be made at {}: {problem}", path.display())]
    Backup {
        /// The copy.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// Anything else that SQLite says.
    #[error("the journal {}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: rusqlite::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("the process {pid}"),
    )
}

impl OpenError {
    /// What the reader can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Unusable { .. } | Self::ReadOnly { .. } => {
                "repair permissions there, or name another file with --journal".to_owned()
            }
            Self::Held { pid, .. } => {
                let which = pid.map_or_else(String::new, |pid| format!(" (kill {pid})"));
                format!("stop the service that uses it{which}, or name another file with --journal")
            }
            Self::Locked { .. } => {
                "end the program that has it open, for instance a database browser".to_owned()
            }
            Self::Missing { .. } => {
                "name the file with --journal; a service makes it at its first start".to_owned()
            }
            Self::Foreign { .. } => "name another file with --journal".to_owned(),
            Self::Damaged { path, .. } => format!(
                "put a copy of it back, or move it away (mv {0} {0}.broken): the service then begins a new one and \
                 knows nothing of earlier tasks",
                path.display()
            ),
            Self::Newer { .. } => {
                "use the newer version of greenroom, or name another file with --journal".to_owned()
            }
            Self::Older { .. } => {
                "start the service on it once: that brings it up to date".to_owned()
            }
            Self::Backup { .. } => "make room there; the journal itself is untouched".to_owned(),
            Self::Sqlite { .. } => {
                "look at the file's folder and disk, or name another file with --journal".to_owned()
            }
        }
    }

    /// What an error of SQLite's means for the file at `path`.
    pub(crate) fn of(path: &std::path::Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let path = path.to_owned();
        if matches!(
            source,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..)
        ) {
            return Self::Damaged {
                path,
                what: source.to_string(),
            };
        }
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign {
                path,
                what: "it is not an SQLite database".to_owned(),
            },
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged {
                path,
                what: source.to_string(),
            },
            Some(ErrorCode::ReadOnly) => Self::ReadOnly { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path },
            _ => Self::Sqlite { path, source },
        }
    }

    pub(crate) fn row(path: &std::path::Path, error: &RowError) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what: error.to_string(),
        }
    }
}
