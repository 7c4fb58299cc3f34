//! A disk that is full: the journal says so, keeps what it is given, and writes it all in order once there is room.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use greenroom::ports::journal::Journal;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::crash::{child, named};
use crate::kept::{Stage, accept, until};

const TASKS: u64 = 3_000;

/// Appends more than there is room for, makes room, and waits.
#[test]
#[ignore = "started by another test, with a limit for its files"]
fn fills_the_disk_and_makes_room() {
    let journal = named();
    let mut last = journal.decided();
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
        "decided all the same"
    );
    let (_, most) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, most, most).unwrap();
    let standing = until(&journal, |now| now.durable >= more);
    assert_eq!(standing.failing, None);
    println!("all is written");
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    let stage = Stage::new();
    // Room for the empty journal and some tasks, in blocks of 512 bytes. A write beyond it fails; without the trap the
    // process would be killed.
    let child = child("full::fills_the_disk_and_makes_room", &stage);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -S -f 1000; exec \"$0\" \"$@\""]);
    limited.arg(child.get_program()).args(child.get_args());
    for (name, value) in child.get_envs() {
        limited.env(name, value.unwrap());
    }
    let mut child = limited.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success(), "{said:?}");
    let failing = said.iter().find(|line| line.contains("failing: ")).unwrap();
    assert!(
        failing.contains("journal.db") && failing.contains("disk"),
        "{failing}"
    );

    let kept = stage.open().load().unwrap();
    let numbers: Vec<u64> = kept.tasks.iter().map(|task| task.accepted).collect();
    assert_eq!(numbers, (0..=TASKS).collect::<Vec<_>>());
}
