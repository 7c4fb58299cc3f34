//! Reads and writes docs/faults.md, the results of all faults. A run of some faults keeps the results of the others.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::list::{DEFAULT_PROFILE, Fault};

/// The page, relative to the workspace.
pub const FILE: &str = "docs/faults.md";

/// The result of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The explorer found it.
    Caught {
        /// The number of seeds until then.
        seeds: u64,
        /// The broken promise, and how it broke.
        promise: String,
    },
    /// The explorer did not find it within these bounds.
    NotCaught(String),
    /// The patch could not be applied or built.
    NotApplied(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught { seeds, promise } => write!(f, "caught after {seeds} seeds, {promise}"),
            Self::NotCaught(within) => write!(f, "not caught within {within}"),
            Self::NotApplied(why) => write!(f, "not tried: {why}"),
        }
    }
}

impl Verdict {
    /// Returns its two cells of the table.
    fn cells(&self) -> (String, String) {
        match self {
            Self::Caught { seeds, promise } => (seeds.to_string(), promise.clone()),
            Self::NotCaught(within) => ("not caught".to_owned(), format!("within {within}")),
            Self::NotApplied(why) => ("not tried".to_owned(), why.clone()),
        }
    }
}

const INTRODUCTION: &str = "\
# Deliberate faults: can the explorer find bugs?

An explorer that finds nothing may be looking at nothing. So faults are applied to the system on purpose, one at a time: one wrong line
each (two or three where one alone has no effect), of the kind that a tired engineer commits. Each is a patch in
`crates/greenroom-sim/faults`, with a line in its `faults.txt`. They were derived from [behaviour](behaviour.md) and
from failures in the field, by an author who had not read the explorer.

```
cargo xtask faults                                   # all of them, in 20,000 seeds or 10 minutes each
cargo xtask faults limit-off-by-one --seeds 1000     # one
```

The command copies the last commit into the target folder, builds the simulator there with one fault after the other, and explores
from seed 0 until a promise breaks: the default profile, or the profile that the fault's line names. That seed is run again
without the fault, and counts only if all promises hold there. The command writes this whole page. A fault that is not caught
means that the explorer needs a fix.

";

/// The cell of a fault without a result.
const UNTRIED: &str = "–";

/// The page's table.
#[derive(Debug, Default)]
pub struct Page {
    rows: BTreeMap<String, (String, String)>,
}

impl Page {
    /// Reads the results of earlier runs for the present faults.
    pub fn read(file: &Path, faults: &[Fault]) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        Self::parse(&text, faults)
    }

    fn parse(text: &str, faults: &[Fault]) -> Self {
        let mut rows = BTreeMap::new();
        for line in text.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            if let &[name, _, _, seeds, promise] = cells.as_slice() {
                let name = name.trim_matches('`');
                if seeds != UNTRIED && faults.iter().any(|fault| fault.name == name) {
                    rows.insert(name.to_owned(), (seeds.to_owned(), promise.to_owned()));
                }
            }
        }
        Self { rows }
    }

    /// Sets the result of a fault.
    pub fn set(&mut self, name: &str, verdict: Verdict) {
        let (seeds, promise) = verdict.cells();
        self.rows
            .insert(name.to_owned(), (cell(&seeds), cell(&promise)));
    }

    /// Writes the page.
    pub fn write(&self, file: &Path, faults: &[Fault]) -> std::io::Result<()> {
        std::fs::write(file, self.text(faults))
    }

    fn text(&self, faults: &[Fault]) -> String {
        let mut text = INTRODUCTION.to_owned();
        let caught = self
            .rows
            .values()
            .filter(|(seeds, _)| seeds.parse::<u64>().is_ok())
            .count();
        text.push_str(&format!("{caught} of {} are caught.\n\n", faults.len()));
        text.push_str("| fault | it breaks | what it does | seeds until caught | the promise that was seen broken |\n");
        text.push_str("|---|---|---|---|---|\n");
        for fault in faults {
            let untried = (UNTRIED.to_owned(), "not tried yet".to_owned());
            let (seeds, promise) = self.rows.get(&fault.name).unwrap_or(&untried);
            let sentence = match fault.profile.as_str() {
                DEFAULT_PROFILE => fault.sentence.clone(),
                profile => format!("{} (profile `{profile}`)", fault.sentence),
            };
            text.push_str(&format!(
                "| `{}` | {} | {sentence} | {seeds} | {promise} |\n",
                fault.name, fault.promise
            ));
        }
        text
    }
}

/// Returns a text that fits into a cell: one line, no bar, at most 100 characters.
fn cell(text: &str) -> String {
    let line = text.replace(['\n', '|'], " ");
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str) -> Fault {
        Fault {
            name: name.to_owned(),
            promise: "Slots".to_owned(),
            sentence: "one more".to_owned(),
            profile: DEFAULT_PROFILE.to_owned(),
            patch: format!("{name}.patch").into(),
        }
    }

    #[test]
    fn run_of_one_fault_keeps_the_other_results() {
        let faults = [fault("a"), fault("b"), fault("c")];
        let mut page = Page::default();
        page.set(
            "a",
            Verdict::Caught {
                seeds: 12,
                promise: "2: 3 run | where 2 may".to_owned(),
            },
        );
        page.set("b", Verdict::NotCaught("20000 seeds".to_owned()));
        let mut again = Page::parse(&page.text(&faults), &faults);
        assert_eq!(again.rows, page.rows);
        again.set("b", Verdict::NotApplied("it does not build".to_owned()));
        let text = again.text(&faults);
        assert!(text.contains("1 of 3 are caught"), "{text}");
        assert!(
            text.contains("| `a` | Slots | one more | 12 | 2: 3 run   where 2 may |"),
            "{text}"
        );
        assert!(text.contains("| not tried | it does not build |"), "{text}");
        assert!(
            text.contains("| `c` | Slots | one more | – | not tried yet |"),
            "{text}"
        );
    }

    #[test]
    fn removed_fault_leaves_the_page() {
        let mut page = Page::default();
        page.set("a", Verdict::NotCaught("1 seeds".to_owned()));
        let text = page.text(&[fault("a")]);
        assert!(Page::parse(&text, &[fault("b")]).rows.is_empty());
    }
}
