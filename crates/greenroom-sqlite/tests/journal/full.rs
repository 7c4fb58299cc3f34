//! A full disk: the journal reports it, keeps the appends, and writes all of them in order once there is room.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use greenroom::ports::journal::Journal;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::crash::{child, open_named};
use crate::support::{TestJournal, accept, until};

const TASKS: u64 = 3_000;

/// Appends more than there is room for, makes room, and waits.
#[test]
#[ignore = "started by another test, with a limit for its files"]
fn fills_the_disk_and_makes_room() {
    let journal = open_named();
    let mut last = journal.last_lsn();
    for number in 0..TASKS {
        last = accept(&journal, number);
    }
    let failing = until(&journal, |now| now.failing.is_some());
    println!("failing: {}", failing.failing.unwrap());
    assert!(failing.durable < last);
    let more = accept(&journal, TASKS);
    assert_eq!(
        journal.load().unwrap().tasks.len() as u64,
        TASKS + 1,
        "decided before it is durable"
    );
    let (_, most) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, most, most).unwrap();
    let status = until(&journal, |now| now.durable >= more);
    assert_eq!(status.failing, None);
    println!("all is written");
}

#[test]
fn full_disk_is_reported_and_loses_nothing() {
    let fixture = TestJournal::new();
    // Room for the empty journal and some tasks, in blocks of 512 bytes. A write beyond it fails; without the trap the
    // process would be killed.
    let child = child("full::fills_the_disk_and_makes_room", &fixture);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -S -f 1000; exec \"$0\" \"$@\""]);
    limited.arg(child.get_program()).args(child.get_args());
    for (name, value) in child.get_envs() {
        limited.env(name, value.unwrap());
    }
    let mut child = limited.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let output: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success(), "{output:?}");
    let failing = output
        .iter()
        .find(|line| line.contains("failing: "))
        .unwrap();
    assert!(
        failing.contains("journal.db") && failing.contains("disk"),
        "{failing}"
    );

    let recovered = fixture.open().load().unwrap();
    let numbers: Vec<u64> = recovered.tasks.iter().map(|task| task.accepted).collect();
    assert_eq!(numbers, (0..=TASKS).collect::<Vec<_>>());
}
