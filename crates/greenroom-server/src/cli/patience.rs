//! A service that goes away while it is being watched is waited for: it may only be starting again. The watcher is told
//! once that it has gone and once that it is back, and what became of the task.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::failure::{FAILED, Failure, UNREACHABLE};

/// How long a service may be away.
const AWAY_AT_MOST: Duration = Duration::from_secs(60);
/// The first wait between two tries, which doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// Makes a call until it is answered. `tell` hears what a person should know meanwhile.
///
/// # Errors
/// What the service refuses, and that it does not come back within a minute.
pub async fn patiently<T>(
    mut call: impl AsyncFnMut() -> Result<T, Failure>,
    mut tell: impl FnMut(&str),
) -> Result<T, Failure> {
    let mut gone: Option<Instant> = None;
    let mut wait = FIRST_WAIT;
    loop {
        match call().await {
            Ok(answer) => {
                if gone.is_some() {
                    tell("the service is back");
                }
                return Ok(answer);
            }
            Err(failure) if failure.code == UNREACHABLE => {
                let since = *gone.get_or_insert_with(|| {
                    tell(&format!(
                        "{}; waiting up to {} s for it (Ctrl-C leaves)",
                        failure.message,
                        AWAY_AT_MOST.as_secs()
                    ));
                    Instant::now()
                });
                if since.elapsed() + wait > AWAY_AT_MOST {
                    return Err(failure);
                }
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            // It was there before, so it is the service that has forgotten it.
            Err(failure) if gone.is_some() && failure.code == FAILED => {
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

    /// Plays these answers one after the other; what was told meanwhile, and the outcome.
    async fn played(answers: Vec<Result<u8, Failure>>) -> (Vec<String>, Result<u8, Failure>) {
        let mut answers = answers.into_iter();
        let mut told = Vec::new();
        let outcome = patiently(
            async || answers.next().expect("no more calls than answers"),
            |text| told.push(text.to_owned()),
        )
        .await;
        (told, outcome)
    }

    #[actix_rt::test]
    async fn a_service_that_goes_away_is_waited_for() {
        let (told, outcome) = played(vec![Err(away()), Err(away()), Ok(7)]).await;
        assert_eq!(outcome, Ok(7));
        assert_eq!(
            told.len(),
            2,
            "once that it has gone, once that it is back: {told:?}"
        );
        assert!(told[0].contains("waiting") && told[1].contains("back"));
    }

    #[actix_rt::test]
    async fn what_a_restart_forgot_is_said_so_and_other_refusals_are_as_they_are() {
        let unknown = || Failure::new(FAILED, "no task \"bg_1\"", "look");
        let (_, outcome) = played(vec![Err(away()), Err(unknown())]).await;
        let failure = outcome.unwrap_err();
        assert_eq!(failure.code, FAILED);
        assert!(failure.message.contains("started again: no task"));
        let (told, outcome) = played(vec![Err(unknown())]).await;
        assert_eq!((told.len(), outcome), (0, Err(unknown())));
    }
}
