//! How a call goes: as it should, or wrong in one of the ways a call can.

/// How a call goes. The numbers stand in minimised scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallOutcome {
    Succeeds = 0,
    Unreachable = 1,
    Refused = 2,
    CutBefore = 3,
    CutAfter = 4,
    Hangs = 5,
    HangsAfter = 6,
}

impl CallOutcome {
    pub(super) const ALL: [CallOutcome; 7] = [
        CallOutcome::Succeeds,
        CallOutcome::Unreachable,
        CallOutcome::Refused,
        CallOutcome::CutBefore,
        CallOutcome::CutAfter,
        CallOutcome::Hangs,
        CallOutcome::HangsAfter,
    ];
}
