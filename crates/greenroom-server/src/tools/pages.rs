//! Pages the messages of a task for an agent: as many whole messages as fit, with a hint how to continue. Pure.

use greenroom::domain::output::{MAX_RESULT, OutputMessage, RESULT_CUT};

use crate::cli::show;

/// opencode moves tool output over 50 KiB or 2,000 lines into a file, together with the continuation hint. A page with
/// its header stays below both limits.
const MAX_BYTES: usize = 40_000;
const MAX_LINES: usize = 1800;

/// The size of a text on a page.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    characters: usize,
    bytes: usize,
    lines: usize,
}

impl Extent {
    fn add_char(self, character: char) -> Self {
        Self {
            characters: self.characters + 1,
            bytes: self.bytes + character.len_utf8(),
            lines: self.lines + usize::from(character == '\n'),
        }
    }

    fn page_share(self) -> usize {
        let bytes = (self.bytes * MAX_RESULT).div_ceil(MAX_BYTES);
        let lines = (self.lines * MAX_RESULT).div_ceil(MAX_LINES);
        self.characters.max(bytes).max(lines)
    }
}

fn page_share(text: &str) -> usize {
    text.chars()
        .fold(Extent::default(), Extent::add_char)
        .page_share()
}

/// Returns the longest prefix that fits the budget.
fn fitting_prefix(text: &str, budget: usize) -> &str {
    let mut extent = Extent::default();
    for (at, character) in text.char_indices() {
        extent = extent.add_char(character);
        if extent.page_share() > budget {
            return &text[..at];
        }
    }
    text
}

/// Returns the messages that fit on a page of [`MAX_RESULT`] characters, with a hint how to read the others. `from_end`
/// drops the oldest messages, otherwise the newest are dropped.
pub fn page(messages: &[OutputMessage], has_more: bool, from_end: bool) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut budget = MAX_RESULT;
    let mut add = |message: &OutputMessage| {
        let text = show::message(message);
        let length = page_share(&text);
        if length > budget && !shown.is_empty() {
            return false;
        }
        shown.push(if length > budget {
            let shown = fitting_prefix(&text, budget);
            format!("{shown}\n… (cut at {} characters)\n", shown.chars().count())
        } else {
            text
        });
        budget = budget.saturating_sub(length + 1);
        true
    };
    let fitting = if from_end {
        messages
            .iter()
            .rev()
            .take_while(|message| add(message))
            .count()
    } else {
        messages.iter().take_while(|message| add(message)).count()
    };
    if from_end {
        shown.reverse();
    }
    let newest = if from_end {
        messages.last()
    } else {
        messages[..fitting].last()
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

/// Returns the last answer of a task from a character offset on. A cut answer has a continuation hint.
pub fn answer(result: &str, task: &str, offset: usize) -> String {
    let (full_text, cut_before) = match result.strip_suffix(RESULT_CUT) {
        Some(shown) => (shown, true),
        None => (result, false),
    };
    let shown = fitting_prefix(full_text, MAX_RESULT);
    if cut_before || shown.len() < full_text.len() {
        let next = offset.saturating_add(shown.chars().count());
        return format!(
            "{shown}\n… (cut: read on with background_output(task_id=\"{task}\", offset={next}))"
        );
    }
    if !result.trim().is_empty() {
        result.to_owned()
    } else if offset > 0 {
        "(the answer ends before that: leave offset out)".to_owned()
    } else {
        "(it ended without an answer in words)".to_owned()
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
    fn short_messages_fit_on_one_page() {
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
    fn long_messages_are_paged() {
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
    fn pages_are_bounded() {
        for lengths in [&[90_000][..], &[31_980, 5], &[500; 26], &[16_000; 4]] {
            for from_end in [true, false] {
                let text = page(&messages(lengths), true, from_end);
                assert!(text.chars().count() < MAX_RESULT + 200, "{lengths:?}");
                assert!(text.contains("aaaaa") || from_end);
            }
        }
    }

    #[test]
    fn cut_answer_has_a_continuation_hint() {
        let cut = answer(&format!("long{RESULT_CUT}"), "bg_1", 31_996);
        assert_eq!(
            cut,
            "long\n… (cut: read on with background_output(task_id=\"bg_1\", offset=32000))"
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
    #[test]
    fn pages_fit_host_limits_and_are_complete() {
        for letters in ["a", "é", "漢", "😀", "漢字\n", "a\n", "\n"] {
            let full_text = letters.repeat(70_000);
            let (mut read, mut pages) = (String::new(), 0);
            while read.len() < full_text.len() {
                let offset = read.chars().count();
                // The format of the domain.
                let rest: String = full_text[read.len()..].chars().take(MAX_RESULT).collect();
                let is_cut = read.len() + rest.len() < full_text.len();
                let result = rest + if is_cut { RESULT_CUT } else { "" };
                let page = answer(&result, "bg_1", offset);
                assert!(
                    page.len() < 41_000 && page.lines().count() < 1900,
                    "{letters:?}"
                );
                let (shown, hint) = page.split_once("\n… (cut").unwrap_or((&page, ""));
                if letters.trim().is_empty() {
                    break;
                }
                read.push_str(shown);
                pages += 1;
                let next = format!("offset={})", read.chars().count());
                assert!(hint.is_empty() || hint.contains(&next), "{hint}");
                assert!(pages < 200, "it goes on");
            }
        }
    }

    #[test]
    fn bytes_and_lines_limit_a_page() {
        let mut long = messages(&[10, 10]);
        for text in ["漢".repeat(10_000), "a\n".repeat(1500)] {
            (long[0].text, long[1].text) = (text.clone(), text);
            let first = page(&long, false, false);
            assert!(first.len() < 41_000 && first.lines().count() < 1900);
            assert!(first.ends_with("go on with since_message_id=\"msg_0\")"));
        }
        long[0].text = "漢".repeat(32_000);
        let cut = page(&long, false, false);
        assert!(
            cut.len() < 41_000 && cut.contains("cut at 13"),
            "{}",
            cut.len()
        );
    }
}
