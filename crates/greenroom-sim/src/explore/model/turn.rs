//! What a session does with a prompt, beat by beat, as the real server was seen to do it: busy, steps of one assistant message
//! each, tools, text, idle (twice at times), and events that follow idle. What kind of turn it is falls by name.

use std::collections::VecDeque;

use greenroom::domain::ids::SessionId;

use super::state::{Due, World};
use crate::explore::log::Fact;

/// What a session does with a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnKind {
    /// Says something and is done.
    Answer,
    /// Calls tools first.
    Tools,
    /// The same, taking its time.
    Long,
    /// Finishes without a word.
    Silent,
    /// Leaves todos open.
    Todos,
    /// The provider refuses it.
    Fails,
    /// The provider makes it wait, then it goes on.
    Retries,
    /// The provider makes it wait for ever.
    RetriesForEver,
    /// Begins and then does nothing any more, busy for ever.
    Hangs,
    /// Asks for permission or has a question, and waits.
    Asks,
    /// Is accepted and never starts.
    NotTakenUp,
    /// Fails to start, as with an unknown model.
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
        Self::RetriesForEver,
        Self::Hangs,
        Self::Asks,
        Self::NotTakenUp,
        Self::UnknownModel,
        Self::Repeats,
    ];
}

/// One thing a turn does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
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
    NoModel,
    Hang,
    Finish,
    Idle,
}

/// How far a tool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running,
    Completed,
}

/// A turn under way.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) number: u32,
    pub(super) kind: TurnKind,
    pub(super) began: i64,
    pub(super) beats: VecDeque<Beat>,
    /// A prompt has come that no step has seen yet.
    pub(super) unanswered: bool,
    /// The attempt the provider makes it wait for.
    pub(super) retry: Option<u32>,
    /// What it waits for somebody to answer.
    pub(super) ask: Option<String>,
    pub(super) tools: u32,
    /// Nothing of it is to be seen yet.
    pub(super) unseen: bool,
}

impl World {
    /// A turn begins for what was prompted.
    pub(super) fn begin_turn(&mut self, id: &SessionId) {
        let now = self.now();
        let odds = self.odds.turns.clone();
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        session.turns += 1;
        let number = session.turns;
        let place = self
            .dice
            .decide(format!("turn {id} {number} kind"), 0, |source| {
                i64::try_from(source.weighed(&odds)).unwrap_or(0)
            });
        let kind = usize::try_from(place)
            .ok()
            .and_then(|place| TurnKind::ALL.get(place))
            .copied()
            .unwrap_or(TurnKind::Answer);
        if kind == TurnKind::NotTakenUp {
            return self.truth(id, Fact::NotTakenUp);
        }
        let beats = self.beats(id, number, kind);
        if let Some(session) = self.sessions.get_mut(id) {
            session.turn = Some(Turn {
                number,
                kind,
                began: now,
                beats,
                unanswered: false,
                retry: None,
                ask: None,
                tools: 0,
                unseen: true,
            });
        }
        self.truth(id, Fact::Busy);
        let wait = self.pause(id, number, 5, 80);
        self.schedule(
            wait,
            Due::Beat {
                session: id.clone(),
                turn: number,
            },
        );
    }

    fn beats(&mut self, id: &SessionId, number: u32, kind: TurnKind) -> VecDeque<Beat> {
        const TOOL: [Beat; 5] = [
            Beat::Begin,
            Beat::Tool(Phase::Pending),
            Beat::Tool(Phase::Running),
            Beat::Tool(Phase::Completed),
            Beat::EndStep,
        ];
        let answer = [Beat::Begin, Beat::Text, Beat::Finish];
        let count = |world: &mut World, usual: i64, most: i64| {
            world
                .dice
                .decide(format!("turn {id} {number} steps"), usual, |source| {
                    source.between(1, most)
                })
        };
        let mut beats = VecDeque::from([Beat::Busy]);
        match kind {
            TurnKind::Answer | TurnKind::NotTakenUp => beats.extend(answer),
            TurnKind::Tools | TurnKind::Long => {
                for _ in 0..count(self, 1, 3) {
                    beats.extend(TOOL);
                }
                beats.extend(answer);
            }
            TurnKind::Silent => beats.extend([Beat::Begin, Beat::Finish]),
            TurnKind::Todos => {
                beats.extend([Beat::Begin, Beat::Todos(2), Beat::Text, Beat::Finish])
            }
            TurnKind::Fails => beats.extend([Beat::Begin, Beat::Fail]),
            TurnKind::UnknownModel => beats.extend([Beat::NoModel]),
            TurnKind::Retries => {
                beats.push_back(Beat::Begin);
                beats.extend(
                    (1..=count(self, 1, 4))
                        .map(|attempt| Beat::Retry(u32::try_from(attempt).unwrap_or(1))),
                );
                beats.extend([Beat::Resume, Beat::Text, Beat::Finish]);
            }
            TurnKind::RetriesForEver => {
                beats.push_back(Beat::Begin);
                beats.extend((1..200).map(Beat::Retry));
            }
            TurnKind::Hangs => beats.extend([Beat::Begin, Beat::Hang]),
            TurnKind::Asks => beats.extend([
                Beat::Begin,
                Beat::Tool(Phase::Pending),
                Beat::Ask,
                Beat::Tool(Phase::Completed),
                Beat::EndStep,
                Beat::Begin,
                Beat::Text,
                Beat::Finish,
            ]),
            TurnKind::Repeats => {
                for _ in 0..30 {
                    beats.extend(TOOL);
                }
                beats.extend(answer);
            }
        }
        beats.push_back(Beat::Idle);
        beats
    }

    fn pause(&mut self, id: &SessionId, number: u32, low: i64, high: i64) -> i64 {
        let left = self
            .sessions
            .get(id)
            .and_then(|session| session.turn.as_ref())
            .map_or(0, |turn| turn.beats.len());
        self.dice
            .decide(format!("turn {id} {number} beat -{left}"), low, |source| {
                // Mostly the shortest, so that few decisions have to be written down.
                if source.chance(500) {
                    low
                } else {
                    source.between(low, high)
                }
            })
    }

    /// The next beat of a turn, if it is still that turn.
    pub(super) fn beat(&mut self, id: &SessionId, number: u32) {
        let turn = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.turn.as_mut());
        let Some(turn) = turn.filter(|turn| turn.number == number) else {
            return;
        };
        let Some(beat) = turn.beats.pop_front() else {
            return;
        };
        let (slow, again) = (turn.kind == TurnKind::Long, turn.kind == TurnKind::Repeats);
        self.play(id, beat, again);
        let (low, high) = match beat {
            Beat::Idle | Beat::Ask | Beat::Hang | Beat::Fail | Beat::NoModel => return,
            Beat::Finish => (1, 20),
            Beat::Retry(_) => (2000, 10_000),
            Beat::Tool(Phase::Running) | Beat::Begin if slow => (2000, 20_000),
            Beat::Tool(_) if again => (10, 20),
            Beat::Tool(Phase::Running) | Beat::Begin => (30, 3000),
            _ => (5, 100),
        };
        let wait = self.pause(id, number, low, high);
        self.schedule(
            wait,
            Due::Beat {
                session: id.clone(),
                turn: number,
            },
        );
    }
}
