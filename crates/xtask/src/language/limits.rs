//! The committed table: how many counted words each crate may have in each category. One line each: crate, category,
//! number.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::source::Category;

/// A crate and a category of its sources.
pub type Key = (String, Category);
/// Numbers by crate and category.
pub type Counts = BTreeMap<Key, usize>;

/// Why the table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// The file cannot be written.
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, std::io::Error),
    /// A line has another form.
    #[error("line {0} is not `crate category number`: {1}")]
    Line(usize, String),
}

/// Reads the table from its text.
pub fn parse(text: &str) -> Result<Counts, LimitsError> {
    let mut counts = Counts::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, count) =
            parse_line(line).ok_or_else(|| LimitsError::Line(index + 1, line.to_owned()))?;
        counts.insert(key, count);
    }
    Ok(counts)
}

fn parse_line(line: &str) -> Option<(Key, usize)> {
    let mut parts = line.split_whitespace();
    let (name, category, count) = (parts.next()?, parts.next()?, parts.next()?);
    let category = Category::ALL
        .into_iter()
        .find(|known| known.name() == category)?;
    let is_whole = parts.next().is_none();
    let count = count.parse().ok()?;
    is_whole.then(|| ((name.to_owned(), category), count))
}

/// Returns the text of a table.
pub fn render(counts: &Counts) -> String {
    let mut text = "# How many counted words each crate has, by category: `cargo xtask language`. \
                    The numbers may only fall.\n"
        .to_owned();
    for ((name, category), count) in counts {
        text.push_str(&format!("{name} {} {count}\n", category.name()));
    }
    text
}

/// Returns the counts, those above the table replaced by its numbers.
pub fn lowered(counts: Counts, limits: &Counts) -> Counts {
    counts
        .into_iter()
        .map(|(key, count)| {
            let limit = limits.get(&key).copied().unwrap_or(0);
            (key, count.min(limit))
        })
        .collect()
}

/// The comparison of a count with the table.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What exceeds the table.
    pub above: Vec<Excess>,
    /// Whether anything is below the table.
    pub is_below: bool,
}

/// A number above the table's.
#[derive(Debug, PartialEq, Eq)]
pub struct Excess {
    /// Crate and category.
    pub key: Key,
    /// The counted number.
    pub count: usize,
    /// The number of the table.
    pub limit: usize,
}

/// Compares counts with the table; a line that the table does not have allows none.
pub fn compare(counts: &Counts, limits: &Counts) -> Comparison {
    let mut comparison = Comparison::default();
    for (key, &count) in counts {
        let limit = limits.get(key).copied().unwrap_or(0);
        if count > limit {
            comparison.above.push(Excess {
                key: key.clone(),
                count,
                limit,
            });
        }
        comparison.is_below |= count < limit;
    }
    comparison.is_below |= limits
        .iter()
        .any(|(key, &limit)| limit > 0 && !counts.contains_key(key));
    comparison
}
