//! Running the explorer until it finds something: every program here has a time limit, and is ended when it has said
//! enough. Whoever stops the command at a terminal stops it too: it stays in the same group of processes.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::FaultsError;
use super::page::Verdict;

/// How long one fault is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// In how many seeds.
    pub seeds: u64,
    /// For how long.
    pub limit: Duration,
}

/// A broken promise, as the explorer tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The seed that breaks it.
    pub seed: u64,
    /// Which promise, and how.
    pub promise: String,
}

/// What one exploration came to.
#[derive(Debug)]
pub enum Found {
    /// Every promise was kept in all seeds.
    Kept,
    /// One was not.
    Broken(Broken),
    /// It came to no end: the time was over, or the explorer itself failed.
    NotDone(String),
}

/// How a program ended.
#[derive(Debug)]
pub enum Ran {
    /// By itself, with the last of what it said.
    Ended {
        /// Its exit code; none if a signal ended it.
        code: Option<i32>,
        /// The end of its output.
        said: String,
    },
    /// Ended by us: with the line that was enough, or without one because its time was over.
    Stopped(Option<String>),
}

/// More than this of what a program says is not kept.
const SAID: usize = 4_000;
/// What a time limit of the explorer's own is given beyond it.
const GRACE: Duration = Duration::from_secs(60);

/// Looks for a fault seed after seed. A seed that breaks a promise also without the fault does not count: the search goes on
/// behind it.
pub fn until_caught(program: &Path, clean: &Path, bounds: &Bounds) -> Result<Verdict, FaultsError> {
    let began = Instant::now();
    let mut from = 0;
    loop {
        let left = bounds.limit.saturating_sub(began.elapsed());
        match look(program, from, bounds.seeds, left)? {
            Found::Kept => return Ok(Verdict::NotCaught(format!("{} seeds", bounds.seeds))),
            Found::NotDone(why) => return Ok(Verdict::NotCaught(why)),
            Found::Broken(broken) => {
                if let Found::Kept = look(clean, broken.seed, broken.seed + 1, bounds.limit)? {
                    return Ok(Verdict::Caught {
                        seeds: broken.seed + 1,
                        promise: broken.promise,
                    });
                }
                from = broken.seed + 1;
            }
        }
    }
}

/// Explores the seeds from `from` to before `to`, one after the other, until one breaks a promise.
pub fn look(program: &Path, from: u64, to: u64, limit: Duration) -> Result<Found, FaultsError> {
    let mut command = Command::new(program);
    let minutes = limit.as_secs().div_ceil(60).max(1);
    command
        .args(["explore", "--seeds", &format!("{from}..{to}")])
        .args(["--minutes", &minutes.to_string()])
        .current_dir(program.parent().unwrap_or(Path::new(".")));
    let ran = run_for(command, limit + GRACE, |line| broken_in(line).is_some())
        .map_err(|why| FaultsError::failed("exploring", why))?;
    Ok(match ran {
        Ran::Stopped(Some(line)) => match broken_in(&line) {
            Some(broken) => Found::Broken(broken),
            None => Found::NotDone(line),
        },
        Ran::Stopped(None) => Found::NotDone(format!("{minutes} min")),
        Ran::Ended {
            code: Some(0),
            said,
        } => match next_seed(&said) {
            Some(next) if next < to => Found::NotDone(format!(
                "{next} seeds, as many as {minutes} min had room for"
            )),
            _ => Found::Kept,
        },
        Ran::Ended { code, said } => Found::NotDone(format!(
            "the explorer failed ({}): {}",
            code.map_or("signal".to_owned(), |code| code.to_string()),
            said.trim().lines().last().unwrap_or_default()
        )),
    })
}

/// Reads `seed N breaks promise P at T: how`.
fn broken_in(line: &str) -> Option<Broken> {
    let (seed, rest) = line.trim().strip_prefix("seed ")?.split_once(' ')?;
    let rest = rest.strip_prefix("breaks promise ")?;
    let (promise, how) = rest.split_once(": ").unwrap_or((rest, ""));
    let promise = promise.split(" at ").next().unwrap_or(promise);
    Some(Broken {
        seed: seed.parse().ok()?,
        promise: format!("{promise}: {how}")
            .trim_end_matches(": ")
            .to_owned(),
    })
}

/// Reads `… go on with --seeds N..`.
fn next_seed(said: &str) -> Option<u64> {
    let (_, rest) = said.rsplit_once("go on with --seeds ")?;
    rest.split("..").next()?.trim().parse().ok()
}

/// Runs a program until it ends, has said a line that is enough, or its time is over. What it said to either output is
/// taken together.
pub fn run_for(
    mut command: Command,
    limit: Duration,
    enough: impl Fn(&str) -> bool,
) -> Result<Ran, String> {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{command:?} cannot be started: {error}"))?;
    let (tell, told) = channel();
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|output| Box::new(output) as _),
        child.stderr.take().map(|output| Box::new(output) as _),
    ];
    for output in outputs.into_iter().flatten() {
        let tell = tell.clone();
        // Ends with the program, or when nobody listens any more.
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for line in lines {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
    }
    drop(tell);
    let mut said = String::new();
    let stopped = loop {
        match told.recv_timeout(limit.saturating_sub(began.elapsed())) {
            Ok(line) if enough(&line) => break Some(Some(line)),
            Ok(line) => {
                said.push_str(&line);
                said.push('\n');
                if said.len() > 2 * SAID {
                    said = said.chars().rev().take(SAID).collect::<String>();
                    said = said.chars().rev().collect();
                }
            }
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => break Some(None),
        }
    };
    if stopped.is_some() {
        // It may have ended in this moment.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    Ok(match stopped {
        Some(line) => Ran::Stopped(line),
        None => Ran::Ended {
            code: status.code(),
            said,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn what_the_explorer_says_of_a_broken_promise_is_read() {
        let broken =
            broken_in("seed 4711 breaks promise 2 Slots at 12.5 s: 3 run where 2 may").unwrap();
        assert_eq!(
            (broken.seed, broken.promise.as_str()),
            (4711, "2 Slots: 3 run where 2 may")
        );
        assert_eq!(
            broken_in("seed 4711, 3 steps breaks promise 2 at 1: x"),
            None
        );
        assert_eq!(broken_in("    at 3.0 seed 4 breaks promise 1"), None);
        assert_eq!(
            next_seed(
                "812 scenarios from seed 0 in 60.1 s, every promise kept; go on with --seeds 812..\n"
            ),
            Some(812)
        );
    }

    #[test]
    fn a_program_that_has_said_enough_is_ended() {
        let ran = run_for(
            shell("echo one; echo two; exec sleep 600"),
            Duration::from_secs(60),
            |line| line == "two",
        );
        assert!(matches!(ran, Ok(Ran::Stopped(Some(line))) if line == "two"));
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended() {
        let ran = run_for(shell("exec sleep 600"), Duration::from_millis(50), |_| {
            false
        });
        assert!(matches!(ran, Ok(Ran::Stopped(None))));
    }

    #[test]
    fn a_program_that_ends_says_how() {
        let ran = run_for(
            shell("echo out; echo err >&2; exit 3"),
            Duration::from_secs(60),
            |_| false,
        );
        let Ok(Ran::Ended { code, said }) = ran else {
            panic!("{ran:?}")
        };
        assert_eq!(code, Some(3));
        assert!(said.contains("out\n") && said.contains("err\n"), "{said}");
    }
}
