//! Greenroom end to end: the real agent server with a scripted model, the built command, and a story a promise. Run by
//! `cargo xtask test`; by `cargo test` alone the stories are shown as ignored, since they need the agent server.

#![expect(clippy::unwrap_used, reason = "a story may fail by it")]

mod harness;
mod scenarios;

use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

/// A story that takes longer has hung.
const LONGEST: Duration = Duration::from_secs(300);
/// What one more crash adds to it, where more were asked for.
const LONGER: Duration = Duration::from_secs(6);
/// Stories wait more than they work: more of them run at once than there are processors.
const AT_ONCE: usize = 4;

/// One runtime for all: connections to a shared server outlive the story that opened them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system gives threads")
});

/// One story.
#[derive(Debug)]
pub struct Story {
    name: &'static str,
    measures: bool,
    play: fn() -> LocalBoxFuture<'static, ()>,
}

/// Names the stories of a module: those after `alone` measure, and nothing else runs meanwhile.
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
    /// A story; one that `measures` has the machine for itself.
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
        let (_alone, _together) = match self.measures {
            true => (Some(harness::alone()), None),
            false => (None, Some(harness::together())),
        };
        let longest = LONGEST + LONGER * scenarios::crashes_asked_for();
        let played = RUNTIME.block_on(async { tokio::time::timeout(longest, (self.play)()).await });
        assert!(
            played.is_ok(),
            "the story did not come to its end in {longest:?}"
        );
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let wanted = std::env::var("GREENROOM_E2E").is_ok_and(|value| value == "1");
    if wanted && let Err(missing) = harness::needs() {
        eprintln!("end-to-end tests cannot run: {missing}");
        return ExitCode::FAILURE;
    }
    let mut trials = Vec::new();
    for (module, stories) in scenarios::all() {
        for story in stories {
            let trial = Trial::test(format!("{module}::{}", story.name), move || {
                story.play();
                Ok(())
            });
            trials.push(trial.with_ignored_flag(!wanted));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
