//! The tools as hosts describe them to their agents: name, description, and the JSON schema of the arguments. One source
//! for MCP and for the plugin, which carries a copy of it.

use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::orders::{Cancelling, Launching, Listing, Order, Reading, Sending};

/// One tool.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ToolInfo {
    /// What agents call it.
    pub name: &'static str,
    /// What it is called in lists for people.
    pub title: &'static str,
    /// What it does and when to use it, for agents.
    pub description: &'static str,
    /// The JSON schema of its arguments: an object.
    pub schema: Value,
    /// What it does to the world.
    pub effect: Effect,
}

/// What a tool does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It looks.
    Reads,
    /// It adds something.
    Adds,
    /// It ends something, and does nothing the second time.
    Ends,
}

/// Every tool, in the order in which agents meet them.
pub fn catalogue() -> Vec<ToolInfo> {
    vec![
        info::<Launching>("Launch a background task", Effect::Adds),
        info::<Reading>("Read a background task", Effect::Reads),
        info::<Cancelling>("Cancel background tasks", Effect::Ends),
        info::<Sending>("Instruct a background task", Effect::Adds),
        info::<Listing>("List background tasks", Effect::Reads),
    ]
}

fn info<O: Order>(title: &'static str, effect: Effect) -> ToolInfo {
    ToolInfo {
        name: O::TOOL,
        title,
        description: O::ABOUT,
        schema: schema::<O>(),
        effect,
    }
}

/// The schema of a tool's arguments, plain enough for every model: one type each, no nulls, nothing named elsewhere.
pub(super) fn schema<O: Order>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let made = settings.into_generator().into_root_schema_for::<O>();
    let mut properties = Map::new();
    let fields = made.get("properties").and_then(Value::as_object);
    for (name, of) in fields.into_iter().flatten() {
        let mut of = of.clone();
        crate::http::schemas::never_null(&mut of);
        if let Some(of) = of.as_object_mut() {
            of.remove("format");
            if let Some(Value::String(about)) = of.get_mut("description") {
                *about = about.replace('\n', " ");
            }
            // The bound of a number's bits says nothing to an agent.
            if of.get("minimum") == Some(&json!(0)) {
                of.remove("minimum");
            }
        }
        properties.insert(name.clone(), of);
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": made.get("required").cloned().unwrap_or_else(|| json!([])),
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_as_agents_see_them() {
        let catalogue = serde_json::to_value(catalogue()).unwrap();
        insta::assert_snapshot!(format!("{catalogue:#}"));
    }
}
