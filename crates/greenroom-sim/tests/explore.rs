//! Tests of the explorer: recorded scenarios keep their promises, some seeds of each profile keep every
//! promise, and a seed that runs twice produces the same trace, byte for byte. `cargo xtask explore` runs
//! many more seeds.

use std::path::Path;
use std::time::Duration;

use greenroom_sim::explore::scenario::{Profile, Scenario};
use greenroom_sim::explore::seeds::{BrokenSeed, ExploreOptions, explore};
use greenroom_sim::explore::{generate, run};

const LIMIT: Duration = Duration::from_secs(60);

/// The number of seeds of each profile.
const SEEDS: u64 = 400;

fn assert_promises_kept(profile: Profile) {
    let options = ExploreOptions {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        time: None,
        survey: false,
        twice: false,
    };
    let report = explore(0..SEEDS, profile, options);
    if let Some(BrokenSeed { seed, outcome, .. }) = report.first_broken {
        let last = outcome.lines.len().saturating_sub(40);
        panic!(
            "seed {seed} of the {profile:?} profile: {:?}\n{}",
            outcome.violation,
            outcome.lines[last..].join("\n")
        );
    }
    assert_eq!(report.explored, SEEDS);
}

#[test]
fn default_profile_keeps_promises() {
    assert_promises_kept(Profile::Default);
}

#[test]
fn reference_profile_keeps_promises() {
    assert_promises_kept(Profile::Reference);
}

#[test]
fn same_seed_same_trace() {
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
fn same_seed_same_trace_in_ordinary_life() {
    for seed in 0..40 {
        let scenario = generate::scenario(seed, Profile::Ordinary);
        let (once, again) = (run(&scenario, LIMIT), run(&scenario, LIMIT));
        assert!(once.lines == again.lines, "seed {seed} differs");
    }
}

#[test]
fn recorded_scenarios_keep_promises() {
    assert_scenarios_keep_promises("scenarios");
}

#[test]
fn ordinary_scenarios_keep_promises() {
    assert_scenarios_keep_promises("scenarios-ordinary");
}

fn assert_scenarios_keep_promises(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut count = 0;
    for file in std::fs::read_dir(&folder).expect("the folder is there") {
        let path = file.expect("the folder can be read").path();
        let text = std::fs::read_to_string(&path).expect("the file can be read");
        let scenario: Scenario = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let outcome = run(&scenario, LIMIT);
        assert_eq!(outcome.violation, None, "{}", scenario.about);
        count += 1;
    }
    assert!(count > 5, "only {count} scenarios in {}", folder.display());
}

/// Replaces the present names in a scenario by the names of earlier releases.
const OLD_WORDS: [(&str, &str); 8] = [
    ("\"failpoint\":", "\"sabotage\":"),
    ("\"failpointPrefix\":", "\"sabotageOf\":"),
    ("\"raceInjection\":", "\"ambush\":"),
    ("\"failpoint poller:", "\"sabotage poller:"),
    ("p3 1 outcome\"", "p3 1 fate\""),
    ("t1 1 outcome\"", "t1 1 fate\""),
    ("t1 1 race\"", "t1 1 ambush\""),
    ("1 step -3\"", "1 beat -3\""),
];

#[test]
fn old_words_are_read_and_written_as_new_ones() {
    let old = include_str!("fixtures/scenario-in-old-words.json");
    let scenario: Scenario = serde_json::from_str(old).unwrap();
    let written = serde_json::to_string(&scenario).unwrap();
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let mut expected = read(old).to_string();
    for (new, old) in OLD_WORDS {
        assert!(expected.contains(old), "the fixture has no {old}");
        expected = expected.replace(old, new);
        assert!(written.contains(new), "{new} is not written");
        assert!(!written.contains(old), "{old} is written");
    }
    assert_eq!(read(&written), read(&expected));
    let replayed: Scenario = serde_json::from_str(&written).unwrap();
    assert!(run(&scenario, LIMIT).lines == run(&replayed, LIMIT).lines);
}
