//! The words that the sources should lose, in one table: pronouns without a noun, verbs of speech for data, and the names
//! that a standard term has replaced. Neither this file nor the tests beside it are counted.
//!
//! A pattern of prose is a sequence of words that nothing but space stands between, in lower case: `a|b` is either word,
//! `_` is any word, and a last `.` is punctuation or the end of the text. A pattern of names is compared with the segments
//! of an identifier (`KeptTask` is `kept task`): a sequence of segments matches anywhere in it, `=Mark` matches that
//! identifier and no longer one, and `Kept*` matches a longer type that begins so. Code within prose (in backquotes, or written
//! as an identifier) is compared with the patterns of names.

/// Why a word is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A pronoun where a noun belongs.
    Pronoun,
    /// A verb of speech whose subject or object is data.
    Speech,
    /// A phrase with a plainer equivalent.
    Phrase,
    /// A former name or its metaphor.
    OldName,
}

impl Reason {
    /// Returns the name that a list shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pronoun => "pronoun",
            Self::Speech => "speech",
            Self::Phrase => "phrase",
            Self::OldName => "old name",
        }
    }
}

/// Patterns that share a reason.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Why they are counted.
    pub reason: Reason,
    /// The only crates whose sources are compared; empty for all.
    pub crates: &'static [&'static str],
    /// Patterns of documentation, other comments, and string literals.
    pub prose: &'static [&'static str],
    /// Patterns of identifiers.
    pub names: &'static [&'static str],
}

/// Phrases that are not counted although they contain a counted word.
pub const ORDINARY: &[&str] = &[
    "tells|told apart",
    "tells|told _ apart",
    "tells|told _ from",
];

/// Words that programs read, and the only crates in which they are; empty for all. A string literal may contain them, code in
/// prose may be one of them, and those of all crates may be an identifier.
pub const FROZEN: &[(&[&str], &[&str])] = &[
    // JSON.
    (&[], &["fate", "owed"]),
    // JSON of `greenroom doctor`.
    (&["greenroom-server"], &["says"]),
    // An agent in recorded scenarios.
    (&["greenroom-sim"], &["nobody"]),
    // Tables of the journal.
    (&["greenroom-sqlite"], &["ledger", "ledger_parent", "marks"]),
];

/// Names that other programs or recorded files contain: not counted if one is a whole string literal, or is in backquotes.
pub const QUOTED: &[&str] = &[
    // Events of opencode.
    "permission.asked",
    "question.asked",
    // Failpoints: recorded scenarios and the random source of each decision contain them.
    "notifier: ParentHappened",
    "registry: Debts",
    "registry: KeptDied",
    "registry: SessionHappened",
    "registry: TakeBack",
    "task: LetGo",
    "toaster: Shown",
    // An entry in the timelines of earlier releases.
    "telling the parent",
];

/// All that is counted.
pub const RULES: &[Rule] = &[
    Rule {
        reason: Reason::Pronoun,
        crates: &[],
        prose: &[
            "whoever|whomever|whosoever",
            "nobody|somebody|anybody|everybody",
            "nobody's|somebody's|anybody's|everybody's",
            // Before a noun it is the article ("the one owner"), which is fine.
            "the one|ones .",
            "the one|ones that|which|who|whose|whom|of|in|on|at|to|for|from|with|without|by|before|after|it|he|they|we|a|the",
            "the one|ones is|are|was|were|has|had|asked|given|named|meant|called|used|unused|last|most",
            "that|those of",
            "those who|whose",
            // A clause in place of a noun: "what is left", "what a task is".
            "what is|are|was|were",
            "what _ is|are|was|were",
            "what a|an|the|its|their|this|that|each _ is|are|was|were",
        ],
        names: &["whoever", "nobody|somebody|anybody|everybody"],
    },
    Rule {
        reason: Reason::Speech,
        crates: &[],
        prose: &[
            "put|puts to",
            "told|tells|untold|telling|teller",
            "said|says|unsaid|saying",
            "heard|hears|unheard|hearing",
            "spoken|speaks|unspoken",
            // To ask is what clients and agents do; to be asked is to be sent a request.
            "is|are|was|were|be|been|being asked",
            "asked",
        ],
        names: &[
            "told|tells|untold|telling|teller",
            "said|says|unsaid|saying",
            "heard|hears|unheard|hearing",
            "spoken|speaks|unspoken",
            "asked",
        ],
    },
    Rule {
        reason: Reason::Phrase,
        crates: &[],
        prose: &["for ever", "belong|belongs into"],
        names: &["for ever"],
    },
    Rule {
        reason: Reason::OldName,
        crates: &[],
        prose: &[
            "desk|desks",
            "survivor|survivors",
            "roster|rosters",
            "ear|ears",
            "sift|sifts|sifted|sieve",
            "happening|happenings",
            "halves",
            "let|lets go",
            "surroundings",
            "sabotage|sabotages|saboteur|saboteurs",
            "patience|impatience",
            "unshown",
            "census",
            "tally|tallies",
            "keeper|keepers",
            "outlives",
            "account|accounts",
            "ledger|ledgers",
            "debt|debts|owes|owed|owing",
            "fate|fates",
            "take|takes|taken|took|taking back",
            "dice",
            "deed|deeds",
            "leftover|leftovers",
            "temper|tempers",
            "ambush|ambushes|ambushed",
            "farewell|farewells",
            "house|houses|rooms",
            "poetry",
        ],
        names: &[
            "desk|desks",
            "survivor|survivors",
            "standing",
            "roster|rosters",
            "=Living",
            "=living",
            "=Place",
            "=Places",
            "=Age",
            "=Attention",
            "=attention",
            "ear|ears",
            "sift|sifts|sifted",
            "happening|happenings",
            "happened",
            "halves",
            "=Mark",
            "=mark",
            "=marks",
            "=Beginning",
            "=beginning",
            "=Go",
            "let go",
            "surroundings",
            "sabotage|sabotages|saboteur|saboteurs",
            "patience|impatience",
            "unshown",
            "census",
            "tally|tallies",
            "Kept*",
            "keeper|keepers",
            "outlives",
            "=Newest",
            "account|accounts",
            "ledger|ledgers",
            "posted",
            "=Fate",
            "fate|fates",
            "debt|debts|owes|owed|owing",
            "take|takes|taken|took back",
            "farewell|farewells",
            "=heads",
            "=Heads",
            "=ending",
            "=Ending",
            "dice",
            "deed|deeds",
            "leftover|leftovers",
            "temper|tempers",
            "ambush|ambushes|ambushed",
            "house|houses|rooms",
        ],
    },
    Rule {
        reason: Reason::OldName,
        crates: &["greenroom"],
        prose: &["shown", "story|stories"],
        names: &["shown", "story|stories", "=Step"],
    },
    Rule {
        reason: Reason::OldName,
        crates: &["greenroom", "greenroom-bridge"],
        prose: &[],
        names: &["=Line"],
    },
    Rule {
        reason: Reason::OldName,
        crates: &["greenroom-server"],
        prose: &[],
        names: &["=words", "=reach", "=orders", "unused"],
    },
    Rule {
        reason: Reason::OldName,
        crates: &["greenroom-sim"],
        prose: &[],
        names: &[
            "=power", "=Power", "=quiet", "=Quiet", "=machine", "=Machine",
        ],
    },
];
