//! What the kernel says of a process, and what a series of it amounts to.

use std::path::Path;

/// Memory of a process in use, in bytes.
///
/// # Errors
/// It has ended.
pub fn resident(pid: u32) -> Result<u64, String> {
    field(Path::new(&format!("/proc/{pid}/status")), "VmRSS:").map(|kilobytes| kilobytes * 1024)
}

/// How often each thread of a process went to sleep by itself and was woken, with its name.
///
/// # Errors
/// It has ended.
pub fn threads(pid: u32) -> Result<Vec<(String, u64)>, String> {
    let folder = format!("/proc/{pid}/task");
    let tasks = std::fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
    let mut threads = Vec::new();
    for task in tasks.flatten() {
        let path = task.path();
        // A thread may end while it is looked at.
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
        .map_err(|_| at(&format!("{name} {number} is no number")))
}

/// How a series grows with time: the slope of the straight line that fits best, in its unit a second. Zero for less than
/// two points.
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

/// The middle of a series; zero of none.
pub fn middle(points: &[(f64, f64)]) -> f64 {
    let mut values: Vec<f64> = points.iter().map(|point| point.1).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_line_has_its_slope_and_a_flat_one_none() {
        let line: Vec<(f64, f64)> = (0..10)
            .map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x)))
            .collect();
        assert!((slope(&line) - 2.0).abs() < 1e-9);
        let flat = [(0.0, 7.0), (1.0, 7.0), (2.0, 7.0)];
        assert_eq!((slope(&flat), middle(&flat)), (0.0, 7.0));
        assert_eq!((slope(&[]), slope(&line[..1])), (0.0, 0.0));
    }

    #[test]
    fn the_kernel_tells_of_this_process() {
        let this = std::process::id();
        assert!(resident(this).unwrap() > 1 << 20);
        assert!(!threads(this).unwrap().is_empty());
    }
}
