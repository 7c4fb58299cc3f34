//! Names that decisions had in earlier releases. Recorded scenarios may use them, and the random source of a decision is
//! still derived from the original name: a seed keeps the scenario that it has always had.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// A changed part of a name.
struct Renamed {
    /// The beginning of the names in which the part was changed, in its new form.
    prefix: &'static str,
    old: &'static str,
    new: &'static str,
}

/// Every change, oldest first.
const RENAMED: [Renamed; 4] = [
    Renamed {
        prefix: "failpoint ",
        old: "sabotage ",
        new: "failpoint ",
    },
    Renamed {
        prefix: "call ",
        old: " fate",
        new: " outcome",
    },
    Renamed {
        prefix: "call ",
        old: " ambush",
        new: " race",
    },
    Renamed {
        prefix: "turn ",
        old: " beat -",
        new: " step -",
    },
];

/// Returns the name that a decision has now.
fn current(name: &str) -> String {
    RENAMED.iter().fold(name.to_owned(), |name, renamed| {
        let replaced = replace_last(&name, renamed.old, renamed.new);
        replaced
            .filter(|replaced| replaced.starts_with(renamed.prefix))
            .unwrap_or(name)
    })
}

/// Returns the name that a decision had first.
pub(super) fn original(name: &str) -> String {
    RENAMED.iter().rev().fold(name.to_owned(), |name, renamed| {
        name.starts_with(renamed.prefix)
            .then(|| replace_last(&name, renamed.new, renamed.old))
            .flatten()
            .unwrap_or(name)
    })
}

fn replace_last(text: &str, from: &str, to: &str) -> Option<String> {
    let start = text.rfind(from)?;
    let (before, after) = (&text[..start], &text[start + from.len()..]);
    Some(format!("{before}{to}{after}"))
}

/// Reads recorded decisions under their old or their present names.
pub(super) fn deserialize_decisions<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, i64>>, D::Error> {
    let decisions = Option::<BTreeMap<String, i64>>::deserialize(deserializer)?;
    Ok(decisions.map(|decisions| {
        let renamed = decisions.into_iter();
        renamed
            .map(|(name, value)| (current(&name), value))
            .collect()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_decisions_map_both_ways() {
        for (old, new) in [
            (
                "sabotage registry: Granted 7",
                "failpoint registry: Granted 7",
            ),
            ("call prompt ses_t3 2 fate", "call prompt ses_t3 2 outcome"),
            ("call abort ses_t3 1 ambush", "call abort ses_t3 1 race"),
            ("turn ses_t3 1 beat -4", "turn ses_t3 1 step -4"),
        ] {
            assert_eq!(current(old), new);
            assert_eq!(current(new), new);
            assert_eq!(original(new), old);
        }
    }

    #[test]
    fn other_decisions_keep_names() {
        for name in [
            "turn ses_t3 1 steps",
            "turn ses_t3 1 kind",
            "call get ses_p1 1 takes",
            "crash append 31",
        ] {
            assert_eq!(current(name), name);
            assert_eq!(original(name), name);
        }
    }
}
