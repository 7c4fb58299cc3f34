//! `greenroom output --follow`: what a task writes, as it comes, until its run has ended; then its exit code.

use greenroom::domain::output::{Output, OutputMessage};
use greenroom::domain::task::TaskStatus;
use serde_json::json;

use super::args::OutputArgs;
use super::client::Client;
use super::failure::{FAILED, Failure};
use super::live::ending;
use super::patience::patiently;
use super::run::print_text;
use super::serve::say;
use super::show;
use super::term::out;

/// How long one read waits in the service, in milliseconds. It answers at once when the run ends; what is written before
/// that is seen when it answers.
const HELD_MS: &str = "2000";
/// Messages of one read.
const PAGE: &str = "100";

/// Prints messages as they come. The newest one may still grow, so it is printed once another follows or the run ends.
pub async fn follow(client: &Client, args: &OutputArgs) -> Result<(), Failure> {
    let mut since: Option<String> = None;
    // A service that is not there at the beginning is not waited for: the address may be wrong.
    let mut output = read(client, &args.id, None, false).await?;
    // By its id: a beginning may come to fit another one, and a session may get another task.
    let id = output.task.id.as_str().to_owned();
    loop {
        let ended = output.task.status().is_terminal();
        let more = output.has_more == Some(true);
        let messages = output.messages.take().unwrap_or_default();
        let settled = if ended || more {
            messages.len()
        } else {
            messages.len().saturating_sub(1)
        };
        for message in &messages[..settled] {
            print_message(message, args.client.json);
            since = message.id.clone().or(since);
        }
        if ended && !more {
            break;
        }
        let next = async || read(client, &id, since.as_deref(), !more).await;
        output = patiently(next, say).await?;
    }
    let end = ending(&output.task);
    if output.task.status() == TaskStatus::Completed {
        say(&end);
        return Ok(());
    }
    Err(Failure::new(FAILED, end, ""))
}

async fn read(
    client: &Client,
    id: &str,
    since: Option<&str>,
    hold: bool,
) -> Result<Output, Failure> {
    let mut query = vec![("fullSession", "true"), ("messageLimit", PAGE)];
    if hold {
        query.extend([("block", "true"), ("timeoutMs", HELD_MS)]);
    }
    if let Some(since) = since {
        query.push(("sinceMessageID", since));
    }
    client.get(&["v1", "tasks", id, "output"], &query).await
}

fn print_message(message: &OutputMessage, json: bool) {
    if json {
        // One line each, so that a reader can take them as they come.
        out(&format!("{}\n", json!(message)));
    } else {
        print_text(&show::message(message));
    }
}
