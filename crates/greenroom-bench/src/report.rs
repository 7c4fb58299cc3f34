//! Prints measurements as a table for docs/performance.md or as JSON for programs.

use serde_json::json;

use crate::benchmarks::{Benchmark, Better};

/// The median of several measurements, and their spread.
#[derive(Debug, Clone, Copy)]
pub struct Median {
    /// The median.
    pub median: f64,
    /// The difference of the largest and the smallest, as a fraction of the median.
    pub spread: f64,
}

impl Median {
    /// Computes the median of at least one value.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let median = values[values.len() / 2];
        let spread = (values[values.len() - 1] - values[0]) / median;
        Self { median, spread }
    }
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// The benchmark.
    pub benchmark: &'static Benchmark,
    /// Its scale.
    pub scale: usize,
    /// The measured value.
    pub value: Median,
    /// The value of the bare mechanism in the same rounds.
    pub bare: Option<Median>,
    /// The notes of the first round.
    pub notes: String,
}

impl Row {
    /// Returns the ratio to the bare mechanism: 1 is equal, less is worse.
    fn ratio(&self) -> Option<f64> {
        let bare = self.bare?.median;
        Some(match self.benchmark.better {
            Better::More => self.value.median / bare,
            Better::Less => bare / self.value.median,
        })
    }
}

/// Prints the rows to stdout.
pub fn print(rows: &[Row], as_json: bool) {
    if as_json {
        let rows: Vec<_> = rows.iter().map(as_value).collect();
        println!("{}", json!({ "rows": rows }));
        return;
    }
    println!("| work | with | measured | spread | bare | of bare | target |");
    println!("|---|---|---|---|---|---|---|");
    for row in rows {
        let bare = row.bare.map_or("–".to_owned(), |bare| {
            format!("{} {}", number(bare.median), row.benchmark.unit)
        });
        let ratio = row
            .ratio()
            .map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        let notes = if row.notes.is_empty() {
            String::new()
        } else {
            format!("; {}", row.notes)
        };
        println!(
            "| {} | {} | {} {}{notes} | {:.0} % | {bare} | {ratio} | {} |",
            row.benchmark.name,
            row.scale,
            number(row.value.median),
            row.benchmark.unit,
            row.value.spread * 100.0,
            row.benchmark.target,
        );
    }
}

fn as_value(row: &Row) -> serde_json::Value {
    json!({
        "work": row.benchmark.name,
        "scale": row.scale,
        "unit": row.benchmark.unit,
        "value": row.value.median,
        "spread": row.value.spread,
        "bare": row.bare.map(|bare| bare.median),
        "ofBare": row.ratio(),
        "target": row.benchmark.target,
        "notes": row.notes,
    })
}

/// Formats a number: three decimals below 100, else whole with thousands separators.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.3}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted() {
        assert_eq!(number(1_234_567.4), "1,234,567");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(2.5), "2.5");
        assert_eq!(number(0.0), "0");
    }

    #[test]
    fn median_and_spread() {
        let median = Median::of([5.0, 1.0, 2.0].into_iter());
        assert_eq!((median.median, median.spread), (2.0, 2.0));
    }
}
