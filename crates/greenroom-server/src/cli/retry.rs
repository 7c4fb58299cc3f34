//! Retries calls while the service is unreachable, for example during a restart. Prints one line when the connection is
//! lost and one when it is back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::failure::{FAILED, Failure, UNREACHABLE};

/// Maximum time without a connection.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// Delay before the first retry; doubles with each one.
const INITIAL_DELAY: Duration = Duration::from_millis(250);
/// Maximum delay.
const MAX_DELAY: Duration = Duration::from_secs(4);

/// Repeats a call until the service answers. `notify` receives the lines for people.
///
/// # Errors
/// Returns an error answer of the service, and `UNREACHABLE` after a minute without a connection.
pub async fn retry_while_unreachable<T>(
    mut call: impl AsyncFnMut() -> Result<T, Failure>,
    mut notify: impl FnMut(&str),
) -> Result<T, Failure> {
    let mut unreachable_since: Option<Instant> = None;
    let mut delay = INITIAL_DELAY;
    loop {
        match call().await {
            Ok(answer) => {
                if unreachable_since.is_some() {
                    notify("the service is back");
                }
                return Ok(answer);
            }
            Err(failure) if failure.code == UNREACHABLE => {
                let since = *unreachable_since.get_or_insert_with(|| {
                    notify(&format!(
                        "{}; waiting up to {} s for it (Ctrl-C leaves)",
                        failure.message,
                        GIVE_UP_AFTER.as_secs()
                    ));
                    Instant::now()
                });
                if since.elapsed() + delay > GIVE_UP_AFTER {
                    return Err(failure);
                }
                sleep(delay).await;
                delay = (delay * 2).min(MAX_DELAY);
            }
            // The task existed before, so the restarted service has lost it.
            Err(failure) if unreachable_since.is_some() && failure.code == FAILED => {
                return Err(Failure::new(
                    FAILED,
                    format!("the service was started again: {}", failure.message),
                    "a service without a journal forgets its tasks; launch it again with `greenroom run`",
                ));
            }
            Err(failure) => return Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> Failure {
        Failure::new(UNREACHABLE, "the service cannot be reached", "start it")
    }

    /// Returns the notes and the outcome of a call with these answers.
    async fn run_with(answers: Vec<Result<u8, Failure>>) -> (Vec<String>, Result<u8, Failure>) {
        let mut answers = answers.into_iter();
        let mut notes = Vec::new();
        let outcome = retry_while_unreachable(
            async || answers.next().expect("no more calls than answers"),
            |text| notes.push(text.to_owned()),
        )
        .await;
        (notes, outcome)
    }

    #[actix_rt::test]
    async fn unreachable_service_is_retried() {
        let (notes, outcome) = run_with(vec![Err(away()), Err(away()), Ok(7)]).await;
        assert_eq!(outcome, Ok(7));
        assert_eq!(
            notes.len(),
            2,
            "once that it has gone, once that it is back: {notes:?}"
        );
        assert!(notes[0].contains("waiting") && notes[1].contains("back"));
    }

    #[actix_rt::test]
    async fn lost_task_after_restart_is_reported() {
        let unknown = || Failure::new(FAILED, "no task \"bg_1\"", "look");
        let (_, outcome) = run_with(vec![Err(away()), Err(unknown())]).await;
        let failure = outcome.unwrap_err();
        assert_eq!(failure.code, FAILED);
        assert!(failure.message.contains("started again: no task"));
        let (notes, outcome) = run_with(vec![Err(unknown())]).await;
        assert_eq!((notes.len(), outcome), (0, Err(unknown())));
    }
}
