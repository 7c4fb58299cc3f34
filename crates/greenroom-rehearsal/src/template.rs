//! Resolves the parts of a script that depend on the conversation: `$task1`, … and `[[woken]]`. Used by
//! [`crate::conversation`].

/// Begins the part of a prompt that is played at the next background-task notice.
const WOKEN: &str = "[[woken]]";
/// The prefix of a task id, and the number of hex digits after it.
const ID: &str = "bg_";
const DIGITS: usize = 8;
/// The prefix of a placeholder for the id of the first, second, … task that a tool has named.
const TASK: &str = "$task";
/// The greatest number of a placeholder; further tasks have none.
const NUMBERED: usize = 99;

/// Returns the part of a prompt that is played at the wake of that number, from 1; 0 is the part before any wake.
pub fn part(prompt: &str, wake: usize) -> Option<&str> {
    prompt.split(WOKEN).nth(wake)
}

/// Returns the ids of the tasks named in these texts, each once, in the order of their first mention.
pub fn task_ids<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for text in texts {
        for (at, _) in text.match_indices(ID) {
            let Some(id) = text.get(at..at + ID.len() + DIGITS) else {
                continue;
            };
            let is_id = id[ID.len()..]
                .bytes()
                .all(|digit| digit.is_ascii_hexdigit());
            if is_id && !found.contains(&id) && found.len() < NUMBERED {
                found.push(id);
            }
        }
    }
    found
}

/// Replaces `$task1`, `$task2`, … by the ids; a placeholder without an id stays as it is.
pub fn with_task_ids(script: &str, ids: &[&str]) -> String {
    let mut text = String::with_capacity(script.len());
    let mut rest = script;
    while let Some((before, after)) = rest.split_once(TASK) {
        text.push_str(before);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = after.split_at(digits);
        let nth: Option<usize> = number.parse().ok();
        match nth.and_then(|nth| ids.get(nth.checked_sub(1)?)) {
            Some(id) => text.push_str(id),
            None => {
                text.push_str(TASK);
                text.push_str(number);
            }
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_numbered_by_their_first_mention() {
        let found = task_ids([
            "Launched bg_0000000a.",
            "bg_0000000b, bg_0000000a; bg_short and bg_nothexxx",
            "bg_é",
        ]);
        assert_eq!(found, ["bg_0000000a", "bg_0000000b"]);
    }

    #[test]
    fn placeholders_are_replaced_by_task_ids() {
        let ids: Vec<String> = (1..=12).map(|nth| format!("bg_{nth:08}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        assert_eq!(
            with_task_ids("$task1 $task12 $task13", &ids),
            "bg_00000001 bg_00000012 $task13"
        );
        assert_eq!(
            with_task_ids("$task1 $task0 $task", &[]),
            "$task1 $task0 $task"
        );
    }

    #[test]
    fn woken_separates_parts() {
        let parts = |prompt| [0, 1, 2].map(|wake| part(prompt, wake));
        assert_eq!(parts("a [[woken]] b"), [Some("a "), Some(" b"), None]);
        assert_eq!(
            parts("a[[woken]][[woken]]c"),
            [Some("a"), Some(""), Some("c")]
        );
        assert_eq!(parts("a"), [Some("a"), None, None]);
    }
}
