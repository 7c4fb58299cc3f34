//! The thread, the runtime and the panics of one story. A story that exceeds its time limit is abandoned
//! together with its thread.

use std::cell::RefCell;
use std::sync::{Once, mpsc};
use std::time::Duration;

use actix_rt::System;

use crate::driver;
use crate::names::Names;
use crate::quiescence::Quiescence;
use crate::story::Story;

/// Why a story has no trace.
#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    /// The file is not a valid story.
    #[error("not a valid story: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The thread or the runtime cannot be created.
    #[error("a story cannot be run here: {0}")]
    Runtime(#[from] std::io::Error),
    /// The time limit was reached: actors keep each other busy at one instant, or the runner is broken.
    #[error(
        "the story did not end within {0:?}: look for actors that keep each other busy at one instant"
    )]
    Stuck(Duration),
    /// The driver, or code that it called directly, has panicked.
    #[error("the runner is broken: {0}")]
    Broken(String),
}

thread_local! {
    /// Panics of this thread while it runs a story.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs the story of a file's text and returns its trace as one JSON object. `limit` is real time.
pub fn run(text: &str, limit: Duration) -> Result<String, StoryError> {
    let story: Story = serde_json::from_str(text)?;
    let (sender, receiver) = mpsc::channel();
    // The thread ends with its story. A stuck thread is left behind; the caller ends the process.
    let thread = std::thread::Builder::new()
        .name(format!("story {}", story.name))
        .spawn(move || {
            // The receiver is gone if the time limit was reached.
            drop(sender.send(run_story(&story)));
        })?;
    match receiver.recv_timeout(limit) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(StoryError::Stuck(limit)),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic = thread.join().err();
            let text = panic.as_ref().and_then(|panic| {
                panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
            });
            Err(StoryError::Broken(
                text.unwrap_or_else(|| "unknown panic".to_owned()),
            ))
        }
    }
}

fn run_story(story: &Story) -> Result<String, StoryError> {
    let quiescence = Quiescence::default();
    let names = Names::default();
    let runtime = quiescence.runtime()?;
    collect_panics();
    let mut trace =
        System::with_tokio_rt(|| runtime).block_on(driver::run_story(story, &quiescence, &names));
    trace.unhandled_errors.extend(collected_panics());
    Ok(names.rewrite(&serde_json::to_string(&trace)?))
}

/// Starts to collect the panics of this thread. Collected panics are not printed.
pub(crate) fn collect_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let collected = PANICS.with_borrow_mut(|panics| match panics {
                Some(panics) => {
                    panics.push(panic.to_string());
                    true
                }
                None => false,
            });
            if !collected {
                default_hook(panic);
            }
        }));
    });
    PANICS.set(Some(Vec::new()));
}

/// Returns the panics of this thread since [`collect_panics`], as texts.
pub(crate) fn collected_panics() -> Vec<String> {
    PANICS.take().unwrap_or_default()
}
