//! Reads one configuration file with a size limit and records the line of each key.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use crate::secret_file::open_unfollowed;

/// Maximum size of a configuration file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A parsed configuration file.
#[derive(Debug)]
pub struct File {
    /// The content.
    pub table: toml::Table,
    /// The text.
    pub text: String,
    path: PathBuf,
    lines: BTreeMap<String, usize>,
}

impl File {
    /// Returns the position of a key, given as its parts joined by dots.
    pub fn origin(&self, name: &str) -> Origin {
        Origin::File {
            path: self.path.clone(),
            line: self.lines.get(name).copied(),
        }
    }
}

/// Reads a file; none if the file does not exist and is optional.
///
/// # Errors
/// Fails if the file cannot be read, is too large, or is not valid TOML.
pub fn read(path: &Path, must_exist: bool) -> Result<Option<File>, ConfigError> {
    parse(path, must_exist, read_bounded(path, MAX_FILE_BYTES))
}

/// Reads the file of a project as [`read`], but no link and no pipe or device, which a cloned repository may name: reading one
/// could wait forever, or accept the file of another folder.
///
/// # Errors
/// As [`read`].
pub fn read_of_project(path: &Path) -> Result<Option<File>, ConfigError> {
    parse(path, false, read_regular(path, MAX_FILE_BYTES))
}

fn parse(
    path: &Path,
    must_exist: bool,
    read: std::io::Result<Option<String>>,
) -> Result<Option<File>, ConfigError> {
    let text = match read {
        Ok(Some(text)) => text,
        Ok(None) => {
            return Err(ConfigError::TooLarge {
                path: path.to_owned(),
                most: MAX_FILE_BYTES,
            });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok(None);
        }
        Err(source) => {
            return Err(ConfigError::Unreadable {
                path: path.to_owned(),
                source,
            });
        }
    };
    let starts: Vec<usize> = std::iter::once(0)
        .chain(text.match_indices('\n').map(|(at, _)| at + 1))
        .collect();
    let line = |at: usize| starts.partition_point(|start| *start <= at);
    let parsed = text.parse::<toml::Table>().and_then(|table| {
        let mut lines = BTreeMap::new();
        index_lines("", DeTable::parse(&text)?.get_ref(), &line, &mut lines);
        Ok((table, lines))
    });
    match parsed {
        Ok((table, lines)) => Ok(Some(File {
            table,
            text,
            path: path.to_owned(),
            lines,
        })),
        Err(error) => Err(ConfigError::InvalidToml {
            origin: Origin::File {
                path: path.to_owned(),
                line: error.span().map(|span| line(span.start)),
            },
            problem: error.message().to_owned(),
        }),
    }
}

fn read_regular(path: &Path, most: u64) -> std::io::Result<Option<String>> {
    let file = open_unfollowed(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    read_text(file, most)
}

/// Reads a text file of at most `most` bytes; none if it is larger. Works for pipes, as in `--config <(…)`.
pub fn read_bounded(path: &Path, most: u64) -> std::io::Result<Option<String>> {
    read_text(std::fs::File::open(path)?, most)
}

fn read_text(file: std::fs::File, most: u64) -> std::io::Result<Option<String>> {
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text)?;
    Ok((text.len() as u64 <= most).then_some(text))
}

/// Records the line of each key in a table and its subtables.
fn index_lines(
    above: &str,
    table: &DeTable<'_>,
    line: &dyn Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    for (key, value) in table {
        let name = if above.is_empty() {
            key.get_ref().to_string()
        } else {
            format!("{above}.{}", key.get_ref())
        };
        lines.insert(name.clone(), line(Spanned::span(key).start));
        if let DeValue::Table(below) = value.get_ref() {
            index_lines(&name, below, line, lines);
        }
    }
}
