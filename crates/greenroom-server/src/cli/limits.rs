//! `greenroom limits`: shows the slots by key and changes limits.

use std::time::Duration;

use greenroom::LimitsReport;
use greenroom::domain::time::duration_text;
use serde_json::{Value, json};

use super::args::admin::LimitArgs;
use super::args::parsers::LimitValue;
use super::args::{LimitsArgs, LimitsCommand};
use super::client::Client;
use super::failure::Failure;
use super::run::json_text;
use super::terminal::{display_width, one_line, print_out, stdout_columns, truncate};
use crate::config::Environment;

/// Shows the slots, after a change of a limit if one is given.
pub async fn limits(args: LimitsArgs) -> Result<(), Failure> {
    let environment = Environment::from_process();
    let (arguments, change) = match args.command {
        None => (args.client, None),
        Some(LimitsCommand::Show(client)) => (client, None),
        Some(LimitsCommand::Set(set)) => {
            let body = change(&set);
            (set.client, Some(body))
        }
    };
    let client = Client::new(&arguments, &environment)?;
    let answer: Value = match change {
        None => client.get(&["v1", "limits"], &[]).await?,
        Some(body) => client.put(&["v1", "limits"], &body).await?,
    };
    if arguments.json {
        print_out(&json_text(&answer)?);
        return Ok(());
    }
    let report: LimitsReport = client.decode(answer)?;
    print_out(&table(&report, stdout_columns()));
    Ok(())
}

/// Returns the request body of a change. A key with a slash is a model, any other a provider or an agent.
fn change(set: &LimitArgs) -> Value {
    let limit = match set.limit {
        LimitValue::Limit(limit) => json!(limit),
        LimitValue::Unset => Value::Null,
    };
    match set.key.trim() {
        "default" => json!({ "default": limit }),
        "max" => json!({ "max": limit }),
        key if key.contains('/') => json!({ "models": { key: limit } }),
        key => json!({ "providers": { key: limit } }),
    }
}

/// Returns a table of the keys that are in use, waited for, or have a rule, with a sum line.
pub fn table(report: &LimitsReport, width: Option<usize>) -> String {
    let head = ["KEY", "IN USE", "LIMIT", "WAITING", "OLDEST"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(report.keys.iter().map(|key| {
        let oldest = match key.waiting {
            0 => "-".to_owned(),
            _ => duration_text(Duration::from_millis(key.oldest_wait_ms)),
        };
        [
            one_line(key.key.as_str()),
            key.in_use.to_string(),
            limit_text(key.limit),
            key.waiting.to_string(),
            oldest,
        ]
    }));
    let waiting: usize = report.keys.iter().map(|key| key.waiting).sum();
    rows.push([
        "all keys".to_owned(),
        report.in_use.to_string(),
        limit_text(report.max),
        waiting.to_string(),
        String::new(),
    ]);
    let widths: [usize; 5] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| display_width(&row[column]));
        cells.max().unwrap_or_default()
    });
    // The numbers keep their width; a long key is truncated.
    let numbers: usize = widths[1..].iter().map(|width| width + 2).sum();
    let remaining = width.map_or(usize::MAX, |width| width.saturating_sub(numbers).max(8));
    let first = widths[0].min(remaining);
    let mut text = String::new();
    for row in rows {
        let key = truncate(&row[0], first);
        let mut line = format!(
            "{key}{}",
            " ".repeat(first.saturating_sub(display_width(&key)))
        );
        for (cell, width) in row.iter().zip(widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn limit_text(limit: u32) -> String {
    match limit {
        0 => "none".to_owned(),
        _ => limit.to_string(),
    }
}
