//! The metrics endpoint.

use std::collections::BTreeMap;

use crate::support::Host;
use serde_json::json;

async fn scrape(host: &Host) -> BTreeMap<String, f64> {
    let answer = host.client.get(host.url("/metrics")).send().await.unwrap();
    let kind = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = answer.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[actix_rt::test]
async fn metrics_count_tasks_slots_ends_and_requests() {
    let host = Host::start(&[("limits.default", "1")]).await;
    let mut ids = Vec::new();
    for agent in ["a", "a", "b\"{"] {
        let body = json!({"description": "d", "prompt": "wait", "agent": agent});
        let (_, task) = host.post("/v1/tasks", body).await;
        ids.push(task["id"].as_str().unwrap().to_owned());
    }
    let session = host.running(&ids[0]).await;
    host.running(&ids[2]).await;
    let odd = r#"key="b\"{""#;
    let before = scrape(&host).await;
    for (name, value) in [
        (
            r#"greenroom_tasks{state="running",key="a"}"#.to_owned(),
            1.0,
        ),
        (
            r#"greenroom_tasks{state="pending",key="a"}"#.to_owned(),
            1.0,
        ),
        (format!(r#"greenroom_tasks{{state="running",{odd}}}"#), 1.0),
        (r#"greenroom_slots_in_use{key="a"}"#.to_owned(), 1.0),
        (r#"greenroom_slots_limit{key="a"}"#.to_owned(), 1.0),
        (r#"greenroom_tasks_waiting{key="a"}"#.to_owned(), 1.0),
        ("greenroom_slots_in_use_all".to_owned(), 2.0),
        (
            r#"greenroom_runs_ended_total{state="completed"}"#.to_owned(),
            0.0,
        ),
        (
            r#"greenroom_http_requests_total{method="POST",route="/v1/tasks",status="201"}"#
                .to_owned(),
            3.0,
        ),
        ("greenroom_ready".to_owned(), 1.0),
        ("greenroom_notices_delivered_total".to_owned(), 0.0),
        (
            r#"greenroom_actor_restarts_total{actor="registry"}"#.to_owned(),
            0.0,
        ),
    ] {
        assert_eq!(before.get(&name), Some(&value), "{name} in {before:#?}");
    }
    assert!(before.contains_key(&format!(
        "greenroom_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    )));
    host.finish(&session).await;
    host.ended(&ids[0]).await;
    host.get("/nowhere/at/all").await;
    let after = scrape(&host).await;
    assert_eq!(
        after[r#"greenroom_runs_ended_total{state="completed"}"#],
        1.0
    );
    let lost = r#"greenroom_http_requests_total{method="GET",route="none",status="404"}"#;
    assert_eq!(after[lost], 1.0);
    host.stop().await;
}
