//! The errors of opening and maintaining a journal, each with a hint for the reader. Shown by the command.

use std::path::PathBuf;

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table}, row {row}: {problem}")]
pub struct RowError {
    /// The table.
    pub table: &'static str,
    /// The key of the row.
    pub row: String,
    /// The problem.
    pub problem: String,
}

/// Why a journal is not opened. The file is left as it is: it is never replaced or repaired.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or the file cannot be created, read or written.
    #[error("cannot use the journal {}: {source}", path.display())]
    Unusable {
        /// The folder or file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// Another user could write or replace the journal.
    #[error("the journal is not safe at {}: {what}", path.display())]
    Exposed {
        /// The folder or file.
        path: PathBuf,
        /// The access of others.
        what: &'static str,
        /// The argument of chmod that removes the access.
        mode: &'static str,
    },
    /// The file belongs to another user.
    #[error("{} belongs to the user with id {owner}", path.display())]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// The id of that user.
        owner: u32,
    },
    /// The file can be read but not written.
    #[error("the journal {} cannot be written", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// Another Greenroom process uses it.
    #[error("the journal {} is in use by {}", path.display(), holder(*pid))]
    InUse {
        /// The file.
        path: PathBuf,
        /// The id of that process, if it is known.
        pid: Option<u32>,
    },
    /// Another program holds a lock on it.
    #[error("the journal {} is locked by another program", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file does not exist.
    #[error("there is no journal {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a journal.
    #[error("{} is not a journal: {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The content that was found instead.
        what: String,
    },
    /// The file is damaged.
    #[error("the journal {} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The content that was found instead.
        what: String,
    },
    /// A later version of Greenroom wrote it.
    #[error("the journal {} has version {version}; this program knows {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of the file.
        version: i64,
        /// The newest supported version.
        known: i64,
    },
    /// An older version of Greenroom wrote it, and it was opened for reading only.
    #[error("the journal {} has version {version}; this program keeps {known}", path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// The version of the file.
        version: i64,
        /// The version that is written now.
        known: i64,
    },
    /// The backup before a migration failed.
    #[error("no copy of the journal could be made at {}: {problem}", path.display())]
    Backup {
        /// The path of the backup.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// Another error of SQLite.
    #[error("the journal {}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The error.
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
    /// Returns what the reader can do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Unusable { .. } | Self::ReadOnly { .. } => {
                "repair permissions there, or name another file with --journal".to_owned()
            }
            Self::Exposed { path, mode, .. } => format!(
                "chmod {mode} {}, or name a file in another folder with --journal",
                path.display()
            ),
            Self::ForeignOwner { path, .. } => format!(
                "chown $(id -u) {}, or name another file with --journal",
                path.display()
            ),
            Self::InUse { pid, .. } => {
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

    /// Returns the meaning of an SQLite error for the file at `path`.
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
