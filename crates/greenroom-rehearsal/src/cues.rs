//! What a script may know of its conversation: the tasks that tools have named in it, and that a part of it is for the
//! moment when the agent is woken. [`crate::conversation`] puts both into the prompt that is played.

/// Begins a part of a prompt that is played when a background-task notice comes: the first such part for the first one.
const WOKEN: &str = "[[woken]]";
/// How an id of a task begins, and how many hex digits follow.
const ID: &str = "bg_";
const DIGITS: usize = 8;
/// Stands for the id of the first, second, … task that a tool has named.
const TASK: &str = "$task";
/// More tasks than that are not numbered.
const NUMBERED: usize = 99;

/// What a prompt plays when its agent is woken for that time, if it says; 0 is what it plays at once.
pub fn part(prompt: &str, woken: usize) -> Option<&str> {
    prompt.split(WOKEN).nth(woken)
}

/// The tasks named in these texts, each once, in the order of their first mention.
pub fn tasks<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
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

/// The script with `$task1`, `$task2`, … replaced by the ids; one that is not known stays as it is.
pub fn with_tasks(script: &str, tasks: &[&str]) -> String {
    let mut text = String::with_capacity(script.len());
    let mut rest = script;
    while let Some((before, after)) = rest.split_once(TASK) {
        text.push_str(before);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = after.split_at(digits);
        let nth: Option<usize> = number.parse().ok();
        match nth.and_then(|nth| tasks.get(nth.checked_sub(1)?)) {
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
        let found = tasks([
            "Launched bg_0000000a.",
            "bg_0000000b, bg_0000000a; bg_short and bg_nothexxx",
            "bg_é",
        ]);
        assert_eq!(found, ["bg_0000000a", "bg_0000000b"]);
    }

    #[test]
    fn a_script_names_tasks_by_their_numbers() {
        let ids: Vec<String> = (1..=12).map(|nth| format!("bg_{nth:08}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        assert_eq!(
            with_tasks("$task1 $task12 $task13", &ids),
            "bg_00000001 bg_00000012 $task13"
        );
        assert_eq!(
            with_tasks("$task1 $task0 $task", &[]),
            "$task1 $task0 $task"
        );
    }

    #[test]
    fn what_follows_woken_is_for_later() {
        let parts = |prompt| [0, 1, 2].map(|woken| part(prompt, woken));
        assert_eq!(parts("a [[woken]] b"), [Some("a "), Some(" b"), None]);
        assert_eq!(
            parts("a[[woken]][[woken]]c"),
            [Some("a"), Some(""), Some("c")]
        );
        assert_eq!(parts("a"), [Some("a"), None, None]);
    }
}
