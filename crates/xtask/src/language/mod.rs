//! `cargo xtask language`: counts the words in the Rust sources that plain technical English does not need, and compares
//! the numbers with a committed table that may only fall. [`words`] is the table of patterns.

mod find;
mod limits;
mod source;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use self::find::Found;
use self::limits::{Comparison, Counts, Key, LimitsError};
use self::source::Category;

/// The committed numbers, from the root of the workspace.
const TABLE: &str = "crates/xtask/language.txt";
/// Sources that have to name the words.
const EXEMPT: [&str; 2] = [
    "crates/xtask/src/language/words.rs",
    "crates/xtask/src/language/tests.rs",
];
/// Sources whose string literals quote recorded files: old scenarios, and the journal of an earlier release.
const QUOTING: [&str; 3] = [
    "crates/greenroom-sim/src/explore/old_names.rs",
    "crates/greenroom-sim/tests/explore.rs",
    "crates/greenroom-sqlite/tests/journal/earlier_release.rs",
];

/// What to do with the numbers.
#[derive(Debug, Args)]
pub struct Options {
    /// Write the numbers that became lower to the table
    #[arg(long)]
    write: bool,
    /// Also write numbers that became higher
    #[arg(long, requires = "write")]
    allow_raise: bool,
    /// Print each occurrence of one crate, or of all, as file:line: word
    #[arg(long, value_name = "CRATE", num_args = 0..=1, conflicts_with = "write")]
    list: Option<Option<String>>,
}

/// Why the sources could not be counted, or did not pass.
#[derive(Debug, thiserror::Error)]
pub enum LanguageError {
    /// A file or folder cannot be read.
    #[error("cannot read {0}: {1}; run in the root of the workspace")]
    Read(PathBuf, std::io::Error),
    /// The committed table cannot be used.
    #[error("{TABLE}: {0}")]
    Limits(#[from] LimitsError),
    /// The crate has no sources.
    #[error("{0} is not a crate of the workspace; the crates are {1}")]
    UnknownCrate(String, String),
    /// Numbers are above the table.
    #[error(
        "{0} of the numbers are above {TABLE}: write plainer words (docs/architecture.md, Language)"
    )]
    Above(usize),
    /// Numbers above the table were not written.
    #[error(
        "{0} of the numbers would rise and were not written: write plainer words, or pass --allow-raise"
    )]
    NotRaised(usize),
}

/// A counted word in a file.
struct Occurrence {
    file: String,
    found: Found,
}

/// All counted words by crate and category; categories without one are there, and empty.
type Occurrences = BTreeMap<Key, Vec<Occurrence>>;

/// Counts the words, and compares, writes or lists.
pub fn run(options: &Options) -> Result<(), LanguageError> {
    let occurrences = count(Path::new("."))?;
    if let Some(crate_name) = &options.list {
        return list(&occurrences, crate_name.as_deref());
    }
    let counts: Counts = occurrences
        .iter()
        .map(|(key, all)| (key.clone(), all.len()))
        .collect();
    let table = Path::new(TABLE);
    let limits = if table.exists() {
        let text = std::fs::read_to_string(table)
            .map_err(|error| LimitsError::Read(table.to_owned(), error))?;
        limits::parse(&text)?
    } else {
        Counts::new()
    };
    let comparison = limits::compare(&counts, &limits);
    report(&comparison, &occurrences);
    let above = comparison.above.len();
    if options.write {
        let written = if options.allow_raise {
            counts
        } else {
            limits::lowered(counts, &limits)
        };
        std::fs::write(table, limits::render(&written))
            .map_err(|error| LimitsError::Write(table.to_owned(), error))?;
        if above > 0 && !options.allow_raise {
            return Err(LanguageError::NotRaised(above));
        }
        return Ok(());
    }
    if above > 0 {
        return Err(LanguageError::Above(above));
    }
    if comparison.is_below {
        println!("some numbers are below {TABLE}: write them with `cargo xtask language --write`");
    }
    let total: usize = counts.values().sum();
    println!("{total} words are counted, none above {TABLE}");
    Ok(())
}

/// Prints the numbers above the table, each with its occurrences.
fn report(comparison: &Comparison, occurrences: &Occurrences) {
    for excess in &comparison.above {
        let (crate_name, category) = &excess.key;
        println!(
            "{crate_name} {}: {} counted, {} allowed",
            category.name(),
            excess.count,
            excess.limit
        );
        for occurrence in &occurrences[&excess.key] {
            print(occurrence);
        }
    }
}

fn list(occurrences: &Occurrences, crate_name: Option<&str>) -> Result<(), LanguageError> {
    if let Some(wanted) = crate_name
        && !occurrences.keys().any(|(name, _)| name == wanted)
    {
        let mut names: Vec<&str> = occurrences.keys().map(|(name, _)| name.as_str()).collect();
        names.dedup();
        return Err(LanguageError::UnknownCrate(
            wanted.to_owned(),
            names.join(", "),
        ));
    }
    for ((name, category), all) in occurrences {
        if crate_name.is_some_and(|wanted| wanted != name) {
            continue;
        }
        println!("{name} {}: {}", category.name(), all.len());
        for occurrence in all {
            print(occurrence);
        }
    }
    Ok(())
}

fn print(Occurrence { file, found }: &Occurrence) {
    let Found { line, word, reason } = found;
    println!("{file}:{line}: {word} ({})", reason.name());
}

/// Counts the words in all Rust sources of a workspace.
fn count(root: &Path) -> Result<Occurrences, LanguageError> {
    let mut packages = vec![("tests".to_owned(), PathBuf::from("tests"))];
    for folder in entries(root, Path::new("crates"))? {
        if let Some(name) = folder.file_name().and_then(|name| name.to_str()) {
            packages.push((name.to_owned(), folder.clone()));
        }
    }
    let mut occurrences = Occurrences::new();
    for (name, folder) in packages {
        for category in Category::ALL {
            occurrences.entry((name.clone(), category)).or_default();
        }
        let mut files = Vec::new();
        sources(root, &folder, &mut files)?;
        for file in files {
            let path = root.join(&file);
            let text =
                std::fs::read_to_string(&path).map_err(|error| LanguageError::Read(path, error))?;
            let file = file.to_string_lossy().into_owned();
            if EXEMPT.contains(&file.as_str()) {
                continue;
            }
            let quotes = QUOTING.contains(&file.as_str());
            let passages = source::passages(&text).into_iter();
            for passage in passages.filter(|passage| !quotes || passage.category != Category::Texts)
            {
                let all = occurrences
                    .entry((name.clone(), passage.category))
                    .or_default();
                for found in find::find(&name, &passage) {
                    all.push(Occurrence {
                        file: file.clone(),
                        found,
                    });
                }
            }
        }
    }
    Ok(occurrences)
}

/// Adds the Rust files below a folder, in the order of their names. Build folders and hidden ones are left out.
fn sources(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), LanguageError> {
    for entry in entries(root, folder)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        if root.join(&entry).is_dir() {
            if name != "target" && name != "node_modules" && !name.starts_with('.') {
                sources(root, &entry, files)?;
            }
        } else if name.ends_with(".rs") {
            files.push(entry);
        }
    }
    Ok(())
}

/// Returns the entries of a folder, sorted, as paths from the root.
fn entries(root: &Path, folder: &Path) -> Result<Vec<PathBuf>, LanguageError> {
    let path = root.join(folder);
    let failed = |error| LanguageError::Read(path.clone(), error);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(failed)? {
        entries.push(folder.join(entry.map_err(failed)?.file_name()));
    }
    entries.sort();
    Ok(entries)
}
