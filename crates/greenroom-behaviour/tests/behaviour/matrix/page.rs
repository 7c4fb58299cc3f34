//! The page `docs/stages.md`, generated from the table. A test compares the page; with
//! `GREENROOM_WRITE_DOCS=1` it writes the page.

use std::path::Path;

use super::events::Event;
use super::stages::LifecycleStage;
use super::table::{Outcome, expected};

fn page() -> String {
    let mut page = String::from(
        "# Stages: what happens to a task, and when\n\n\
         <!-- Made by the tests of greenroom-sim (`behaviour::matrix`) from their own table. To change it, change the table \
         and run the tests with GREENROOM_WRITE_DOCS=1. -->\n\n\
         A task of parent `P` stands at one of these stages when something happens. Each cell is a test in virtual time on \
         a scripted agent server, with two slots: the event, then a world in which every session finishes its turn until \
         nobody runs. After each, nobody is in memory, no slot is held, nobody waits, and no session of the task is left at \
         work.\n\n## Stages\n\n| stage | the task |\n|---|---|\n",
    );
    for stage in LifecycleStage::ALL {
        let (name, what) = stage.names();
        page.push_str(&format!("| {name} | {what} |\n"));
    }
    page.push_str(
        "\n## How the run ends\n\nOne line an event. `=` is the end it comes to anyway: completed, or nothing more if it has \
         ended. `-` cannot happen: there is no session yet.\n\n| event |",
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
            page.push_str(&format!(" {} |", in_short(event, stage)));
        }
        page.push('\n');
    }
    page.push_str(
        "\n## Event by event\n\n*Answer* is what the caller is told; *at once* where the task stands in the same instant \
         (`gone`: it has left memory), with the slots in use, those of others too; *ends* how the run ends when the world \
         goes on; *calls* those that make, prompt or abort a session for it from then on; *told* what parents hear from then \
         on (`a` is the task's own session as a parent).\n",
    );
    for event in Event::ALL {
        let (name, what) = event.names();
        page.push_str(&format!(
            "\n### {name}\n\n{what}\n\n| stage | answer | at once | slots | ends | calls | told |\n|---|---|---|---|---|---|---|\n"
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
        told,
    } = outcome;
    let stage = stage.names().0;
    format!("| {stage} | {answer} | {state} | {slots} | {end} | {calls} | {told} |\n")
}

fn in_short(event: Event, stage: LifecycleStage) -> String {
    let Some(outcome) = expected(event, stage) else {
        return "-".to_owned();
    };
    let undisturbed = expected(Event::Nothing, stage).expect("nothing can always happen");
    let (end, left_alone) = (outcome.end, undisturbed.end);
    match end.split(':').next() {
        _ if end == left_alone && outcome.state != "gone" => "=".to_owned(),
        _ if end == left_alone => "= (leaves memory)".to_owned(),
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
        "docs/stages.md is not what the table says; run this test with GREENROOM_WRITE_DOCS=1"
    );
}
