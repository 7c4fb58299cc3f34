//! What a service says at its end of the tasks that were open: who stopped it should know whether they go on. Said by `serve`
//! and `up`. Pure.

use greenroom::ShutdownReport;

/// What becomes of the agent server when the service ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnServer {
    /// It is somebody else's, and its sessions go on.
    GoesOn,
    /// It was started with the service, and ends with it.
    EndsToo,
}

/// One line about the tasks that were open; none if none was.
pub fn farewell(report: &ShutdownReport, server: OwnServer) -> Option<String> {
    let mut words = Vec::new();
    match report.detached.len() {
        0 => {}
        1 => words.push("1 task stays open".to_owned()),
        tasks => words.push(format!("{tasks} tasks stay open")),
    }
    if !words.is_empty() {
        words.push(
            match server {
                OwnServer::GoesOn => "what runs goes on, and the next start picks all up",
                OwnServer::EndsToo => "the next start goes on with what ran and starts what waited",
            }
            .to_owned(),
        );
    }
    match report.cancelled.len() {
        0 => {}
        1 => words.push("1 task was cancelled".to_owned()),
        tasks => words.push(format!("{tasks} tasks were cancelled")),
    }
    (!words.is_empty()).then(|| words.join("; "))
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
    fn it_says_what_becomes_of_the_tasks() {
        let said = |cancelled, detached, server| farewell(&report(cancelled, detached), server);
        assert_eq!(said(0, 0, OwnServer::GoesOn), None);
        assert_eq!(
            said(0, 1, OwnServer::GoesOn).unwrap(),
            "1 task stays open; what runs goes on, and the next start picks all up"
        );
        assert_eq!(
            said(0, 3, OwnServer::EndsToo).unwrap(),
            "3 tasks stay open; the next start goes on with what ran and starts what waited"
        );
        assert_eq!(
            said(2, 0, OwnServer::EndsToo).unwrap(),
            "2 tasks were cancelled"
        );
    }
}
