//! How a call goes: as it should, or wrong in one of the ways a call can.

/// How a call goes. The numbers stand in minimised scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Fine = 0,
    Unreachable = 1,
    Refused = 2,
    CutBefore = 3,
    CutAfter = 4,
    Hangs = 5,
    HangsAfter = 6,
}

impl Fate {
    pub(super) const ALL: [Fate; 7] = [
        Fate::Fine,
        Fate::Unreachable,
        Fate::Refused,
        Fate::CutBefore,
        Fate::CutAfter,
        Fate::Hangs,
        Fate::HangsAfter,
    ];
}
