//! The completion check, one at a time, and the actions after its answer.

use super::{Check, CheckAnswer, CheckToken, Watch, WatchAction, failure_end};
use crate::config::FailedCheck;
use crate::domain::lifecycle::End;
use crate::domain::time::Timestamp;

impl Watch {
    /// Processes the answer to a completion check. An answer that a sign of life overtook is dropped.
    pub fn checked(
        &mut self,
        token: CheckToken,
        answer: CheckAnswer,
        now: Timestamp,
    ) -> Vec<WatchAction> {
        let Some(check) = self.check.take_if(|check| check.token == token) else {
            return Vec::new();
        };
        if check.signs_of_life != self.signs_of_life || self.abort_pending {
            return Vec::new();
        }
        let findings = match answer {
            CheckAnswer::Found(findings) => findings,
            CheckAnswer::Gone => {
                return vec![WatchAction::End(End::error(
                    "the session does not exist any more",
                ))];
            }
            // While the prompt is in flight there is nothing to read.
            CheckAnswer::Failed(_) if self.prompt_accepted.is_none() => return Vec::new(),
            CheckAnswer::Failed(why) => return self.check_failed(why),
        };
        self.failed_checks = 0;
        // A prompt in flight has its own timeout. Until the server has accepted it, a session that is older than the
        // run works on earlier prompts.
        let has_prompt = self.prompt_accepted.is_some();
        if !has_prompt && !findings.prompted {
            return Vec::new();
        }
        self.has_finished_message |= findings.finished;
        if let Some(failure) = findings.failed {
            if failure.aborted && self.continues_cut_off_runs() {
                // No event reported the abort: its instance is gone, or its event source was.
                return self.cut_off("only its stored messages show an abort");
            }
            return vec![WatchAction::End(failure_end(
                failure.aborted,
                &failure.text,
            ))];
        }
        if self.waits_for_others() {
            return Vec::new();
        }
        if findings.unfinished || (!findings.answered && self.event_link_lost) {
            return if has_prompt {
                self.lost_by_server(now)
            } else {
                Vec::new()
            };
        }
        if findings.output && findings.open_todos == 0 {
            self.note_once("checked", "it has answered, and no todo is open");
            return vec![WatchAction::End(End::completed())];
        }
        self.note_once(
            "checked, not done",
            match findings.open_todos {
                _ if !findings.output => "it has not answered yet".to_owned(),
                1 => "1 todo is open".to_owned(),
                todos => format!("{todos} todos are open"),
            },
        );
        if check.stale {
            return vec![WatchAction::End(self.stale_end(&findings))];
        }
        if has_prompt
            && !findings.answered
            && !findings.output
            && let (Some(limit), Some(idle)) = (self.config.lifecycle.not_taken_up, self.idle_since)
            && now.since(idle) >= limit
        {
            return vec![WatchAction::End(End::interrupt(
                "the prompt was not taken up",
            ))];
        }
        if !findings.output && self.absent_polls >= 3 {
            return vec![WatchAction::ReadSession];
        }
        Vec::new()
    }

    /// Processes whether the session exists; none if the call failed.
    pub fn existence(&mut self, exists: Option<bool>) -> Vec<WatchAction> {
        match exists {
            Some(false) => vec![WatchAction::End(End::error(
                "the session does not exist any more",
            ))],
            _ => Vec::new(),
        }
    }

    pub(super) fn begin_check(&mut self, stale: bool) -> Vec<WatchAction> {
        if self.abort_pending {
            return Vec::new();
        }
        if self.waits_for_others() {
            return self.release_slot_if_waiting();
        }
        if let Some(check) = &mut self.check
            && check.signs_of_life == self.signs_of_life
        {
            check.stale |= stale;
            return Vec::new();
        }
        self.next_token += 1;
        let token = CheckToken(self.next_token);
        self.check = Some(Check {
            token,
            signs_of_life: self.signs_of_life,
            stale,
        });
        vec![WatchAction::Check(token)]
    }

    pub(super) fn check_failed(&mut self, why: String) -> Vec<WatchAction> {
        let FailedCheck::Retry { failures } = self.config.lifecycle.failed_check else {
            return Vec::new();
        };
        self.failed_checks += 1;
        self.note_once("not checked", why.clone());
        if self.failed_checks < failures {
            return Vec::new();
        }
        vec![WatchAction::End(End::completed().with_note(format!(
            "taken as done; its messages could not be read: {why}"
        )))]
    }

    /// Handles a run that the server lost in a restart: the session is idle with an answer that was started and not
    /// finished.
    pub(super) fn lost_by_server(&mut self, now: Timestamp) -> Vec<WatchAction> {
        let settled = self
            .idle_since
            .is_some_and(|idle| now.since(idle) >= self.config.lifecycle.poll_interval);
        if !settled {
            return Vec::new();
        }
        if self.continues_cut_off_runs() {
            return self.cut_off("the agent server had lost its last turn");
        }
        if self.continuations >= self.config.lifecycle.restart_attempts {
            return vec![WatchAction::End(End::interrupt(
                "the agent server lost the run and did not take it up again",
            ))];
        }
        self.continuations += 1;
        self.note_once("continued", "the agent server had lost its last turn");
        self.restart_idle_guard(now);
        self.prompt_accepted = None;
        vec![WatchAction::Continue]
    }
}
