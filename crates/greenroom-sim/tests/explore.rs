//! The explorer: scenarios that once broke a promise keep it now, a few seeds of each profile keep every promise, and a seed
//! told twice is the same to the byte. Many more seeds are told by `cargo xtask explore`.

use std::path::Path;
use std::time::Duration;

use greenroom_sim::explore::scenario::{Profile, Scenario};
use greenroom_sim::explore::seeds::{ExploreOptions, explore};
use greenroom_sim::explore::{generate, run};

const LIMIT: Duration = Duration::from_secs(60);

/// How many seeds of each profile are told here.
const SEEDS: u64 = 400;

fn kept(profile: Profile) {
    let bounds = ExploreOptions {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        time: None,
        survey: false,
        twice: false,
    };
    let found = explore(0..SEEDS, profile, bounds);
    if let Some((seed, _, outcome)) = found.broken {
        let last = outcome.lines.len().saturating_sub(40);
        panic!(
            "seed {seed} of the {profile:?} profile: {:?}\n{}",
            outcome.violation,
            outcome.lines[last..].join("\n")
        );
    }
    assert_eq!(found.told, SEEDS);
}

#[test]
fn every_promise_is_kept_in_the_default_profile() {
    kept(Profile::Default);
}

#[test]
fn every_promise_is_kept_in_the_reference_profile() {
    kept(Profile::Reference);
}

#[test]
fn the_same_seeds_give_the_same_traces() {
    let mut lines = 0;
    for seed in 0..60 {
        let scenario = generate::scenario(seed, Profile::Default);
        let (once, again) = (run(&scenario, LIMIT), run(&scenario, LIMIT));
        assert!(once.lines == again.lines, "seed {seed} differs");
        lines += once.lines.len();
    }
    assert!(lines > 5_000, "there is something to differ: {lines} lines");
}

#[test]
fn what_once_broke_a_promise_keeps_it_now() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut told = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let scenario: Scenario = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let outcome = run(&scenario, LIMIT);
        assert_eq!(outcome.violation, None, "{}", scenario.about);
        told += 1;
    }
    assert!(told > 5, "only {told} scenarios in {}", folder.display());
}
