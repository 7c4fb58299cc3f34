//! Reads the list of deliberate faults: a table with one line each, and a patch of that name next to it.

use std::path::{Path, PathBuf};

/// The folder of the faults, relative to the workspace.
pub const FOLDER: &str = "crates/greenroom-sim/faults";
const TABLE: &str = "faults.txt";
/// The profile of a fault whose line names none.
pub const DEFAULT_PROFILE: &str = "default";

/// A deliberate fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its name.
    pub name: String,
    /// The promise of docs/behaviour.md that it breaks.
    pub promise: String,
    /// A description.
    pub sentence: String,
    /// The profile of the explorer that is searched.
    pub profile: String,
    /// The patch that applies it.
    pub patch: PathBuf,
}

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The table cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// A line is malformed.
    #[error(
        "line {0} of {TABLE}: {1}; write: name | promise | sentence, and a profile if it is not the default one"
    )]
    Line(usize, &'static str),
    /// A line has no patch, or a patch has no line.
    #[error("{0}: {1}")]
    Unpaired(String, &'static str),
}

/// Returns the path of the table, for messages.
pub fn table_path() -> String {
    format!("{FOLDER}/{TABLE}")
}

/// Returns the faults of a folder in the order of its table.
///
/// # Errors
///
/// Returns [`ListError`] if the table is malformed, or lines and patches do not match.
pub fn read(folder: &Path) -> Result<Vec<Fault>, ListError> {
    let table = folder.join(TABLE);
    let text =
        std::fs::read_to_string(&table).map_err(|error| ListError::Unreadable(table, error))?;
    let faults = parse(&text, folder)?;
    for fault in &faults {
        if !fault.patch.is_file() {
            return Err(ListError::Unpaired(
                fault.name.clone(),
                "it has no patch; add one of that name",
            ));
        }
    }
    let patches = std::fs::read_dir(folder)
        .map_err(|error| ListError::Unreadable(folder.to_owned(), error))?;
    for patch in patches.flatten().map(|entry| entry.path()) {
        let is_patch = patch
            .extension()
            .is_some_and(|extension| extension == "patch");
        if is_patch && !faults.iter().any(|fault| fault.patch == patch) {
            return Err(ListError::Unpaired(
                patch.display().to_string(),
                "the table has no line for it; add one",
            ));
        }
    }
    Ok(faults)
}

fn parse(text: &str, folder: &Path) -> Result<Vec<Fault>, ListError> {
    let mut faults: Vec<Fault> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        let invalid = |what| ListError::Line(number + 1, what);
        let (name, promise, sentence, profile) = match *parts.as_slice() {
            [name, promise, sentence] => (name, promise, sentence, DEFAULT_PROFILE),
            [name, promise, sentence, profile] => (name, promise, sentence, profile),
            _ => return Err(invalid("it does not have three or four parts")),
        };
        if parts.contains(&"") {
            return Err(invalid("a part of it is empty"));
        }
        let is_allowed = |letter: char| letter.is_ascii_lowercase() || letter == '-';
        if !name.chars().all(is_allowed) {
            return Err(invalid("a name consists of lower-case letters and hyphens"));
        }
        if faults.iter().any(|fault| fault.name == name) {
            return Err(invalid("the name is already used"));
        }
        faults.push(Fault {
            name: name.to_owned(),
            promise: promise.to_owned(),
            sentence: sentence.to_owned(),
            profile: profile.to_owned(),
            patch: folder.join(format!("{name}.patch")),
        });
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn comments_are_skipped() {
        let text = "# talk\n\none-more | Slots | one more\nlate | Wakes | late | ordinary\n";
        let faults = parse(text, Path::new("f")).unwrap();
        let profiles: Vec<&str> = faults.iter().map(|fault| fault.profile.as_str()).collect();
        assert_eq!(profiles, [DEFAULT_PROFILE, "ordinary"]);
        assert_eq!(
            (faults[0].name.as_str(), faults[0].patch.as_path()),
            ("one-more", Path::new("f/one-more.patch"))
        );
    }

    #[test]
    fn malformed_line_is_an_error_with_its_number() {
        for (text, expected) in [
            (
                "a | b",
                "line 1 of faults.txt: it does not have three or four parts",
            ),
            ("a | | c", "a part of it is empty"),
            ("../a | b | c", "lower-case letters and hyphens"),
            ("a | b | c\na | b | d", "line 2 of faults.txt: the name"),
        ] {
            let error = parse(text, Path::new("f")).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// A patch no longer applies if its lines have changed: this test notices that before a run of hours does.
    #[test]
    fn every_patch_applies() {
        let root = super::super::root();
        let faults = read(&root.join(FOLDER)).unwrap();
        assert!(faults.len() >= 20);
        for fault in faults {
            let apply = Command::new("git")
                .args(["apply", "--check"])
                .arg(&fault.patch)
                .current_dir(&root)
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&apply.stderr);
            assert!(
                apply.status.success(),
                "{} does not apply: {stderr}",
                fault.name
            );
        }
    }
}
