//! `greenroom asks` and `greenroom answer`: lists the open requests of children and answers one.

use greenroom::domain::time::{Timestamp, duration_text};
use serde::Deserialize;
use serde_json::{Value, json};

use super::args::admin::Answer;
use super::args::{AnswerArgs, AsksArgs};
use super::client::Client;
use super::failure::{FAILED, Failure};
use super::run::json_text;
use super::terminal::{display_width, one_line, print_err, print_out, stdout_columns, truncate};
use crate::config::Environment;

/// A request as listed by the service. Unused fields are ignored.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Ask {
    /// The id of the request.
    pub id: String,
    /// The task that waits for the answer.
    #[serde(rename = "taskID")]
    pub task: String,
    /// A permission or a question.
    pub kind: String,
    /// The question or permission, in one line.
    #[serde(alias = "title")]
    pub what: String,
    /// The start of the wait.
    #[serde(alias = "askedAt")]
    pub since: Timestamp,
}

#[derive(Deserialize)]
struct Asks {
    asks: Vec<Ask>,
}

/// Lists the open requests, oldest first.
pub async fn asks(args: AsksArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::from_process())?;
    let answer: Value = client.get(&["v1", "asks"], &[]).await?;
    if args.client.json {
        print_out(&json_text(&answer)?);
        return Ok(());
    }
    let Asks { asks } = client.decode(answer)?;
    let now = greenroom::clock::Clock::system().now();
    print_out(&table(&asks, now, stdout_columns()));
    if let Some(first) = asks.first() {
        print_err(&format!(
            "answer with `greenroom answer {} once|always|reject`",
            one_line(&first.id)
        ));
    }
    Ok(())
}

/// Returns a table of requests, one per line, truncated to the terminal's width if given.
pub fn table(asks: &[Ask], now: Timestamp, width: Option<usize>) -> String {
    if asks.is_empty() {
        return "no request is open\n".to_owned();
    }
    let mut rows = vec![["ASK", "TASK", "KIND", "AGE", "WHAT"].map(str::to_owned)];
    rows.extend(asks.iter().map(|ask| {
        [
            one_line(&ask.id),
            one_line(&ask.task),
            one_line(&ask.kind),
            duration_text(now.since(ask.since)),
            one_line(&ask.what),
        ]
    }));
    let widths: [usize; 5] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| display_width(&row[column]));
        cells.max().unwrap_or_default()
    });
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths).take(4) {
            line.push_str(&format!(
                "{cell}{}  ",
                " ".repeat(width - display_width(cell))
            ));
        }
        let remaining = width.map_or(usize::MAX, |width| {
            width.saturating_sub(display_width(&line))
        });
        line.push_str(&truncate(&row[4], remaining));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Answers a request.
pub async fn answer(args: AnswerArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::from_process())?;
    let listed: Asks = client.get(&["v1", "asks"], &[]).await?;
    let id = resolve_id(&listed.asks, &args.ask)?;
    let body = match args.answer {
        Some(Answer::Once) => json!({ "answer": "once" }),
        Some(Answer::Always) => json!({ "answer": "always" }),
        Some(Answer::Reject) => json!({ "answer": "reject" }),
        // One list of chosen labels per question.
        None => json!({ "answers": args.say.iter().map(|text| [text]).collect::<Vec<_>>() }),
    };
    let answer: Value = client.post(&["v1", "asks", id], &body).await?;
    print_out(&if args.client.json {
        json_text(&answer)?
    } else {
        format!("{} answered\n", one_line(id))
    });
    Ok(())
}

/// Resolves a name to a request: its id, or a unique prefix. An unknown name is passed on, so that the service reports
/// the error.
fn resolve_id<'a>(asks: &'a [Ask], name: &'a str) -> Result<&'a str, Failure> {
    if asks.iter().any(|ask| ask.id == name) {
        return Ok(name);
    }
    let mut matching = asks.iter().filter(|ask| ask.id.starts_with(name));
    match (matching.next(), matching.next()) {
        (Some(only), None) => Ok(&only.id),
        (Some(_), Some(_)) => Err(Failure::new(
            FAILED,
            format!("more than one request begins with {name:?}"),
            "give more of its id; `greenroom asks` lists them",
        )),
        (None, _) => Ok(name),
    }
}
