//! Polled statuses, and runs that are silent for too long.

use std::time::Duration;

use super::{CheckFindings, PolledStatus, Watch, WatchAction};
use crate::domain::lifecycle::End;
use crate::domain::time::{Timestamp, duration_text};

/// The reason of a cut-off in the timeline.
const PROCESS_ENDED: &str = "the process of its session has ended";

impl Watch {
    /// Processes the status from a poll, as of the time of the poll. Ends stale and silent runs.
    pub fn observed(
        &mut self,
        status: &PolledStatus,
        polled_at: Timestamp,
        now: Timestamp,
    ) -> Vec<WatchAction> {
        if self.abort_pending {
            return Vec::new();
        }
        let mut actions = match status {
            PolledStatus::Busy if self.idle_since.is_none_or(|idle| idle <= polled_at) => {
                self.busy(polled_at)
            }
            PolledStatus::Busy => {
                // The turn has ended since, but the poll is still a sign of life.
                self.last_sign_of_life = self.last_sign_of_life.max(polled_at);
                Vec::new()
            }
            PolledStatus::Retry(retrying)
                if self.idle_since.is_none_or(|idle| idle <= polled_at) =>
            {
                self.retry(retrying.clone(), polled_at)
            }
            PolledStatus::Idle | PolledStatus::Absent if !self.is_too_early(polled_at) => {
                self.absent_polls = if *status == PolledStatus::Absent {
                    self.absent_polls + 1
                } else {
                    0
                };
                self.idle_since.get_or_insert(polled_at);
                match status {
                    PolledStatus::Absent if self.absent_polls < 2 => Vec::new(),
                    PolledStatus::Absent => {
                        self.note_once("idle", "polls do not list it as busy");
                        self.begin_check(false)
                    }
                    _ => {
                        self.note_once("idle", "a poll lists it so");
                        self.begin_check(false)
                    }
                }
            }
            PolledStatus::ProcessEnded => self.process_ended(),
            _ => Vec::new(),
        };
        if !actions
            .iter()
            .any(|action| matches!(action, WatchAction::End(_) | WatchAction::CutOff { .. }))
        {
            actions.extend(self.judge_silence(status, now));
        }
        actions
    }

    /// Handles a run whose process has ended: its turn was cut off. There is nothing to continue if the prompt was not
    /// accepted yet, or if the run is idle and waits for its own tasks or has answered: the next server shows its answer.
    fn process_ended(&mut self) -> Vec<WatchAction> {
        let is_idle = self.idle_since.is_some();
        let has_answered = (self.turn.as_ref()).is_some_and(|turn| turn.finished_at.is_some());
        let is_at_rest = is_idle && (has_answered || self.waits_for_others());
        if self.prompt_accepted.is_none() || is_at_rest || !self.continues_cut_off_runs() {
            return Vec::new();
        }
        self.cut_off(PROCESS_ENDED)
    }

    pub(super) fn judge_silence(
        &mut self,
        status: &PolledStatus,
        now: Timestamp,
    ) -> Vec<WatchAction> {
        let lifecycle = &self.config.lifecycle;
        // A prompt in flight has its own timeouts: of the call, and of an unreachable server.
        let Some(accepted) = self.prompt_accepted.filter(|_| self.asking.is_empty()) else {
            return Vec::new();
        };
        if matches!(
            status,
            PolledStatus::Busy | PolledStatus::Unknown | PolledStatus::ProcessEnded
        ) {
            // The time before the accepted prompt does not count, nor the time without observation.
            let last_news = self
                .progress
                .last_update
                .max(accepted)
                .max(self.observed_since);
            if now.since(last_news) <= lifecycle.task_ttl {
                return Vec::new();
            }
            if *status == PolledStatus::ProcessEnded && self.continues_cut_off_runs() {
                // A run that waits for its own tasks goes on once they have ended.
                let waits = self.idle_since.is_some() && self.waits_for_others();
                return if waits {
                    Vec::new()
                } else {
                    self.cut_off(PROCESS_ENDED)
                };
            }
            let silent = duration_text(lifecycle.task_ttl);
            return vec![WatchAction::End(End::error(format!(
                "no activity for {silent} although the session is busy"
            )))];
        }
        // An open task below the run has its own watch.
        let silent = matches!(status, PolledStatus::Idle | PolledStatus::Absent)
            && self.open_children == 0
            && now.since(self.started) >= lifecycle.stale_min_runtime
            && now.since(self.last_sign_of_life) > lifecycle.stale_timeout;
        if silent && !self.has_pending {
            let silence = minutes(lifecycle.stale_timeout);
            self.note_once("silent", format!("no sign of life for {silence}"));
            self.begin_check(true)
        } else {
            Vec::new()
        }
    }

    pub(super) fn stale_end(&self, findings: &CheckFindings) -> End {
        let silence = minutes(self.config.lifecycle.stale_timeout);
        if !findings.output {
            return End::cancelled(Some(format!("Stale timeout (no activity for {silence})")));
        }
        let note = match findings.open_todos {
            0 => format!("no activity for {silence}"),
            1 => "1 todo left open".to_owned(),
            todos => format!("{todos} todos left open"),
        };
        End::completed().with_note(note)
    }

    pub(super) fn is_too_early(&self, polled_at: Timestamp) -> bool {
        polled_at < self.idle_guard_ends()
            || polled_at < self.last_sign_of_life
            || self
                .prompt_accepted
                .is_none_or(|accepted| polled_at < accepted)
    }
}

fn minutes(time: Duration) -> String {
    match (time.as_secs() / 60, time.as_secs() % 60) {
        (minutes, 0) if minutes > 0 => format!("{minutes}min"),
        _ => duration_text(time),
    }
}
