//! Messages of a task as an agent reads them: as many whole ones as fit, and how to go on. Pure.

use greenroom::domain::output::{MAX_RESULT, OutputMessage, RESULT_CUT};

use crate::cli::show;

/// Hosts count otherwise: opencode moves what a tool says beyond 50 KiB or 2,000 lines into a file, with it the hint how to
/// read on, and of one long line shows nothing. With what stands above it a page is below both.
const MOST_BYTES: usize = 40_000;
const MOST_LINES: usize = 1800;

/// How much of a page a text takes, of [`MAX_RESULT`]: its characters, unless its bytes or its lines fill it sooner.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    characters: usize,
    bytes: usize,
    lines: usize,
}

impl Extent {
    fn and(self, letter: char) -> Self {
        Self {
            characters: self.characters + 1,
            bytes: self.bytes + letter.len_utf8(),
            lines: self.lines + usize::from(letter == '\n'),
        }
    }

    fn size(self) -> usize {
        let bytes = (self.bytes * MAX_RESULT).div_ceil(MOST_BYTES);
        let lines = (self.lines * MAX_RESULT).div_ceil(MOST_LINES);
        self.characters.max(bytes).max(lines)
    }
}

fn size(text: &str) -> usize {
    text.chars().fold(Extent::default(), Extent::and).size()
}

/// As much of the beginning as there is room for.
fn fitting(text: &str, room: usize) -> &str {
    let mut extent = Extent::default();
    for (at, letter) in text.char_indices() {
        extent = extent.and(letter);
        if extent.size() > room {
            return &text[..at];
        }
    }
    text
}

/// The messages, as many of them as fit on a page of [`MAX_RESULT`] characters, and how to read what is missing. With
/// `from_end` what does not fit is left out at the beginning, else at the end.
pub fn page(messages: &[OutputMessage], has_more: bool, from_end: bool) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut room = MAX_RESULT;
    let mut add = |message: &OutputMessage| {
        let text = show::message(message);
        let length = size(&text);
        if length > room && !shown.is_empty() {
            return false;
        }
        shown.push(match length > room {
            true => {
                let shown = fitting(&text, room);
                format!("{shown}\n… (cut at {} characters)\n", shown.chars().count())
            }
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
    let (whole, cut_before) = match result.strip_suffix(RESULT_CUT) {
        Some(shown) => (shown, true),
        None => (result, false),
    };
    let shown = fitting(whole, MAX_RESULT);
    if cut_before || shown.len() < whole.len() {
        let next = offset.saturating_add(shown.chars().count());
        return format!(
            "{shown}\n… (cut: read on with background_output(task_id=\"{task}\", offset={next}))"
        );
    }
    match result.trim().is_empty() {
        false => result.to_owned(),
        true if offset > 0 => "(the answer ends before that: leave offset out)".to_owned(),
        true => "(it ended without an answer in words)".to_owned(),
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
    fn no_page_is_more_than_a_host_shows_and_pages_make_up_the_whole() {
        for letters in ["a", "é", "漢", "😀", "漢字\n", "a\n", "\n"] {
            let whole = letters.repeat(70_000);
            let (mut read, mut pages) = (String::new(), 0);
            while read.len() < whole.len() {
                let offset = read.chars().count();
                // As the domain gives it.
                let rest: String = whole[read.len()..].chars().take(MAX_RESULT).collect();
                let is_cut = read.len() + rest.len() < whole.len();
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
    fn messages_of_many_bytes_or_lines_fill_a_page_sooner() {
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
