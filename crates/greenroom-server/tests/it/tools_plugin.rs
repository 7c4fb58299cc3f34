//! The plugin contains its own descriptions of the tools; their arguments match the catalogue.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use greenroom_server::tools::catalogue;
use serde_json::{Value, json};

/// A script that prints the plugin's tools with the schemas of their arguments.
const ASK: &str = r#"
const { Greenroom } = await import(process.argv[1])
const hooks = await Greenroom({ directory: "/", client: {} })
const tools = {}
for (const toolID of Object.keys(hooks.tool)) {
  await hooks["tool.definition"]({ toolID }, tools[toolID] = {})
}
console.log(JSON.stringify(tools))
process.exit(0)
"#;

/// Returns the types of the arguments, and the required ones.
fn arguments(schema: &Value) -> (BTreeMap<String, Value>, Value) {
    let properties = schema["properties"].as_object().unwrap();
    let types = properties
        .iter()
        .map(|(name, of)| (name.clone(), of["type"].clone()));
    (types.collect(), schema["required"].clone())
}

#[test]
fn plugin_tools_match_the_catalogue() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let plugin = here.join("../greenroom-bridge/plugin/greenroom.js");
    let home = tempfile::tempdir().unwrap();
    let output = Command::new("node")
        .args(["--input-type=module", "-e", ASK])
        .arg(plugin.canonicalize().unwrap())
        .env("HOME", home.path())
        .env("GREENROOM_AUTOSTART", "0")
        .env("GREENROOM_URL", "http://127.0.0.1:9")
        .output()
        .expect("node is there: the agent server comes through its npm");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let offered: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let ours: Value = catalogue()
        .into_iter()
        .map(|tool| (tool.name.to_owned(), tool.schema))
        .collect();
    assert_eq!(names(&offered), names(&ours));
    for name in names(&ours) {
        let theirs = &offered[&name]["jsonSchema"];
        assert_eq!(arguments(theirs), arguments(&ours[&name]), "{name}");
        assert_eq!(theirs["additionalProperties"], json!(false), "{name}");
    }
}
