//! A parent's batch: the open tasks, and the settled tasks that no final message has reported. Joining and settling are
//! one step each, so exactly one settle is the last. Owned by the parent's notifier; pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{ModelRef, TaskId};
use super::notice::SettledFact;
use super::time::Timestamp;
use crate::maps::Map;

/// The report on a settled task, with the parent identity from its launch or resume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompletionReport {
    /// The facts for readers.
    pub fact: SettledFact,
    /// The position of the run in the order of acceptance. The newest task of a message decides the parent's identity.
    pub accepted: u64,
    /// The parent's agent, from the launch or resume.
    pub parent_agent: Option<Arc<str>>,
    /// The parent's model, from the launch or resume.
    pub parent_model: Option<Arc<ModelRef>>,
}

/// An individual message: it reports some settled tasks while others are open.
#[derive(Debug, Clone, PartialEq)]
pub struct Individual {
    /// The reports, in the order of settling.
    pub reports: Vec<CompletionReport>,
    /// The number of open tasks when the newest of them settled.
    pub remaining: usize,
    /// True if the message wakes the parent (a failure).
    pub wakes: bool,
    /// The time at which the first of them settled.
    pub since: Timestamp,
    refused: bool,
}

/// The next message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// No message is due.
    Nothing,
    /// An individual message, not before `at`.
    Individual {
        /// The end of its debounce.
        at: Timestamp,
        /// True if the message wakes the parent.
        wakes: bool,
        /// The time since which it is due.
        since: Timestamp,
    },
    /// The final message.
    Final {
        /// The time at which the last task settled.
        since: Timestamp,
    },
}

#[derive(Debug)]
struct Member {
    task: TaskId,
    /// Boxed, since most members are open most of the time.
    settled: Option<Box<CompletionReport>>,
}

/// A parent's batch.
#[derive(Debug, Default)]
pub struct Batch {
    members: BTreeMap<u64, Member>,
    positions: Map<TaskId, u64>,
    next_position: u64,
    open: usize,
    individuals: VecDeque<Individual>,
    final_due: Option<Timestamp>,
}

impl Batch {
    /// Adds an open task. A final that is due and not yet sent is cancelled; individual messages report its tasks.
    pub fn join(&mut self, task: TaskId) {
        self.remove(&task);
        let position = self.next_position;
        self.next_position += 1;
        self.positions.insert(task.clone(), position);
        self.members.insert(
            position,
            Member {
                task,
                settled: None,
            },
        );
        self.open += 1;
        if self.final_due.take().is_some() {
            for individual in self
                .individuals
                .iter_mut()
                .filter(|individual| individual.remaining == 0)
            {
                individual.remaining = self.open;
            }
        }
    }

    /// Settles a task. With `merge` the report goes into the waiting individual message, if there is one; otherwise
    /// into its own.
    pub fn settle(&mut self, report: CompletionReport, wakes: bool, merge: bool, now: Timestamp) {
        let Some(position) = self.positions.get(&report.fact.task) else {
            return;
        };
        let Some(member) = self
            .members
            .get_mut(position)
            .filter(|member| member.settled.is_none())
        else {
            return;
        };
        member.settled = Some(Box::new(report.clone()));
        self.open -= 1;
        let remaining = self.open;
        match self
            .individuals
            .back_mut()
            .filter(|individual| merge || individual.refused)
        {
            Some(individual) => {
                individual.reports.push(report);
                individual.remaining = remaining;
                individual.wakes |= wakes;
                individual.refused = false;
            }
            None => self.individuals.push_back(Individual {
                reports: vec![report],
                remaining,
                wakes,
                since: now,
                refused: false,
            }),
        }
        self.schedule_final(now);
    }

    /// Settles a task that an earlier message has already reported.
    pub fn settle_reported(&mut self, report: CompletionReport, now: Timestamp) {
        let Some(position) = self.positions.get(&report.fact.task) else {
            return;
        };
        if let Some(member) = self
            .members
            .get_mut(position)
            .filter(|member| member.settled.is_none())
        {
            member.settled = Some(Box::new(report));
            self.open -= 1;
            self.schedule_final(now);
        }
    }

    /// Returns whether a task of the batch has settled; none if it is not in the batch.
    pub fn has_settled(&self, task: &TaskId) -> Option<bool> {
        let member = self.members.get(self.positions.get(task)?)?;
        Some(member.settled.is_some())
    }

    /// Removes a task without a report: it was cancelled silently or moved to another parent. If it was the last open
    /// task, the final is due without it, or the batch closes if there are no reports.
    pub fn leave(&mut self, task: &TaskId, now: Timestamp) {
        if self.remove(task) {
            for individual in &mut self.individuals {
                individual
                    .reports
                    .retain(|report| report.fact.task != *task);
                // Only a failure wakes the parent.
                individual.wakes &= individual
                    .reports
                    .iter()
                    .any(|report| report.fact.status.is_failure());
            }
            self.individuals
                .retain(|individual| !individual.reports.is_empty());
            self.schedule_final(now);
        }
    }

    /// Returns the message that is due.
    pub fn due(&self, debounce: Duration) -> Due {
        if let Some(since) = self.final_due {
            return Due::Final { since };
        }
        match self.individuals.front() {
            // A refused individual message waits for the next one, unless it wakes the parent.
            Some(individual) if !individual.refused || individual.wakes => Due::Individual {
                at: individual.since + debounce,
                wakes: individual.wakes,
                since: individual.since,
            },
            _ => Due::Nothing,
        }
    }

    /// Removes and returns the individual message to send now. With `held` all waiting messages are merged into it.
    pub fn take_individual(&mut self, held: bool) -> Option<Individual> {
        let mut individual = self.individuals.pop_front()?;
        while held && let Some(next) = self.individuals.pop_front() {
            individual.merge(next);
        }
        Some(individual)
    }

    /// Returns a refused individual message to the batch, merged into the next one.
    pub fn individual_refused(&mut self, mut individual: Individual) {
        // Reports of tasks that left the batch, or that a final includes, are not repeated.
        individual
            .reports
            .retain(|report| self.positions.contains_key(&report.fact.task));
        if individual.reports.is_empty() {
            return;
        }
        match self.individuals.pop_front() {
            Some(next) => {
                individual.merge(next);
                individual.refused = false;
            }
            None => individual.refused = true,
        }
        self.individuals.push_front(individual);
    }

    /// Closes the batch and returns its reports, in the order of joining. A task that joins later opens a new batch.
    pub fn close(&mut self) -> Vec<CompletionReport> {
        self.individuals.clear();
        self.final_due = None;
        self.positions.clear();
        self.open = 0;
        std::mem::take(&mut self.members)
            .into_values()
            .filter_map(|member| member.settled.map(|report| *report))
            .collect()
    }

    /// Returns the number of open tasks.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Returns the tasks of the batch, in the order of joining.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskId> {
        self.members.values().map(|member| &member.task)
    }

    /// Returns true if the batch has no tasks and no messages.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.individuals.is_empty()
    }

    /// Returns true if a message is waiting.
    pub fn has_pending(&self) -> bool {
        self.final_due.is_some() || !self.individuals.is_empty()
    }

    fn schedule_final(&mut self, now: Timestamp) {
        if self.open > 0 {
            return;
        }
        if self.members.is_empty() {
            self.individuals.clear();
            self.final_due = None;
        } else {
            self.final_due.get_or_insert(now);
        }
    }

    fn remove(&mut self, task: &TaskId) -> bool {
        let Some(position) = self.positions.remove(task) else {
            return false;
        };
        if self
            .members
            .remove(&position)
            .is_some_and(|member| member.settled.is_none())
        {
            self.open -= 1;
        }
        true
    }
}

impl Individual {
    /// Returns an individual message that was in flight when an earlier notifier panicked.
    pub fn in_flight(
        reports: Vec<CompletionReport>,
        remaining: usize,
        wakes: bool,
        since: Timestamp,
    ) -> Self {
        Self {
            reports,
            remaining,
            wakes,
            since,
            refused: false,
        }
    }

    fn merge(&mut self, next: Individual) {
        self.reports.extend(next.reports);
        self.remaining = next.remaining;
        self.wakes |= next.wakes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::task::TaskStatus;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(0);

    fn report(task: &str) -> CompletionReport {
        let fact = SettledFact {
            task: task.into(),
            status: TaskStatus::Completed,
            description: task.into(),
            duration: "0s".into(),
            error: None,
        };
        CompletionReport {
            fact,
            accepted: 0,
            parent_agent: None,
            parent_model: None,
        }
    }

    fn names(reports: &[CompletionReport]) -> Vec<&str> {
        reports
            .iter()
            .map(|report| report.fact.task.as_str())
            .collect()
    }

    fn batch(tasks: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for &task in tasks {
            batch.join(task.into());
        }
        batch
    }

    #[test]
    fn batch_of_one_sends_only_a_final() {
        let mut batch = batch(&["a"]);
        batch.settle(report("a"), false, false, NOW);
        assert_eq!(batch.due(Duration::ZERO), Due::Final { since: NOW });
        assert_eq!(names(&batch.close()), ["a"]);
        assert!(batch.is_empty());
    }

    #[test]
    fn final_replaces_unsent_individuals() {
        let mut batch = batch(&["a", "b"]);
        batch.settle(report("b"), false, false, NOW);
        batch.settle(report("a"), false, false, NOW);
        assert_eq!(batch.due(Duration::ZERO), Due::Final { since: NOW });
        assert_eq!(names(&batch.close()), ["a", "b"]);
        assert_eq!(batch.due(Duration::ZERO), Due::Nothing);
    }

    #[test]
    fn join_replaces_due_final_with_individual() {
        let mut batch = batch(&["a", "b"]);
        batch.settle(report("a"), false, false, NOW);
        batch.take_individual(false).unwrap();
        batch.settle(report("b"), false, false, NOW);
        batch.join("c".into());
        let individual = batch.take_individual(false).unwrap();
        assert_eq!(
            (names(&individual.reports), individual.remaining),
            (vec!["b"], 1)
        );
        batch.settle(report("c"), false, false, NOW);
        assert_eq!(names(&batch.close()), ["a", "b", "c"]);
    }

    #[test]
    fn batch_without_reports_closes_silently() {
        let mut batch = batch(&["a", "b"]);
        batch.leave(&"a".into(), NOW);
        batch.leave(&"b".into(), NOW);
        assert_eq!(batch.due(Duration::ZERO), Due::Nothing);
        assert!(batch.is_empty());
    }

    #[test]
    fn final_is_due_when_last_open_task_leaves() {
        let mut batch = batch(&["a", "b"]);
        batch.settle(report("a"), false, false, NOW);
        batch.take_individual(false);
        batch.leave(&"b".into(), NOW);
        assert_eq!(batch.due(Duration::ZERO), Due::Final { since: NOW });
        assert_eq!(names(&batch.close()), ["a"]);
    }

    #[test]
    fn refused_individual_is_merged_into_next() {
        let mut batch = batch(&["a", "b", "c"]);
        batch.settle(report("a"), false, false, NOW);
        let individual = batch.take_individual(false).unwrap();
        batch.individual_refused(individual);
        assert_eq!(batch.due(Duration::ZERO), Due::Nothing);
        batch.settle(report("b"), false, false, NOW);
        let individual = batch.take_individual(false).unwrap();
        assert_eq!(
            (names(&individual.reports), individual.remaining),
            (vec!["a", "b"], 1)
        );
    }

    #[test]
    fn task_settled_after_a_send_gets_its_own_individual() {
        let mut batch = batch(&["a", "b", "c"]);
        batch.settle(report("a"), false, false, NOW);
        batch.settle(report("b"), false, false, NOW);
        assert_eq!(names(&batch.take_individual(false).unwrap().reports), ["a"]);
        assert_eq!(names(&batch.take_individual(false).unwrap().reports), ["b"]);
    }

    proptest! {
        /// Every task that settled in a batch is in exactly one final, no removed task is, and a final leaves no task
        /// open.
        #[test]
        fn each_settled_task_is_in_one_final(moves in proptest::collection::vec((0u8..5, 0usize..6), 0..120)) {
            let all = ["a", "b", "c", "d", "e", "f"];
            let mut batch = Batch::default();
            let mut open: Vec<&str> = Vec::new();
            let mut settled_tasks: Vec<&str> = Vec::new();
            for (what, which) in moves {
                let task = all[which];
                match what {
                    0 | 1 if !open.contains(&task) => {
                        batch.join(task.into());
                        open.push(task);
                        settled_tasks.retain(|&known| known != task);
                    }
                    2 if open.contains(&task) => {
                        batch.settle(report(task), false, which % 2 == 0, NOW);
                        open.retain(|&known| known != task);
                        settled_tasks.push(task);
                    }
                    3 => {
                        batch.leave(&task.into(), NOW);
                        open.retain(|&known| known != task);
                        settled_tasks.retain(|&known| known != task);
                    }
                    _ => {
                        let individual = batch.take_individual(which % 2 == 0);
                        if let Some(individual) = individual.filter(|_| which < 3) {
                            batch.individual_refused(individual);
                        }
                    }
                }
                prop_assert_eq!(batch.open(), open.len());
                match batch.due(Duration::ZERO) {
                    Due::Final { .. } => {
                        prop_assert!(open.is_empty());
                        let closed = batch.close();
                        let mut reported = names(&closed);
                        reported.sort_unstable();
                        settled_tasks.sort_unstable();
                        prop_assert_eq!(reported, std::mem::take(&mut settled_tasks));
                        prop_assert!(batch.is_empty());
                    }
                    _ => prop_assert!(!open.is_empty() || settled_tasks.is_empty()),
                }
            }
        }
    }
}
