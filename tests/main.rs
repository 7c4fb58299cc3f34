//! End-to-end tests of Greenroom: stories with the real agent server, a scripted model and the built command. Run by
//! `cargo xtask test`. A plain `cargo test` lists the stories as ignored, since they need the agent server.

#![expect(clippy::unwrap_used, reason = "a story may fail by it")]

mod harness;
mod scenarios;

use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

/// The time limit of a story.
const LONGEST: Duration = Duration::from_secs(600);
/// The time that each crash of `GREENROOM_CRASHES` adds to the limit.
const PER_CRASH: Duration = Duration::from_secs(6);
/// The number of concurrent stories: they mostly wait, so it exceeds the number of processors.
const CONCURRENT: usize = 4;

/// The runtime of all stories: connections to a shared server are used by several stories.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be created")
});

/// A story.
#[derive(Debug)]
pub struct Story {
    name: &'static str,
    measures: bool,
    play: fn() -> LocalBoxFuture<'static, ()>,
}

/// Names the stories of a module. The stories after `alone` measure, and run while no other story runs.
#[macro_export]
macro_rules! stories {
    ($($name:ident),* $(,)? $(; alone $($measured:ident),* $(,)?)?) => {
        pub fn stories() -> Vec<$crate::Story> {
            vec![
                $($crate::Story::new(stringify!($name), false, || Box::pin($name())),)*
                $($($crate::Story::new(stringify!($measured), true, || Box::pin($measured())),)*)?
            ]
        }
    };
}

impl Story {
    /// Creates a story; if it `measures`, no other story runs meanwhile.
    pub fn new(
        name: &'static str,
        measures: bool,
        play: fn() -> LocalBoxFuture<'static, ()>,
    ) -> Self {
        Self {
            name,
            measures,
            play,
        }
    }

    fn play(&self) {
        let (_alone, _together) = if self.measures {
            (Some(harness::alone()), None)
        } else {
            (None, Some(harness::together()))
        };
        let longest = LONGEST + PER_CRASH * scenarios::requested_crashes();
        let played = RUNTIME.block_on(async { tokio::time::timeout(longest, (self.play)()).await });
        assert!(played.is_ok(), "the story did not end in {longest:?}");
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(CONCURRENT);
    let wanted = std::env::var("GREENROOM_E2E").is_ok_and(|value| value == "1");
    if wanted && let Err(missing) = harness::needs() {
        eprintln!("end-to-end tests cannot run: {missing}");
        return ExitCode::FAILURE;
    }
    let mut trials = Vec::new();
    for (module, stories) in scenarios::all() {
        for story in stories {
            let name = format!("{module}::{}", story.name);
            let trial = Trial::test(name, move || {
                story.play();
                Ok(())
            });
            trials.push(trial.with_ignored_flag(!wanted));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
