//! Runs every story of `stories/` against the real actors and compares it with its expected result: one test
//! per file. Stories that need a rule that is not implemented are listed in [`WAITING`] with that rule.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use greenroom_sim::{check, run};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

/// Stories that are not run yet, each with the rule that it needs.
const WAITING: [(&str, &str); 0] = [];

/// Real time for one story. A story takes milliseconds, unless actors keep each other busy.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stories");
    let stories = stories(&folder);
    let gone: Vec<&str> = WAITING
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !stories.iter().any(|(story, _)| story == name))
        .collect();
    assert!(
        gone.is_empty(),
        "these stories wait but are not there: {gone:?}"
    );
    let trials = stories.into_iter().map(|(name, path)| {
        match WAITING.iter().find(|(waiting, _)| *waiting == name) {
            Some((_, rule)) => {
                eprintln!("{name} is skipped: it waits for {rule}");
                Trial::test(name, move || story(&path))
                    .with_kind("waits")
                    .with_ignored_flag(true)
            }
            None => Trial::test(name, move || story(&path)),
        }
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Returns the name and the path of every story, in order.
fn stories(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for kind in ["defects", "reference", "rules"] {
        let files = std::fs::read_dir(folder.join(kind))
            .expect("the folder of the stories is part of the crate");
        for file in files {
            let path = file.expect("a folder of the crate can be listed").path();
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            found.push((format!("{kind}/{name}"), path));
        }
    }
    found.sort();
    assert!(
        found.len() > 100,
        "only {} stories in {}",
        found.len(),
        folder.display()
    );
    found
}

fn story(path: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(path)?;
    let story: Value = serde_json::from_str(&text)?;
    let trace: Value = serde_json::from_str(&run(&text, LIMIT)?)?;
    let differences = check::differences(&story, &trace);
    if differences.is_empty() {
        return Ok(());
    }
    let about = story["about"]
        .as_str()
        .or_else(|| story["fault"].as_str())
        .unwrap_or_default();
    Err(Failed::from(format!(
        "{about}\n  {}",
        differences.join("\n  ")
    )))
}
