//! `cargo xtask faults` applies deliberate faults to a copy of the project, one at a time, and checks that the explorer
//! finds each. The results are written to docs/faults.md. This module is the sequence; `list` reads the faults, `copy`
//! applies and builds them, `search` runs the explorer, `page` writes the results.

mod copy;
mod list;
mod page;
mod search;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use self::copy::Copy;
use self::list::{Fault, ListError};
use self::page::Verdict;
use self::search::{Bounds, Found};

/// Which faults, and how long the explorer searches for each.
#[derive(Debug, Args)]
pub struct Options {
    /// Names of faults; all faults without a name.
    pub names: Vec<String>,
    /// The number of seeds per fault.
    #[arg(long, default_value_t = 20_000)]
    pub seeds: u64,
    /// The time limit per fault, in real minutes.
    #[arg(long, default_value_t = 10)]
    pub minutes: u64,
}

/// Why faults could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum FaultsError {
    /// The list of faults is wrong.
    #[error(transparent)]
    List(#[from] ListError),
    /// A name is not in the list.
    #[error("{0:?} is not a known fault; the names are in {1}")]
    Unknown(String, String),
    /// A program could not be run or failed.
    #[error("{what} failed: {why}")]
    Failed {
        /// The action.
        what: String,
        /// The reason.
        why: String,
    },
    /// A promise breaks without any fault.
    #[error("a promise breaks without any fault ({0}); fix that first")]
    NotClean(String),
    /// The explorer did not find all of them.
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

/// The number of seeds that must pass without a fault before any fault is applied.
const CLEAN_SEEDS: u64 = 1_000;

/// Tries the faults in the order of the list. It writes the page after each, so that the results of an interrupted run are
/// not lost.
pub fn run(options: &Options) -> Result<(), FaultsError> {
    let root = root();
    let faults = list::read(&root.join(list::FOLDER))?;
    let chosen = chosen(&faults, &options.names)?;
    let mut page = page::Page::read(&root.join(page::FILE), &faults);
    let bounds = Bounds {
        seeds: options.seeds,
        limit: Duration::from_secs(options.minutes.saturating_mul(60)),
    };
    let copy = Copy::create(&root)?;
    eprintln!("==> without a fault");
    let clean = copy.build_clean()?;
    let profiles: BTreeSet<&str> = chosen.iter().map(|fault| fault.profile.as_str()).collect();
    for profile in profiles {
        match search::explore(&clean, profile, 0..CLEAN_SEEDS, bounds.limit)? {
            Found::Kept => {}
            Found::Broken(broken) => {
                return Err(FaultsError::NotClean(format!(
                    "profile {profile}, seed {}: {}",
                    broken.seed, broken.promise
                )));
            }
            Found::Unfinished(why) => {
                return Err(FaultsError::failed("exploring without a fault", why));
            }
        }
    }
    let mut missed = Vec::new();
    for fault in chosen {
        eprintln!("==> {}: {}", fault.name, fault.sentence);
        let verdict = try_fault(&copy, &clean, fault, &bounds)?;
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

fn try_fault(
    copy: &Copy,
    clean: &Path,
    fault: &Fault,
    bounds: &Bounds,
) -> Result<Verdict, FaultsError> {
    match copy.build_with(fault) {
        Ok(program) => search::until_caught(&program, clean, &fault.profile, bounds),
        // The system has changed: the patch must be written again.
        Err(why) => Ok(Verdict::NotApplied(why)),
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
            .ok_or_else(|| FaultsError::Unknown(name.clone(), list::table_path()))
    };
    names.iter().map(named).collect()
}

/// Returns the folder of the workspace.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}
