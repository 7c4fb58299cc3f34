//! One configuration file: read with a bound, parsed, and every key with the line it stands on.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};

/// No configuration is larger.
pub const LARGEST: u64 = 1024 * 1024;

/// A file that was read.
#[derive(Debug)]
pub struct File {
    /// What it says.
    pub table: toml::Table,
    path: PathBuf,
    lines: BTreeMap<String, usize>,
}

impl File {
    /// Where a key stands; the parts of its name with dots between them.
    pub fn origin(&self, name: &str) -> Origin {
        Origin::File {
            path: self.path.clone(),
            line: self.lines.get(name).copied(),
        }
    }
}

/// Reads a file; none if it is not there and need not be.
///
/// # Errors
/// It cannot be read, is too large, or is no TOML.
pub fn read(path: &Path, must_exist: bool) -> Result<Option<File>, ConfigError> {
    let text = match bounded(path, LARGEST) {
        Ok(Some(text)) => text,
        Ok(None) => {
            return Err(ConfigError::TooLarge {
                path: path.to_owned(),
                most: LARGEST,
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
        number("", DeTable::parse(&text)?.get_ref(), &line, &mut lines);
        Ok((table, lines))
    });
    match parsed {
        Ok((table, lines)) => Ok(Some(File {
            table,
            path: path.to_owned(),
            lines,
        })),
        Err(error) => Err(ConfigError::NoToml {
            origin: Origin::File {
                path: path.to_owned(),
                line: error.span().map(|span| line(span.start)),
            },
            problem: error.message().to_owned(),
        }),
    }
}

/// A file's text, or none if it is larger than `most` bytes. It may be a pipe, as in `--config <(…)`.
pub fn bounded(path: &Path, most: u64) -> std::io::Result<Option<String>> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(most + 1)
        .read_to_string(&mut text)?;
    Ok((text.len() as u64 <= most).then_some(text))
}

/// Notes the line of every key of a table and of the tables in it.
fn number(
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
            number(&name, below, line, lines);
        }
    }
}
