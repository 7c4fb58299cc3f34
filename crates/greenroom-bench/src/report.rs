//! What was measured, as a table for docs/performance.md or as JSON for programs.

use serde_json::json;

use crate::works::{Better, Work};

/// The middle one of several measurements, and how far they lie apart.
#[derive(Debug, Clone, Copy)]
pub struct Median {
    /// The middle one.
    pub middle: f64,
    /// The distance from the smallest to the largest, as a share of the middle.
    pub spread: f64,
}

impl Median {
    /// Of at least one.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values[values.len() / 2];
        let spread = (values[values.len() - 1] - values[0]) / middle;
        Self { middle, spread }
    }
}

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    /// What was done.
    pub work: &'static Work,
    /// With how many.
    pub scale: usize,
    /// What it came to.
    pub value: Median,
    /// What the bare mechanism came to in the same rounds.
    pub bare: Option<Median>,
    /// What else the first round has to say.
    pub notes: String,
}

impl Row {
    /// How near the bare mechanism it comes: 1 is as good, less is worse.
    fn ratio(&self) -> Option<f64> {
        let bare = self.bare?.middle;
        Some(match self.work.better {
            Better::More => self.value.middle / bare,
            Better::Less => bare / self.value.middle,
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
            format!("{} {}", number(bare.middle), row.work.unit)
        });
        let ratio = row
            .ratio()
            .map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        let notes = match row.notes.is_empty() {
            true => String::new(),
            false => format!("; {}", row.notes),
        };
        println!(
            "| {} | {} | {} {}{notes} | {:.0} % | {bare} | {ratio} | {} |",
            row.work.name,
            row.scale,
            number(row.value.middle),
            row.work.unit,
            row.value.spread * 100.0,
            row.work.target,
        );
    }
}

fn as_value(row: &Row) -> serde_json::Value {
    json!({
        "work": row.work.name,
        "scale": row.scale,
        "unit": row.work.unit,
        "value": row.value.middle,
        "spread": row.value.spread,
        "bare": row.bare.map(|bare| bare.middle),
        "ofBare": row.ratio(),
        "target": row.work.target,
        "notes": row.notes,
    })
}

/// Three figures that matter, with thousands set apart.
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
    fn numbers_read_well() {
        assert_eq!(number(1_234_567.4), "1,234,567");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(2.5), "2.5");
        assert_eq!(number(0.0), "0");
    }

    #[test]
    fn the_middle_of_several_is_what_counts() {
        let median = Median::of([5.0, 1.0, 2.0].into_iter());
        assert_eq!((median.middle, median.spread), (2.0, 2.0));
    }
}
