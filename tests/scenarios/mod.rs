//! The stories, by subject.

mod bridge;
mod command;
mod completion;
mod crash;
mod failures;
mod interface;
mod lasting;
mod limits;
mod link;
mod mcp;
mod memory;
mod operations;
mod ordinary_fork;
mod ordinary_instance;
mod ordinary_messages;
mod ordinary_terminal;
mod others;
mod plugin;
mod plugin_cut;
mod plugin_plain;
mod restart;
mod stage;

pub use crash::requested_crashes;

/// Returns every story, by module.
pub fn all() -> Vec<(&'static str, Vec<crate::Story>)> {
    vec![
        ("stage", stage::stories()),
        ("completion", completion::stories()),
        ("limits", limits::stories()),
        ("failures", failures::stories()),
        ("others", others::stories()),
        ("restart", restart::stories()),
        ("crash", crash::stories()),
        ("lasting", lasting::stories()),
        ("link", link::stories()),
        ("bridge", bridge::stories()),
        ("mcp", mcp::stories()),
        ("plugin", plugin::stories()),
        ("plugin_cut", plugin_cut::stories()),
        ("plugin_plain", plugin_plain::stories()),
        ("ordinary_messages", ordinary_messages::stories()),
        ("ordinary_instance", ordinary_instance::stories()),
        ("ordinary_terminal", ordinary_terminal::stories()),
        ("ordinary_fork", ordinary_fork::stories()),
        ("operations", operations::stories()),
        ("interface", interface::stories()),
        ("command", command::stories()),
        ("memory", memory::stories()),
    ]
}
