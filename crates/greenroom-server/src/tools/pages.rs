//! Messages of a task as an agent reads them: as many whole ones as fit, and how to go on. Pure.

use greenroom::domain::output::{MAX_RESULT, OutputMessage, RESULT_CUT};
use greenroom::domain::task::cut;

use crate::cli::show;

/// The messages, at most [`MAX_RESULT`] characters of them, and how to read what is missing. With `from_end` what does
/// not fit is left out at the beginning, else at the end.
pub fn page(messages: &[OutputMessage], has_more: bool, from_end: bool) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut room = MAX_RESULT;
    let mut add = |message: &OutputMessage| {
        let text = show::message(message);
        let length = text.chars().count();
        if length > room && !shown.is_empty() {
            return false;
        }
        shown.push(match length > room {
            true => format!("{}\n… (cut at {MAX_RESULT} characters)\n", cut(&text, room)),
            false => text,
        });
        room = room.saturating_sub(length + 1);
        true
    };
    let fitting = match from_end {
        true => messages
            .iter()
            .rev()
            .take_while(|message| add(message))
            .count(),
        false => messages.iter().take_while(|message| add(message)).count(),
    };
    if from_end {
        shown.reverse();
    }
    let newest = match from_end {
        true => messages.last(),
        false => messages[..fitting].last(),
    };
    let newest = newest.and_then(|message| message.id.as_deref());
    let missing = has_more || fitting < messages.len();
    let hint = match (newest, missing, from_end) {
        (_, true, true) => {
            "(there are older messages: full_session=true without from_end begins with the oldest)"
                .to_owned()
        }
        (Some(id), true, false) => format!("(there is more: go on with since_message_id=\"{id}\")"),
        (None, true, false) => {
            "(there is more: read it from its end with from_end=true)".to_owned()
        }
        (Some(id), false, _) => {
            format!("(that is all; since_message_id=\"{id}\" shows what comes later)")
        }
        (None, false, _) if messages.is_empty() => "(no messages)".to_owned(),
        (None, false, _) => "(that is all)".to_owned(),
    };
    shown.push(hint);
    shown.join("\n")
}

/// The text of the last answer of a task, from so many characters on; one that was cut says how to read on.
pub fn answer(result: &str, task: &str, offset: usize) -> String {
    match result.strip_suffix(RESULT_CUT) {
        Some(shown) => format!(
            "{shown}\n… (cut: read on with background_output(task_id=\"{task}\", offset={}))",
            offset.saturating_add(MAX_RESULT)
        ),
        None if !result.trim().is_empty() => result.to_owned(),
        None if offset > 0 => "(the answer ends before that: leave offset out)".to_owned(),
        None => "(it ended without an answer in words)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(lengths: &[usize]) -> Vec<OutputMessage> {
        let texts = lengths.iter().enumerate();
        texts
            .map(|(at, length)| OutputMessage {
                id: Some(format!("msg_{at}")),
                role: "assistant".to_owned(),
                agent: None,
                text: char::from(b'a' + u8::try_from(at).unwrap())
                    .to_string()
                    .repeat(*length),
                thinking: None,
                tools: Vec::new(),
            })
            .collect()
    }

    #[test]
    fn what_fits_is_whole() {
        insta::assert_snapshot!(page(&messages(&[3, 4]), false, false), @r#"
        [assistant]
        aaa

        [assistant]
        bbbb

        (that is all; since_message_id="msg_1" shows what comes later)
        "#);
        assert_eq!(page(&[], false, false), "(no messages)");
    }

    #[test]
    fn what_does_not_fit_is_on_the_next_page() {
        let long = messages(&[20_000, 11_000, 20_000]);
        let first = page(&long, false, false);
        assert!(first.contains("bbb") && !first.contains("ccc"));
        assert!(first.ends_with("(there is more: go on with since_message_id=\"msg_1\")"));
        let newest = page(&long, false, true);
        assert!(!newest.contains("aaa") && newest.contains("bbb") && newest.contains("ccc"));
        assert!(newest.contains("there are older messages"), "{newest}");
        assert!(newest.find("bbb") < newest.find("ccc"), "in their order");
    }

    #[test]
    fn nothing_is_longer_than_a_page() {
        for lengths in [&[90_000][..], &[31_980, 5], &[500; 26], &[16_000; 4]] {
            for from_end in [true, false] {
                let text = page(&messages(lengths), true, from_end);
                assert!(text.chars().count() < MAX_RESULT + 200, "{lengths:?}");
                assert!(text.contains("aaaaa") || from_end);
            }
        }
    }

    #[test]
    fn a_cut_answer_says_how_to_see_more() {
        let cut = answer(&format!("long{RESULT_CUT}"), "bg_1", 32_000);
        assert_eq!(
            cut,
            "long\n… (cut: read on with background_output(task_id=\"bg_1\", offset=64000))"
        );
        assert_eq!(answer("short", "bg_1", 0), "short");
        assert_eq!(
            answer(" \n", "bg_1", 0),
            "(it ended without an answer in words)"
        );
        assert_eq!(
            answer("", "bg_1", 5),
            "(the answer ends before that: leave offset out)"
        );
    }
}
