//! The descriptions of the tools for hosts: name, description, and JSON schema of the arguments. MCP uses them; the
//! plugin contains a copy.

use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::args::{
    BackgroundCancelArgs, BackgroundListArgs, BackgroundOutputArgs, BackgroundSendArgs,
    BackgroundTaskArgs, ToolArgs,
};

/// One tool.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ToolInfo {
    /// The name for agents.
    pub name: &'static str,
    /// The title for people.
    pub title: &'static str,
    /// The description for agents.
    pub description: &'static str,
    /// The JSON schema of the arguments: an object.
    pub schema: Value,
    /// The effect of a call.
    pub effect: Effect,
}

/// The effect of a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Reads.
    Reads,
    /// Adds something.
    Adds,
    /// Ends something. A repeated call has no effect.
    Ends,
}

/// Returns all tools in their listing order.
pub fn catalogue() -> Vec<ToolInfo> {
    vec![
        info::<BackgroundTaskArgs>("Launch a background task", Effect::Adds),
        info::<BackgroundOutputArgs>("Read a background task", Effect::Reads),
        info::<BackgroundCancelArgs>("Cancel background tasks", Effect::Ends),
        info::<BackgroundSendArgs>("Instruct a background task", Effect::Adds),
        info::<BackgroundListArgs>("List background tasks", Effect::Reads),
    ]
}

fn info<A: ToolArgs>(title: &'static str, effect: Effect) -> ToolInfo {
    ToolInfo {
        name: A::TOOL,
        title,
        description: A::ABOUT,
        schema: schema::<A>(),
        effect,
    }
}

/// Returns the schema of a tool's arguments in a form that all models support: one type per property, no nulls, no
/// references.
pub(super) fn schema<A: ToolArgs>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let root_schema = settings.into_generator().into_root_schema_for::<A>();
    let mut properties = Map::new();
    let fields = root_schema.get("properties").and_then(Value::as_object);
    for (name, property) in fields.into_iter().flatten() {
        let mut property = property.clone();
        crate::http::schemas::never_null(&mut property);
        if let Some(property) = property.as_object_mut() {
            property.remove("format");
            if let Some(Value::String(about)) = property.get_mut("description") {
                *about = about.replace('\n', " ");
            }
            // The bound of the integer type is of no use to an agent.
            if property.get("minimum") == Some(&json!(0)) {
                property.remove("minimum");
            }
        }
        properties.insert(name.clone(), property);
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": root_schema.get("required").cloned().unwrap_or_else(|| json!([])),
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_catalogue() {
        let catalogue = serde_json::to_value(catalogue()).unwrap();
        insta::assert_snapshot!(format!("{catalogue:#}"));
    }
}
