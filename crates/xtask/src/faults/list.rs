//! The list of deliberate faults: a table with one line each, and a patch of that name beside it.

use std::path::{Path, PathBuf};

/// Where the faults are, from the folder of the workspace.
pub const FOLDER: &str = "crates/greenroom-sim/faults";
const TABLE: &str = "faults.txt";

/// A fault that can be put into the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it is called.
    pub name: String,
    /// The promise of docs/behaviour.md that it breaks.
    pub promise: String,
    /// What it does.
    pub sentence: String,
    /// The patch that puts it in.
    pub patch: PathBuf,
}

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The table is not there.
    #[error("{0} cannot be read: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// A line does not say all it should.
    #[error("line {0} of {TABLE}: {1}; write: name | promise | sentence")]
    Line(usize, &'static str),
    /// Patch and line do not go together.
    #[error("{0}: {1}")]
    Unpaired(String, &'static str),
}

/// The table, as people are told of it.
pub fn path_of_table() -> String {
    format!("{FOLDER}/{TABLE}")
}

/// The faults of a folder in the order of its table; each has its patch, and no patch is without a line.
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
        let wrong = |what| ListError::Line(number + 1, what);
        let &[name, promise, sentence] = parts.as_slice() else {
            return Err(wrong("it has not three parts"));
        };
        if parts.contains(&"") {
            return Err(wrong("a part of it is empty"));
        }
        let plain = |letter: char| letter.is_ascii_lowercase() || letter == '-';
        if !name.chars().all(plain) {
            return Err(wrong("a name is made of small letters and hyphens"));
        }
        if faults.iter().any(|fault| fault.name == name) {
            return Err(wrong("that name is there already"));
        }
        faults.push(Fault {
            name: name.to_owned(),
            promise: promise.to_owned(),
            sentence: sentence.to_owned(),
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
    fn a_line_is_a_fault_and_a_comment_is_none() {
        let faults = parse("# talk\n\none-more | Slots | one more\n", Path::new("f")).unwrap();
        assert_eq!(faults.len(), 1);
        assert_eq!(
            (faults[0].name.as_str(), faults[0].patch.as_path()),
            ("one-more", Path::new("f/one-more.patch"))
        );
    }

    #[test]
    fn a_line_that_says_too_little_is_named() {
        for (text, said) in [
            ("a | b", "line 1 of faults.txt: it has not three parts"),
            ("a | | c", "a part of it is empty"),
            ("../a | b | c", "small letters and hyphens"),
            ("a | b | c\na | b | d", "line 2 of faults.txt: that name"),
        ] {
            let error = parse(text, Path::new("f")).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    /// A fault whose place has changed finds nothing any more: it is noticed here, not in a run of hours.
    #[test]
    fn every_fault_can_be_put_into_the_system_as_it_is() {
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
            let said = String::from_utf8_lossy(&apply.stderr);
            assert!(
                apply.status.success(),
                "{} does not apply: {said}",
                fault.name
            );
        }
    }
}
