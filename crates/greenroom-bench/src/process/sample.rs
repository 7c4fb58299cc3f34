//! Reads the kernel's counters of a process, and evaluates a series of samples.

use std::path::Path;

/// Returns the resident memory of a process in bytes.
///
/// # Errors
/// Returns a text if the process has ended.
pub fn resident(pid: u32) -> Result<u64, String> {
    field(Path::new(&format!("/proc/{pid}/status")), "VmRSS:").map(|kilobytes| kilobytes * 1024)
}

/// Returns the name and the number of voluntary context switches of each thread of a process.
///
/// # Errors
/// Returns a text if the process has ended.
pub fn threads(pid: u32) -> Result<Vec<(String, u64)>, String> {
    let folder = format!("/proc/{pid}/task");
    let tasks = std::fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
    let mut threads = Vec::new();
    for task in tasks.flatten() {
        let path = task.path();
        // A thread may end meanwhile.
        let Ok(wakes) = field(&path.join("status"), "voluntary_ctxt_switches:") else {
            continue;
        };
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        threads.push((name.trim().to_owned(), wakes));
    }
    Ok(threads)
}

fn field(path: &Path, name: &str) -> Result<u64, String> {
    let at = |problem: &str| format!("{}: {problem}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| at(&error.to_string()))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.ok_or_else(|| at(&format!("no {name}")))?;
    let number = value.trim().trim_end_matches("kB").trim();
    number
        .parse()
        .map_err(|_| at(&format!("{name} {number} is not a number")))
}

/// Returns the slope of the best-fitting straight line, in the unit of the values per second; zero for fewer than two
/// points.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (at, value) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - at).powi(2)).sum();
    let shared: f64 = points
        .iter()
        .map(|point| (point.0 - at) * (point.1 - value))
        .sum();
    if spread > 0.0 { shared / spread } else { 0.0 }
}

/// Returns the median of a series; zero for an empty series.
pub fn median(points: &[(f64, f64)]) -> f64 {
    let mut values: Vec<f64> = points.iter().map(|point| point.1).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slope_of_straight_and_flat_lines() {
        let line: Vec<(f64, f64)> = (0..10)
            .map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x)))
            .collect();
        assert!((slope(&line) - 2.0).abs() < 1e-9);
        let flat = [(0.0, 7.0), (1.0, 7.0), (2.0, 7.0)];
        assert_eq!((slope(&flat), median(&flat)), (0.0, 7.0));
        assert_eq!((slope(&[]), slope(&line[..1])), (0.0, 0.0));
    }

    #[test]
    fn counters_of_this_process_are_readable() {
        let this = std::process::id();
        assert!(resident(this).unwrap() > 1 << 20);
        assert!(!threads(this).unwrap().is_empty());
    }
}
