//! Agents of the real agent server use the tools over MCP: at the service's URL, and from a separate process.

use serde_json::{Value, json};

use crate::harness::{Scene, greenroom_bin, until};

crate::stories![
    agents_launch_and_read_over_http,
    agents_launch_and_read_over_stdin,
];

/// The hook that adds the calling session to each call, as in docs/mcp.md.
const HOOK: &str = r#"export const Hook = async () => ({ "tool.execute.before": async (call, out) => {
  if (call.tool.startsWith("greenroom_")) out.args.__sessionID = call.sessionID } })"#;

async fn agents_launch_and_read_over_http() {
    let scene = Scene::set(&[]).await;
    let url = format!("{}/mcp", scene.service.url());
    let server = json!({"type": "remote", "url": url, "oauth": false});
    an_agent_launches_is_woken_and_reads(&scene, server).await;
}

async fn agents_launch_and_read_over_stdin() {
    let scene = Scene::set(&[]).await;
    let server =
        json!({"type": "local", "command": [greenroom_bin(), "mcp", "--url", scene.service.url()]});
    an_agent_launches_is_woken_and_reads(&scene, server).await;
}

async fn an_agent_launches_is_woken_and_reads(scene: &Scene, server: Value) {
    let project = scene.project.path();
    let config = json!({"mcp": {"greenroom": server}});
    std::fs::write(project.join("opencode.json"), config.to_string()).unwrap();
    let plugins = project.join(".opencode/plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    std::fs::write(plugins.join("hook.js"), HOOK).unwrap();

    let parent = scene.parent("build").await;
    let launch = json!({"description": "count", "agent": "general", "model": format!("rehearsal/{}", scene.model),
        "prompt": "[[wait 1s]][[say There are seven.]]"});
    let prompt = format!("[[call greenroom_background_task {launch}]][[say It is under way.]]");
    let opencode = scene.opencode();
    opencode
        .prompt(&parent.session, "build", "large", &prompt)
        .await;
    let launched = called(scene, &parent.session, "greenroom_background_task").await;
    assert!(
        launched.contains("You will be notified when it ends"),
        "{launched}"
    );
    let path = format!("/v1/sessions/{}/tasks", parent.session);
    let (_, tasks) = scene.service.get(&path).await;
    let id = tasks["tasks"][0]["id"].as_str().unwrap().to_owned();
    scene.notified_once(&parent, &[&id]).await;

    let prompt =
        format!("[[call greenroom_background_output {{\"task_id\": \"{id}\"}}]][[say Seven.]]");
    opencode
        .prompt(&parent.session, "build", "large", &prompt)
        .await;
    let read = called(scene, &parent.session, "greenroom_background_output").await;
    assert!(read.ends_with("There are seven."), "{read}");

    // Another session of the same agent server has its own tree.
    let other = scene.parent("build").await;
    opencode
        .prompt(&other.session, "build", "large", &prompt)
        .await;
    let refused = called(scene, &other.session, "greenroom_background_output").await;
    assert!(refused.contains("of yours"), "{refused}");
}

/// Waits for the answer of a tool in a session: its output, or its error.
async fn called(scene: &Scene, session: &str, tool: &str) -> String {
    until("the tool has answered", async || {
        let messages = scene.opencode().messages(session).await;
        let parts = messages
            .iter()
            .filter_map(|message| message["parts"].as_array());
        let state = parts
            .flatten()
            .find(|part| part["tool"] == tool)
            .map(|part| part["state"].clone())?;
        let text = state["output"].as_str().or(state["error"].as_str())?;
        matches!(state["status"].as_str(), Some("completed" | "error")).then(|| text.to_owned())
    })
    .await
}
