//! `cargo xtask faults`: puts deliberate faults into a copy of the project, one at a time, and asks the explorer to find
//! each. What came of it is written to docs/faults.md. Here the order of things; `list` reads the faults, `copy` is where
//! they are put in and built, `search` runs the explorer, `page` is what people read.

mod copy;
mod list;
mod page;
mod search;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use self::copy::Copy;
use self::list::{Fault, ListError};
use self::page::Verdict;
use self::search::{Bounds, Found};

/// Which faults, and how long each is looked for.
#[derive(Debug, Args)]
pub struct Options {
    /// Names of faults; all without one.
    pub names: Vec<String>,
    /// How many seeds each is looked for in.
    #[arg(long, default_value_t = 20_000)]
    pub seeds: u64,
    /// Real minutes each is looked for, at most.
    #[arg(long, default_value_t = 10)]
    pub minutes: u64,
}

/// Why faults could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum FaultsError {
    /// The list of faults is wrong.
    #[error(transparent)]
    List(#[from] ListError),
    /// A fault that is not in the list was asked for.
    #[error("there is no fault {0:?}; the names are in {1}")]
    Unknown(String, String),
    /// A program of the way could not be run or failed.
    #[error("{what} failed: {why}")]
    Failed {
        /// What was to be done.
        what: String,
        /// What came of it.
        why: String,
    },
    /// A promise breaks without any fault: nothing can be learned.
    #[error("a promise breaks without any fault ({0}); mend that first")]
    NotClean(String),
    /// The explorer did not find them all.
    #[error("not caught: {0}; see docs/faults.md")]
    NotCaught(String),
}

impl FaultsError {
    fn failed(what: &str, why: impl ToString) -> Self {
        Self::Failed {
            what: what.to_owned(),
            why: why.to_string(),
        }
    }
}

/// Seeds that must be kept without a fault before any is put in.
const CLEAN: u64 = 1_000;

/// Tries the faults, oldest in the list first, and writes the page after each, so that a run that is broken off has not
/// been for nothing.
pub fn run(options: &Options) -> Result<(), FaultsError> {
    let root = root();
    let faults = list::read(&root.join(list::FOLDER))?;
    let chosen = chosen(&faults, &options.names)?;
    let mut page = page::Page::read(&root.join(page::FILE), &faults);
    let bounds = Bounds {
        seeds: options.seeds,
        limit: Duration::from_secs(options.minutes.saturating_mul(60)),
    };
    let copy = Copy::make(&root)?;
    eprintln!("==> without a fault");
    let clean = copy.build_clean()?;
    match search::look(&clean, 0, CLEAN, bounds.limit)? {
        Found::Kept => {}
        Found::Broken(broken) => {
            return Err(FaultsError::NotClean(format!(
                "seed {}: {}",
                broken.seed, broken.promise
            )));
        }
        Found::NotDone(why) => return Err(FaultsError::failed("exploring without a fault", why)),
    }
    let mut missed = Vec::new();
    for fault in chosen {
        eprintln!("==> {}: {}", fault.name, fault.sentence);
        let verdict = tried(&copy, &clean, fault, &bounds)?;
        eprintln!("==> {}: {verdict}", fault.name);
        if !matches!(verdict, Verdict::Caught { .. }) {
            missed.push(fault.name.clone());
        }
        page.set(&fault.name, verdict);
        page.write(&root.join(page::FILE), &faults)
            .map_err(|error| FaultsError::failed("writing docs/faults.md", error))?;
    }
    if missed.is_empty() {
        return Ok(());
    }
    Err(FaultsError::NotCaught(missed.join(", ")))
}

fn tried(
    copy: &Copy,
    clean: &Path,
    fault: &Fault,
    bounds: &Bounds,
) -> Result<Verdict, FaultsError> {
    match copy.build_with(fault) {
        Ok(program) => search::until_caught(&program, clean, bounds),
        // The system has moved on: the fault wants to be made anew.
        Err(why) => Ok(Verdict::NotPut(why)),
    }
}

fn chosen<'a>(faults: &'a [Fault], names: &[String]) -> Result<Vec<&'a Fault>, FaultsError> {
    if names.is_empty() {
        return Ok(faults.iter().collect());
    }
    let named = |name: &String| {
        faults
            .iter()
            .find(|fault| fault.name == *name)
            .ok_or_else(|| FaultsError::Unknown(name.clone(), list::path_of_table()))
    };
    names.iter().map(named).collect()
}

/// The folder of the workspace.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}
