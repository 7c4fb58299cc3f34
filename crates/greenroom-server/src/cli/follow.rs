//! `greenroom output --follow`: prints the messages of a task until its run ends, then exits with the code of the task.

use greenroom::domain::foreign_text::escaped_json;
use greenroom::domain::output::{Output, OutputMessage};
use greenroom::domain::task::TaskStatus;
use serde_json::json;

use super::args::OutputArgs;
use super::client::Client;
use super::failure::{FAILED, Failure};
use super::retry::retry_while_unreachable;
use super::run::print_text;
use super::show;
use super::terminal::{print_err, print_out};
use super::watch::outcome_line;

/// Time of one blocking read, in milliseconds. A read returns immediately when the run ends.
const BLOCK_MS: &str = "2000";
/// Maximum number of messages per read.
const PAGE: &str = "100";

/// Prints messages as they arrive. The newest message may still grow, so it is printed after the next one or at the end
/// of the run.
pub async fn follow(client: &Client, args: &OutputArgs) -> Result<(), Failure> {
    let mut since: Option<String> = None;
    // No retry for the first read: the address may be wrong.
    let mut output = read(client, &args.id, None, false).await?;
    // By id: a prefix may become ambiguous, and a session may get another task.
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
        output = retry_while_unreachable(next, print_err).await?;
    }
    let end = outcome_line(&output.task);
    if output.task.status() == TaskStatus::Completed {
        print_err(&end);
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
        query.extend([("block", "true"), ("timeoutMs", BLOCK_MS)]);
    }
    if let Some(since) = since {
        query.push(("sinceMessageID", since));
    }
    client.get(&["v1", "tasks", id, "output"], &query).await
}

fn print_message(message: &OutputMessage, json: bool) {
    if json {
        // One line per message, so that readers can parse them as they arrive.
        print_out(&escaped_json(&format!("{}\n", json!(message))));
    } else {
        print_text(&show::message(message));
    }
}
