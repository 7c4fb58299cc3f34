//! The turns of a session, as observed on the real server: busy, steps of one assistant message each, tools,
//! text, idle (sometimes twice), and events that follow idle. The kind of a turn is a random decision.

use std::collections::VecDeque;

use greenroom::domain::ids::SessionId;

use super::state::{ServerState, TimedEvent};
use crate::explore::log::Fact;

/// The kind of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnKind {
    /// Answers with text.
    Answer,
    /// Calls tools first.
    Tools,
    /// The same with long pauses.
    Long,
    /// Finishes without output.
    Silent,
    /// Leaves todos open.
    Todos,
    /// Fails with an error of the provider.
    Fails,
    /// Waits for the provider, then continues.
    Retries,
    /// Waits for the provider forever.
    RetriesForever,
    /// Starts and stays busy forever.
    Hangs,
    /// Asks for permission and waits for the answer.
    Asks,
    /// Is accepted and never starts.
    NotTakenUp,
    /// Fails to start because its model is unknown.
    UnknownModel,
    /// Calls the same tool again and again.
    Repeats,
}

impl TurnKind {
    /// Every kind, in the order of the weights in [`crate::explore::scenario::Odds::turns`].
    pub const ALL: [TurnKind; 13] = [
        Self::Answer,
        Self::Tools,
        Self::Long,
        Self::Silent,
        Self::Todos,
        Self::Fails,
        Self::Retries,
        Self::RetriesForever,
        Self::Hangs,
        Self::Asks,
        Self::NotTakenUp,
        Self::UnknownModel,
        Self::Repeats,
    ];
}

/// A step of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnStep {
    Busy,
    Begin,
    Tool(Phase),
    EndStep,
    Text,
    Todos(usize),
    Ask,
    Retry(u32),
    Resume,
    Fail,
    UnknownModel,
    Hang,
    Finish,
    Idle,
}

/// The phase of a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running,
    Completed,
}

/// A turn in progress.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) number: u32,
    pub(super) kind: TurnKind,
    pub(super) started_at: i64,
    pub(super) steps: VecDeque<TurnStep>,
    /// A prompt has arrived that no step has read yet.
    pub(super) has_unanswered_prompt: bool,
    /// The attempt for which the provider makes the turn wait.
    pub(super) retry: Option<u32>,
    /// The id of the open question.
    pub(super) ask: Option<String>,
    pub(super) tools: u32,
    /// True until the first step.
    pub(super) before_first_step: bool,
}

impl ServerState {
    /// Starts a turn for the newest prompt.
    pub(super) fn start_turn(&mut self, id: &SessionId) {
        let now = self.now();
        let odds = self.odds.turns.clone();
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        session.turns += 1;
        let number = session.turns;
        let index = self
            .rng
            .decide(format!("turn {id} {number} kind"), 0, |rng| {
                i64::try_from(rng.weighted_index(&odds)).unwrap_or(0)
            });
        let kind = usize::try_from(index)
            .ok()
            .and_then(|index| TurnKind::ALL.get(index))
            .copied()
            .unwrap_or(TurnKind::Answer);
        let lost = self.has_lost_model(id);
        let kind = if lost { TurnKind::UnknownModel } else { kind };
        if kind == TurnKind::NotTakenUp {
            return self.record_fact(id, Fact::NotTakenUp);
        }
        let steps = self.steps(id, number, kind);
        if let Some(session) = self.sessions.get_mut(id) {
            session.turn = Some(Turn {
                number,
                kind,
                started_at: now,
                steps,
                has_unanswered_prompt: false,
                retry: None,
                ask: None,
                tools: 0,
                before_first_step: true,
            });
        }
        self.record_fact(id, Fact::Busy);
        let wait = self.step_delay(id, number, 5, 80);
        self.schedule(
            wait,
            TimedEvent::TurnStep {
                session: id.clone(),
                turn: number,
            },
        );
    }

    fn steps(&mut self, id: &SessionId, number: u32, kind: TurnKind) -> VecDeque<TurnStep> {
        const TOOL: [TurnStep; 5] = [
            TurnStep::Begin,
            TurnStep::Tool(Phase::Pending),
            TurnStep::Tool(Phase::Running),
            TurnStep::Tool(Phase::Completed),
            TurnStep::EndStep,
        ];
        let answer = [TurnStep::Begin, TurnStep::Text, TurnStep::Finish];
        let count = |state: &mut ServerState, default: i64, most: i64| {
            state
                .rng
                .decide(format!("turn {id} {number} steps"), default, |rng| {
                    rng.between(1, most)
                })
        };
        let mut steps = VecDeque::from([TurnStep::Busy]);
        match kind {
            TurnKind::Answer | TurnKind::NotTakenUp => steps.extend(answer),
            TurnKind::Tools | TurnKind::Long => {
                for _ in 0..count(self, 1, 3) {
                    steps.extend(TOOL);
                }
                steps.extend(answer);
            }
            TurnKind::Silent => steps.extend([TurnStep::Begin, TurnStep::Finish]),
            TurnKind::Todos => steps.extend([
                TurnStep::Begin,
                TurnStep::Todos(2),
                TurnStep::Text,
                TurnStep::Finish,
            ]),
            TurnKind::Fails => steps.extend([TurnStep::Begin, TurnStep::Fail]),
            TurnKind::UnknownModel => steps.extend([TurnStep::UnknownModel]),
            TurnKind::Retries => {
                steps.push_back(TurnStep::Begin);
                steps.extend(
                    (1..=count(self, 1, 4))
                        .map(|attempt| TurnStep::Retry(u32::try_from(attempt).unwrap_or(1))),
                );
                steps.extend([TurnStep::Resume, TurnStep::Text, TurnStep::Finish]);
            }
            TurnKind::RetriesForever => {
                steps.push_back(TurnStep::Begin);
                steps.extend((1..200).map(TurnStep::Retry));
            }
            TurnKind::Hangs => steps.extend([TurnStep::Begin, TurnStep::Hang]),
            TurnKind::Asks => steps.extend([
                TurnStep::Begin,
                TurnStep::Tool(Phase::Pending),
                TurnStep::Ask,
                TurnStep::Tool(Phase::Completed),
                TurnStep::EndStep,
                TurnStep::Begin,
                TurnStep::Text,
                TurnStep::Finish,
            ]),
            TurnKind::Repeats => {
                for _ in 0..30 {
                    steps.extend(TOOL);
                }
                steps.extend(answer);
            }
        }
        steps.push_back(TurnStep::Idle);
        steps
    }

    fn step_delay(&mut self, id: &SessionId, number: u32, low: i64, high: i64) -> i64 {
        let left = self
            .sessions
            .get(id)
            .and_then(|session| session.turn.as_ref())
            .map_or(0, |turn| turn.steps.len());
        self.rng
            .decide(format!("turn {id} {number} step -{left}"), low, |rng| {
                // Mostly the minimum, so that few decisions have to be recorded.
                if rng.chance(500) {
                    low
                } else {
                    rng.between(low, high)
                }
            })
    }

    /// Runs the next step of a turn, if it is still the present turn.
    pub(super) fn run_step(&mut self, id: &SessionId, number: u32) {
        let turn = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.turn.as_mut());
        let Some(turn) = turn.filter(|turn| turn.number == number) else {
            return;
        };
        let Some(step) = turn.steps.pop_front() else {
            return;
        };
        let (slow, same_input) = (turn.kind == TurnKind::Long, turn.kind == TurnKind::Repeats);
        self.apply_step(id, step, same_input);
        let (low, high) = match step {
            TurnStep::Idle
            | TurnStep::Ask
            | TurnStep::Hang
            | TurnStep::Fail
            | TurnStep::UnknownModel => return,
            TurnStep::Finish => (1, 20),
            TurnStep::Retry(_) => (2000, 10_000),
            TurnStep::Tool(Phase::Running) | TurnStep::Begin if slow => (2000, 20_000),
            TurnStep::Tool(_) if same_input => (10, 20),
            TurnStep::Tool(Phase::Running) | TurnStep::Begin => (30, 3000),
            _ => (5, 100),
        };
        let wait = self.step_delay(id, number, low, high);
        self.schedule(
            wait,
            TimedEvent::TurnStep {
                session: id.clone(),
                turn: number,
            },
        );
    }
}
