//! Runs the explorer until it finds a broken promise. Every program here has a time limit, and is killed when its output
//! suffices. It stays in the process group of the command, so that Ctrl-C at a terminal stops both.

use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::FaultsError;
use super::page::Verdict;

/// The bounds of the search for one fault.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The number of seeds.
    pub seeds: u64,
    /// The time limit.
    pub limit: Duration,
}

/// A broken promise, as the explorer prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The seed that breaks it.
    pub seed: u64,
    /// The promise, and how it broke.
    pub promise: String,
}

/// The result of one exploration.
#[derive(Debug)]
pub enum Found {
    /// Every promise held in all seeds.
    Kept,
    /// A promise broke.
    Broken(Broken),
    /// The exploration did not finish: the time was over, or the explorer itself failed.
    Unfinished(String),
}

/// How a program ended.
#[derive(Debug)]
pub enum Ran {
    /// It ended by itself.
    Ended {
        /// Its exit code; `None` if a signal ended it.
        code: Option<i32>,
        /// The end of its output.
        output: String,
    },
    /// It was killed: with the line that sufficed, or without one because its time was over.
    Stopped(Option<String>),
}

/// The number of bytes of output that are kept.
const OUTPUT: usize = 4_000;
/// The time added to the explorer's own time limit.
const GRACE: Duration = Duration::from_secs(60);

/// Searches for a fault seed after seed. A seed that breaks a promise also without the fault does not count: the search
/// continues after it.
pub fn until_caught(
    program: &Path,
    clean: &Path,
    profile: &str,
    bounds: &Bounds,
) -> Result<Verdict, FaultsError> {
    let began = Instant::now();
    let mut from = 0;
    loop {
        let left = bounds.limit.saturating_sub(began.elapsed());
        match explore(program, profile, from..bounds.seeds, left)? {
            Found::Kept => return Ok(Verdict::NotCaught(format!("{} seeds", bounds.seeds))),
            Found::Unfinished(why) => return Ok(Verdict::NotCaught(why)),
            Found::Broken(broken) => {
                let seed = broken.seed..broken.seed + 1;
                if let Found::Kept = explore(clean, profile, seed, bounds.limit)? {
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

/// Explores the seeds of a profile until a seed breaks a promise.
pub fn explore(
    program: &Path,
    profile: &str,
    seeds: Range<u64>,
    limit: Duration,
) -> Result<Found, FaultsError> {
    let mut command = Command::new(program);
    let minutes = limit.as_secs().div_ceil(60).max(1);
    command
        .args(["explore", "--profile", profile])
        .args(["--seeds", &format!("{}..{}", seeds.start, seeds.end)])
        .args(["--minutes", &minutes.to_string()])
        .current_dir(program.parent().unwrap_or(Path::new(".")));
    let ran = run_for(command, limit + GRACE, |line| broken_in(line).is_some())
        .map_err(|why| FaultsError::failed("exploring", why))?;
    Ok(match ran {
        Ran::Stopped(Some(line)) => match broken_in(&line) {
            Some(broken) => Found::Broken(broken),
            None => Found::Unfinished(line),
        },
        Ran::Stopped(None) => Found::Unfinished(format!("{minutes} min")),
        Ran::Ended {
            code: Some(0),
            output,
        } => match next_seed(&output) {
            Some(next) if next < seeds.end => {
                Found::Unfinished(format!("{next} seeds in {minutes} min"))
            }
            _ => Found::Kept,
        },
        Ran::Ended { code, output } => Found::Unfinished(format!(
            "the explorer failed ({}): {}",
            code.map_or("signal".to_owned(), |code| code.to_string()),
            output.trim().lines().last().unwrap_or_default()
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
fn next_seed(output: &str) -> Option<u64> {
    let (_, rest) = output.rsplit_once("go on with --seeds ")?;
    rest.split("..").next()?.trim().parse().ok()
}

/// Runs a program until it ends, prints a line that satisfies `is_enough`, or its time is over. Both outputs are merged.
pub fn run_for(
    mut command: Command,
    limit: Duration,
    is_enough: impl Fn(&str) -> bool,
) -> Result<Ran, String> {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let (sender, receiver) = channel();
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|output| Box::new(output) as _),
        child.stderr.take().map(|output| Box::new(output) as _),
    ];
    for output in outputs.into_iter().flatten() {
        let sender = sender.clone();
        // Ends with the program, or when the receiver is dropped.
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for line in lines {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut output = String::new();
    let stopped = loop {
        match receiver.recv_timeout(limit.saturating_sub(began.elapsed())) {
            Ok(line) if is_enough(&line) => break Some(Some(line)),
            Ok(line) => {
                output.push_str(&line);
                output.push('\n');
                if output.len() > 2 * OUTPUT {
                    output = output.chars().rev().take(OUTPUT).collect::<String>();
                    output = output.chars().rev().collect();
                }
            }
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => break Some(None),
        }
    };
    if stopped.is_some() {
        // It may have ended meanwhile.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    Ok(match stopped {
        Some(line) => Ran::Stopped(line),
        None => Ran::Ended {
            code: status.code(),
            output,
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
    fn output_of_the_explorer_is_parsed() {
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
    fn program_is_killed_when_its_output_suffices() {
        let ran = run_for(
            shell("echo one; echo two; exec sleep 600"),
            Duration::from_secs(60),
            |line| line == "two",
        );
        assert!(matches!(ran, Ok(Ran::Stopped(Some(line))) if line == "two"));
    }

    #[test]
    fn program_is_killed_at_its_time_limit() {
        let ran = run_for(shell("exec sleep 600"), Duration::from_millis(50), |_| {
            false
        });
        assert!(matches!(ran, Ok(Ran::Stopped(None))));
    }

    #[test]
    fn exit_code_and_output_of_a_program_are_returned() {
        let ran = run_for(
            shell("echo out; echo err >&2; exit 3"),
            Duration::from_secs(60),
            |_| false,
        );
        let Ok(Ran::Ended { code, output }) = ran else {
            panic!("{ran:?}")
        };
        assert_eq!(code, Some(3));
        assert!(
            output.contains("out\n") && output.contains("err\n"),
            "{output}"
        );
    }
}
