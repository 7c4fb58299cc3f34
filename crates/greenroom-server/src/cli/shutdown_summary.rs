//! The line that `serve` and `up` print at shutdown about the open tasks. Pure.

use greenroom::ShutdownReport;

/// The lifetime of the agent server relative to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerLifetime {
    /// The server keeps running, with its sessions.
    Independent,
    /// The server was started with the service and stops with it.
    WithService,
}

/// Returns one line about the open tasks; none without open tasks.
pub fn shutdown_summary(report: &ShutdownReport, server: ServerLifetime) -> Option<String> {
    let mut text = Vec::new();
    match report.detached.len() {
        0 => {}
        1 => text.push("1 task stays open".to_owned()),
        tasks => text.push(format!("{tasks} tasks stay open")),
    }
    if !text.is_empty() {
        text.push(
            match server {
                ServerLifetime::Independent => "what runs goes on, and the next start picks all up",
                ServerLifetime::WithService => {
                    "the next start goes on with what ran and starts what waited"
                }
            }
            .to_owned(),
        );
    }
    match report.cancelled.len() {
        0 => {}
        1 => text.push("1 task was cancelled".to_owned()),
        tasks => text.push(format!("{tasks} tasks were cancelled")),
    }
    (!text.is_empty()).then(|| text.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cancelled: usize, detached: usize) -> ShutdownReport {
        let ids = |count: usize| (0..count).map(|nth| format!("bg_{nth:08x}").as_str().into());
        let mut report = ShutdownReport::default();
        report.cancelled = ids(cancelled).collect();
        report.detached = ids(detached).collect();
        report
    }

    #[test]
    fn summary_names_open_and_cancelled_tasks() {
        let summary =
            |cancelled, detached, server| shutdown_summary(&report(cancelled, detached), server);
        assert_eq!(summary(0, 0, ServerLifetime::Independent), None);
        assert_eq!(
            summary(0, 1, ServerLifetime::Independent).unwrap(),
            "1 task stays open; what runs goes on, and the next start picks all up"
        );
        assert_eq!(
            summary(0, 3, ServerLifetime::WithService).unwrap(),
            "3 tasks stay open; the next start goes on with what ran and starts what waited"
        );
        assert_eq!(
            summary(2, 0, ServerLifetime::WithService).unwrap(),
            "2 tasks were cancelled"
        );
    }
}
