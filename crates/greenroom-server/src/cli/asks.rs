//! `greenroom asks` and `greenroom answer`: what children wait for somebody to decide, and the decision.

use greenroom::domain::time::{Timestamp, duration_text};
use serde::Deserialize;
use serde_json::{Value, json};

use super::args::upkeep::Answer;
use super::args::{AnswerArgs, AsksArgs};
use super::client::Client;
use super::failure::{FAILED, Failure};
use super::run::json_text;
use super::serve::say;
use super::term::{columns, fit, one_line, out, stdout_columns};
use crate::config::Environment;

/// A request as the service lists it; what is not needed here is passed over.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Ask {
    /// The request.
    pub id: String,
    /// The task whose run waits.
    #[serde(rename = "taskID")]
    pub task: String,
    /// A permission or a question.
    pub kind: String,
    /// What is asked, in one line.
    #[serde(alias = "title")]
    pub what: String,
    /// Since when it waits.
    #[serde(alias = "askedAt")]
    pub since: Timestamp,
}

#[derive(Deserialize)]
struct Asks {
    asks: Vec<Ask>,
}

/// Lists what is asked, oldest first.
pub async fn asks(args: AsksArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::of_process())?;
    let answer: Value = client.get(&["v1", "asks"], &[]).await?;
    if args.client.json {
        out(&json_text(&answer)?);
        return Ok(());
    }
    let Asks { asks } = client.understood(answer)?;
    let now = greenroom::clock::Clock::system().now();
    out(&table(&asks, now, stdout_columns()));
    if let Some(first) = asks.first() {
        say(&format!(
            "answer with `greenroom answer {} once|always|reject`",
            first.id
        ));
    }
    Ok(())
}

/// Requests, a line each; cut to the terminal's columns if there is one.
pub fn table(asks: &[Ask], now: Timestamp, width: Option<usize>) -> String {
    if asks.is_empty() {
        return "nobody asks for anything\n".to_owned();
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
        let cells = rows.iter().map(|row| columns(&row[column]));
        cells.max().unwrap_or_default()
    });
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths).take(4) {
            line.push_str(&format!("{cell}{}  ", " ".repeat(width - columns(cell))));
        }
        let room = width.map_or(usize::MAX, |width| width.saturating_sub(columns(&line)));
        line.push_str(&fit(&row[4], room));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Answers one.
pub async fn answer(args: AnswerArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client, &Environment::of_process())?;
    let listed: Asks = client.get(&["v1", "asks"], &[]).await?;
    let id = chosen(&listed.asks, &args.ask)?;
    let body = match args.answer {
        Some(Answer::Once) => json!({ "answer": "once" }),
        Some(Answer::Always) => json!({ "answer": "always" }),
        Some(Answer::Reject) => json!({ "answer": "reject" }),
        // A list of chosen labels for each of its questions.
        None => json!({ "answers": args.say.iter().map(|text| [text]).collect::<Vec<_>>() }),
    };
    let answer: Value = client.post(&["v1", "asks", id], &body).await?;
    out(&if args.client.json {
        json_text(&answer)?
    } else {
        format!("{} answered\n", one_line(id))
    });
    Ok(())
}

/// The request of that name: its id, or a beginning that fits no other. One that is not listed is asked for as it is, so
/// that the service says what it knows of it.
fn chosen<'a>(asks: &'a [Ask], name: &'a str) -> Result<&'a str, Failure> {
    if asks.iter().any(|ask| ask.id == name) {
        return Ok(name);
    }
    let mut fitting = asks.iter().filter(|ask| ask.id.starts_with(name));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(&only.id),
        (Some(_), Some(_)) => Err(Failure::new(
            FAILED,
            format!("more than one request begins with {name:?}"),
            "give more of its id; `greenroom asks` lists them",
        )),
        (None, _) => Ok(name),
    }
}
