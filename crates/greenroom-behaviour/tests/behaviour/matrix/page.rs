//! The page `docs/stages.md`, generated from the table. A test compares the page; with
//! `GREENROOM_WRITE_DOCS=1` it writes the page.

use std::path::Path;

use super::events::Event;
use super::stages::LifecycleStage;
use super::table::{Outcome, expected};

fn page() -> String {
    let mut page = String::from(
        "# Stages: the effect of each event at each stage of a task\n\n\
         <!-- Generated from the table of the behaviour tests (`matrix`). To change this page, change the table and run the \
         tests with GREENROOM_WRITE_DOCS=1. -->\n\n\
         A task of parent `P` is at one of these stages when an event happens. Each cell is a test in virtual time against \
         a scripted agent server, with two slots: the event is applied, then every session finishes its turn until no task \
         runs. Afterwards no task is in memory, no slot is held or awaited, and no session of the task is busy.\n\n## Stages\n\n| stage | the task |\n|---|---|\n",
    );
    for stage in LifecycleStage::ALL {
        let (name, what) = stage.names();
        page.push_str(&format!("| {name} | {what} |\n"));
    }
    page.push_str(
        "\n## How the run ends\n\nOne row for each event. `=` is the end without an event: completed, or no further end if \
         the task has ended. `-` cannot happen: there is no session yet.\n\n| event |",
    );
    for stage in LifecycleStage::ALL {
        page.push_str(&format!(" {} |", stage.names().0));
    }
    page.push_str("\n|---|");
    page.push_str(&"---|".repeat(LifecycleStage::ALL.len()));
    page.push('\n');
    for event in Event::ALL {
        page.push_str(&format!("| {} |", event.names().0));
        for stage in LifecycleStage::ALL {
            page.push_str(&format!(" {} |", summary(event, stage)));
        }
        page.push('\n');
    }
    page.push_str(
        "\n## Event by event\n\n*Answer* is the answer to the caller; *at once* the state of the task at the same instant \
         (`gone`: it has left memory), with all slots in use; *ends* how the run ends afterwards; *calls* the later calls that \
         create, prompt or abort a session of the task; *notifications* the later notifications of parents (`a` is the \
         session of the task as a parent).\n",
    );
    for event in Event::ALL {
        let (name, what) = event.names();
        page.push_str(&format!(
            "\n### {name}\n\n{what}\n\n| stage | answer | at once | slots | ends | calls | notifications |\n|---|---|---|---|---|---|---|\n"
        ));
        for stage in LifecycleStage::ALL {
            if let Some(outcome) = expected(event, stage) {
                page.push_str(&line(stage, &outcome));
            }
        }
    }
    page
}

fn line(stage: LifecycleStage, outcome: &Outcome) -> String {
    let Outcome {
        answer,
        state,
        slots,
        end,
        calls,
        notifications,
    } = outcome;
    let stage = stage.names().0;
    format!("| {stage} | {answer} | {state} | {slots} | {end} | {calls} | {notifications} |\n")
}

fn summary(event: Event, stage: LifecycleStage) -> String {
    let Some(outcome) = expected(event, stage) else {
        return "-".to_owned();
    };
    let unaffected = expected(Event::Nothing, stage).expect("nothing can always happen");
    let (end, unaffected_end) = (outcome.end, unaffected.end);
    match end.split(':').next() {
        _ if end == unaffected_end && outcome.state != "gone" => "=".to_owned(),
        _ if end == unaffected_end => "= (leaves memory)".to_owned(),
        Some(short) => short.to_owned(),
        None => end,
    }
}

#[test]
fn page_matches_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/stages.md");
    let page = page();
    if std::env::var_os("GREENROOM_WRITE_DOCS").is_some() {
        std::fs::write(&path, page).expect("the page can be written");
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/stages.md differs from the table; run this test with GREENROOM_WRITE_DOCS=1"
    );
}
