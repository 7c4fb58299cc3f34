//! The classification: what is read as which category, and which words match.

use super::find::{find, segments};
use super::limits::{self, Counts};
use super::source::{Category, passages};

/// Returns the words found in a source of a crate, as `category line word`.
fn found_in(crate_name: &str, source: &str) -> Vec<String> {
    let mut all = Vec::new();
    for passage in passages(source) {
        for found in find(crate_name, &passage) {
            all.push(format!(
                "{} {} {}",
                passage.category.name(),
                found.line,
                found.word
            ));
        }
    }
    all
}

fn found(source: &str) -> Vec<String> {
    found_in("any", source)
}

#[test]
fn each_category_is_recognised() {
    let source = r##"
//! Nobody reads this.
/// Whoever reads that.
fn somebody() {
    // Everybody skips this.
    let text = "anybody";
    let raw = r#"nobody "quoted""#;
    /* somebody */
    /** everybody */
}
"##;
    assert_eq!(
        found(source),
        [
            "docs 2 Nobody",
            "docs 3 Whoever",
            "names 4 somebody",
            "comments 5 Everybody",
            "texts 6 anybody",
            "texts 7 nobody",
            "comments 8 somebody",
            "docs 9 everybody",
        ]
    );
}

#[test]
fn comment_markers_in_strings_are_text() {
    assert_eq!(found("let url = \"http://nobody\";"), ["texts 1 nobody"]);
    assert_eq!(
        found("let path = \"/* nobody\"; // told"),
        ["texts 1 nobody", "comments 1 told"]
    );
    assert_eq!(found("let quote = '\"'; let told = 1;"), ["names 1 told"]);
}

#[test]
fn escapes_are_not_part_of_words() {
    assert_eq!(found(r#"let text = "line\ntold";"#), ["texts 1 told"]);
    assert_eq!(found("let text = \"a \\\n    told\";"), ["texts 2 told"]);
}

#[test]
fn phrases_continue_over_line_ends_but_not_over_punctuation() {
    assert_eq!(found("// It lasts for\n// ever."), ["comments 1 for ever"]);
    assert_eq!(found("// It is waited for. Ever."), [] as [&str; 0]);
    assert_eq!(found("// It is waited for\n\n// ever."), [] as [&str; 0]);
    assert_eq!(found("/// It lasts for\n///\n/// ever."), [] as [&str; 0]);
}

#[test]
fn the_one_is_a_pronoun_only_without_a_noun() {
    assert_eq!(found("// The one owner."), [] as [&str; 0]);
    assert_eq!(found("// It is the one."), ["comments 1 the one"]);
    assert_eq!(
        found("// Not the one that waits."),
        ["comments 1 the one that"]
    );
}

#[test]
fn clauses_with_what_are_counted() {
    assert_eq!(found("// Keeps what is left."), ["comments 1 what is"]);
    assert_eq!(
        found("// Shows what a task is."),
        ["comments 1 what a task is"]
    );
    assert_eq!(found("// What a task needs."), [] as [&str; 0]);
}

#[test]
fn telling_apart_is_ordinary() {
    assert_eq!(found("// They are told apart by id."), [] as [&str; 0]);
    assert_eq!(found("// It tells them apart."), [] as [&str; 0]);
    assert_eq!(found("// The actor is told."), ["comments 1 told"]);
    assert_eq!(found("// The actor is asked."), ["comments 1 is asked"]);
}

#[test]
fn code_in_prose_is_matched_as_names() {
    assert_eq!(
        found("/// See [`Mark`] and KeptTask."),
        ["docs 1 Mark", "docs 1 KeptTask"]
    );
    assert_eq!(found("/// Marks the end with a mark."), [] as [&str; 0]);
}

#[test]
fn identifiers_are_split_into_segments() {
    assert_eq!(segments("take_back"), ["take", "back"]);
    assert_eq!(segments("TakeBack"), ["take", "back"]);
    assert_eq!(segments("HTTPDesk2Ear"), ["http", "desk2", "ear"]);
    assert_eq!(segments("_"), [] as [&str; 0]);
}

#[test]
fn old_names_match_as_segments_wholes_and_prefixes() {
    assert_eq!(
        found("fn take_back(desk: ToolDesk) {}"),
        ["names 1 take_back", "names 1 desk", "names 1 ToolDesk"]
    );
    assert_eq!(
        found("let (Mark, MarkDead, mark_dead) = x;"),
        ["names 1 Mark"]
    );
    assert_eq!(
        found("let (KeptTask, kept_task, Kept, KEPT) = x;"),
        ["names 1 KeptTask"]
    );
    assert_eq!(
        found("let (yearly, bears, outstanding) = x;"),
        [] as [&str; 0]
    );
}

#[test]
fn frozen_words_of_the_interface_are_exempt() {
    assert_eq!(
        found(r#"let fate = json!({"fate": "owed"});"#),
        [] as [&str; 0]
    );
    assert_eq!(found("/// The `fate` of a message."), [] as [&str; 0]);
    assert_eq!(
        found("let (Fate, fate_of, owed_to) = x;"),
        ["names 1 Fate", "names 1 fate_of", "names 1 owed_to"]
    );
    assert_eq!(found(r#"#[serde(alias = "told")] x: u8"#), [] as [&str; 0]);
}

#[test]
fn frozen_words_of_a_crate_are_exempt_in_its_texts() {
    let sql = r#"let ledger = "SELECT seq FROM ledger";"#;
    assert_eq!(found_in("greenroom-sqlite", sql), ["names 1 ledger"]);
    assert_eq!(
        found_in("greenroom", sql),
        ["names 1 ledger", "texts 1 ledger"]
    );
    assert_eq!(
        found_in("greenroom-sqlite", "/// The ledger in `ledger`."),
        ["docs 1 ledger"]
    );
}

#[test]
fn quoted_names_are_exempt_as_a_whole() {
    assert_eq!(
        found(r#"hit("registry: Debts"); "permission.asked""#),
        [] as [&str; 0]
    );
    assert_eq!(found("/// `permission.asked`"), [] as [&str; 0]);
    assert_eq!(found(r#"say("hit registry: Debts")"#), ["texts 1 Debts"]);
    assert_eq!(found("/// A permission.asked"), ["docs 1 asked"]);
}

#[test]
fn some_words_are_counted_in_one_crate_only() {
    assert_eq!(found_in("greenroom", "fn story() {}"), ["names 1 story"]);
    assert_eq!(found_in("greenroom-sim", "fn story() {}"), [] as [&str; 0]);
}

#[test]
fn table_survives_a_round_trip_and_refuses_other_lines() {
    let counts: Counts = [
        (("a".to_owned(), Category::Docs), 3),
        (("a".to_owned(), Category::Names), 0),
    ]
    .into();
    let read = limits::parse(&limits::render(&counts)).expect("the table is readable");
    assert_eq!(read, counts);
    for line in ["a docs", "a docs x", "a rooms 1", "a docs 1 2"] {
        assert!(limits::parse(line).is_err(), "{line}");
    }
}

#[test]
fn numbers_may_fall_but_not_rise() {
    let key = |category| ("a".to_owned(), category);
    let limits: Counts = [(key(Category::Docs), 3), (key(Category::Names), 2)].into();
    let counts: Counts = [(key(Category::Docs), 2), (key(Category::Texts), 1)].into();
    let comparison = limits::compare(&counts, &limits);
    assert!(comparison.is_below);
    let above: Vec<_> = comparison
        .above
        .iter()
        .map(|excess| (excess.key.1, excess.count, excess.limit))
        .collect();
    assert_eq!(above, [(Category::Texts, 1, 0)]);
    let lowered: Counts = [(key(Category::Docs), 2), (key(Category::Texts), 0)].into();
    assert_eq!(limits::lowered(counts, &limits), lowered);
}
