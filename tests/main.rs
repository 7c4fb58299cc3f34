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

/// The stories that the product does not pass yet. They run with `GREENROOM_E2E_PENDING=1` only.
const PENDING: &[&str] = &[
    "ordinary_fork::fork_reads_but_does_not_control_tasks",
    "ordinary_instance::early_abort_by_the_user_silences_the_parent",
    "ordinary_instance::tasks_continue_after_a_change_of_the_configuration",
    "ordinary_instance::tasks_continue_after_a_dispose_seen_by_the_bridge",
    "ordinary_instance::tasks_continue_after_a_dispose_seen_by_the_event_stream",
    "ordinary_messages::final_is_sent_again_when_the_parent_model_is_removed",
    "ordinary_messages::final_is_stored_when_the_parent_agent_is_removed",
    "ordinary_messages::final_is_stored_when_the_parent_agent_is_unknown",
    "ordinary_messages::final_waits_for_a_reverted_parent_over_a_restart",
    "ordinary_messages::final_waits_while_the_parent_is_reverted",
    "ordinary_messages::reason_is_shown_when_the_default_model_fails_too",
    "ordinary_messages::resume_of_a_reverted_session_is_refused",
    "ordinary_messages::send_to_a_reverted_session_is_refused",
    "ordinary_terminal::tasks_and_a_busy_parent_survive_ctrl_c",
    "ordinary_terminal::tasks_continue_after_ctrl_c",
    "ordinary_terminal::tasks_continue_after_opencode_run_has_ended",
    "ordinary_terminal::tasks_continue_after_sigterm",
    "ordinary_terminal::tasks_continue_after_the_exit_command",
    "ordinary_terminal::tasks_continue_after_the_terminal_is_closed",
];

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
    let with_pending = std::env::var("GREENROOM_E2E_PENDING").is_ok_and(|value| value == "1");
    let mut trials = Vec::new();
    for (module, stories) in scenarios::all() {
        for story in stories {
            let name = format!("{module}::{}", story.name);
            let runs = wanted && (with_pending || !PENDING.contains(&name.as_str()));
            let trial = Trial::test(name, move || {
                story.play();
                Ok(())
            });
            trials.push(trial.with_ignored_flag(!runs));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
