//! The HTTP API of a real service on a loopback port, with an agent server in memory.

use std::time::{Duration, Instant};

use crate::support::{FakeServer, Host, assert_error};
use reqwest::Method;
use serde_json::{Value, json};

fn launch(prompt: &str) -> Value {
    json!({"description": "a task", "prompt": prompt, "agent": "general"})
}

#[actix_rt::test]
async fn launch_to_result() {
    let host = Host::start(&[]).await;
    let (status, task) = host.post("/v1/tasks", launch("Say hello.")).await;
    assert_eq!(status, 201);
    assert_eq!(
        (&task["status"], &task["agent"]),
        (&json!("pending"), &json!("general"))
    );
    let id = task["id"].as_str().unwrap();
    let session = host.running(id).await;

    let (status, output) = host
        .get(&format!("/v1/tasks/{id}/output?block=true&timeoutMs=1"))
        .await;
    assert_eq!(
        (status, &output["timedOut"], &output["task"]["status"]),
        (200, &json!(true), &json!("running"))
    );

    let reading = host.spawn_get(&format!("/v1/tasks/{id}/output?block=true&timeoutMs=60000"));
    host.finish(&session).await;
    let (status, output) = reading.await.unwrap();
    assert_eq!(
        (status, &output["task"]["status"]),
        (200, &json!("completed"))
    );
    assert_eq!(output["result"], "answer to: Say hello.");
    assert!(output.get("timedOut").is_none());

    for name in [id, &id[..8], &session] {
        let (status, task) = host.get(&format!("/v1/tasks/{name}")).await;
        assert_eq!((status, &task["id"]), (200, &json!(id)), "{name}");
    }
    let (_, again) = host.get(&format!("/v1/tasks/{session}/output")).await;
    assert_eq!(
        again["result"], output["result"],
        "reading does not consume"
    );
    let (_, full) = host
        .get(&format!(
            "/v1/tasks/{id}/output?fullSession=true&messageLimit=1&fromEnd=1"
        ))
        .await;
    assert_eq!(full["messages"][0]["text"], "answer to: Say hello.");
    host.stop().await;
}

#[actix_rt::test]
async fn lists_are_filtered_and_paged() {
    let host = Host::start(&[("limits.default", "1")]).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        let mut body = launch("wait");
        body["description"] = json!(format!("task {number}"));
        body["parentSessionID"] = json!(format!("ses_parent{}", number % 2));
        ids.push(
            host.post("/v1/tasks", body).await.1["id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    host.running(&ids[0]).await;
    let names = |page: &Value| -> Vec<String> {
        page["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|task| task["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let (_, page) = host.get("/v1/tasks?limit=2").await;
    assert_eq!(names(&page), [ids[2].clone(), ids[1].clone()]);
    let cursor = page["nextCursor"].as_str().unwrap();
    let (_, rest) = host
        .get(&format!("/v1/tasks?limit=2&cursor={cursor}"))
        .await;
    assert_eq!(names(&rest), [ids[0].clone()]);
    assert!(rest.get("nextCursor").is_none());
    let (_, running) = host.get("/v1/tasks?status=running,completed").await;
    assert_eq!(names(&running), [ids[0].clone()]);
    let (_, of_parent) = host
        .get("/v1/tasks?parentSessionID=ses_parent1&agent=general")
        .await;
    assert_eq!(names(&of_parent), [ids[1].clone()]);

    let (_, waiting) = host.get(&format!("/v1/tasks/{}", ids[2])).await;
    assert_eq!(
        (
            &waiting["waitsFor"]["position"],
            &waiting["waitsFor"]["limit"]
        ),
        (&json!(2), &json!(1))
    );
    let (_, of_session) = host
        .get("/v1/sessions/ses_parent0/tasks?descendants=true")
        .await;
    assert_eq!(names(&of_session), [ids[0].clone(), ids[2].clone()]);
    let (_, history) = host.get("/v1/sessions/ses_parent0/history").await;
    assert_eq!(history["history"][1]["description"], "task 2");
    let markdown = host
        .text("/v1/sessions/ses_parent0/history?format=markdown")
        .await;
    assert!(
        markdown.contains(&ids[0]) && markdown.contains("task 2"),
        "{markdown}"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn cancel_one_several_and_ended() {
    let host = Host::start(&[("limits.default", "1")]).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        let mut body = launch("wait");
        body["parentSessionID"] = json!("ses_parent");
        ids.push(
            host.post("/v1/tasks", body).await.1["id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    host.running(&ids[0]).await;
    let (status, task) = host
        .post(
            &format!("/v1/tasks/{}/cancel", ids[0]),
            json!({"reason": "changed my mind"}),
        )
        .await;
    assert_eq!(
        (status, &task["status"], &task["error"]),
        (200, &json!("cancelled"), &json!("changed my mind"))
    );
    let (status, error) = host
        .post(&format!("/v1/tasks/{}/cancel", ids[0]), json!({}))
        .await;
    assert_error((status, &error), 409, "not_cancellable", "cancelled");
    let body = json!({"descendants": true, "abortSession": false});
    let (status, error) = host
        .post(&format!("/v1/tasks/{}/cancel", ids[0]), body)
        .await;
    assert_error((status, &error), 409, "not_cancellable", "cancelled");

    let (status, task) = host
        .request(Method::POST, &format!("/v1/tasks/{}/cancel", ids[3]), "")
        .await;
    assert_eq!(
        (status, &task["status"]),
        (200, &json!("cancelled")),
        "a body is optional"
    );
    let (status, answer) = host
        .post("/v1/tasks/cancel", json!({"parentSessionID": "ses_parent"}))
        .await;
    assert_eq!(status, 200);
    let cancelled: Vec<&Value> = answer["cancelled"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| &task["id"])
        .collect();
    assert_eq!(cancelled, [&json!(ids[1]), &json!(ids[2])]);
    let (status, answer) = host.post("/v1/tasks/cancel", json!({"all": true})).await;
    assert_eq!((status, answer), (200, json!({"cancelled": []})));
    for wrong in [
        json!({}),
        json!({"all": false}),
        json!({"all": true, "parentSessionID": "ses_parent"}),
    ] {
        let (status, error) = host.post("/v1/tasks/cancel", wrong).await;
        assert_error((status, &error), 422, "invalid_value", "parentSessionID");
    }
    host.stop().await;
}

#[actix_rt::test]
async fn send_resume_and_track() {
    let host = Host::start(&[]).await;
    let (_, task) = host.post("/v1/tasks", launch("first")).await;
    let id = task["id"].as_str().unwrap();
    let session = host.running(id).await;
    let (status, sent) = host
        .post(
            &format!("/v1/tasks/{session}/send"),
            json!({"prompt": "more"}),
        )
        .await;
    assert_eq!((status, &sent["id"]), (202, &json!(id)));
    let resume = format!("/v1/sessions/{session}/resume");
    let (status, error) = host.post(&resume, json!({"prompt": "again"})).await;
    assert_error((status, &error), 409, "already_running", "running");
    host.finish(&session).await;
    host.ended(id).await;
    let (status, error) = host
        .post(&format!("/v1/tasks/{id}/send"), json!({"prompt": "more"}))
        .await;
    assert_error((status, &error), 409, "not_running", "completed");
    let (status, error) = host
        .post(
            "/v1/sessions/ses_unknown/resume",
            json!({"prompt": "again"}),
        )
        .await;
    assert_error((status, &error), 404, "session_not_found", "ses_unknown");
    let (status, resumed) = host
        .post(
            &resume,
            json!({"prompt": "again", "parentSessionID": "ses_p"}),
        )
        .await;
    assert_eq!(
        (status, &resumed["id"], &resumed["run"]),
        (202, &json!(id), &json!(2))
    );

    host.fake.open("ses_elsewhere");
    let track = json!({"taskID": "bg_elsewhere", "sessionID": "ses_elsewhere", "parentSessionID": "ses_p",
                       "description": "adopted", "concurrencyKey": "acme/big"});
    let (status, tracked) = host.post("/v1/tasks/track", track).await;
    assert_eq!(
        (status, &tracked["id"], &tracked["agent"]),
        (200, &json!("bg_elsewhere"), &json!("task"))
    );
    let (_, limits) = host.get("/v1/limits").await;
    let used = limits["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["key"] == "acme/big")
        .unwrap();
    assert_eq!(used["inUse"], 1);
    host.stop().await;
}

#[actix_rt::test]
async fn limits_are_changed_while_running() {
    let host = Host::start(&[("limits.default", "1"), ("limits.providers.acme", "2")]).await;
    host.post("/v1/tasks", launch("one")).await;
    let (_, second) = host.post("/v1/tasks", launch("two")).await;
    let id = second["id"].as_str().unwrap();
    let (status, report) = host
        .request(
            Method::PUT,
            "/v1/limits",
            r#"{"default": 2, "max": 9, "providers": {"acme": null}, "models": {"acme/big": 3}}"#,
        )
        .await;
    assert_eq!((status, &report["max"]), (200, &json!(9)));
    host.running(id).await;
    let (_, shown) = host.get("/v1/limits").await;
    let rules = ["default", "providers", "models", "max"].map(|rule| &shown[rule]);
    assert_eq!(json!(rules), json!([2, {}, {"acme/big": 3}, 9]));
    let (status, error) = host
        .request(Method::PUT, "/v1/limits", r#"{"models": {"": 3}}"#)
        .await;
    assert_error((status, &error), 422, "invalid_value", "models");
    for batch in 0..11 {
        let entries = (0..1000).map(|number| (format!("model {batch} {number}"), json!(1)));
        let models: serde_json::Map<String, Value> = entries.collect();
        let body = json!({ "models": models }).to_string();
        let (status, error) = host.request(Method::PUT, "/v1/limits", &body).await;
        // One entry exists already.
        match batch {
            0..9 => assert_eq!(status, 200),
            _ => assert_error((status, &error), 422, "invalid_value", "models"),
        }
    }
    let (status, error) = host
        .request(Method::PUT, "/v1/limits", r#"{"default": -1}"#)
        .await;
    assert_error((status, &error), 422, "invalid_value", "default");
    host.stop().await;
}

#[actix_rt::test]
async fn errors_have_one_format() {
    let host = Host::start(&[]).await;
    let cases: &[(Method, &str, &str, u16, &str, &str)] = &[
        (
            Method::POST,
            "/v1/tasks",
            "{",
            400,
            "unreadable_json",
            "JSON",
        ),
        (
            Method::POST,
            "/v1/tasks",
            "[]",
            400,
            "unreadable_json",
            "object",
        ),
        (
            Method::POST,
            "/v1/tasks",
            r#"{"descripton": "x"}"#,
            400,
            "unknown_field",
            "descripton",
        ),
        (
            Method::POST,
            "/v1/tasks",
            r#"{"description": "x", "prompt": "y", "agent": 7}"#,
            422,
            "invalid_value",
            "agent",
        ),
        (
            Method::POST,
            "/v1/tasks",
            r#"{"description": "x", "prompt": "y"}"#,
            422,
            "invalid_value",
            "agent",
        ),
        (
            Method::POST,
            "/v1/tasks",
            "",
            422,
            "invalid_value",
            "description",
        ),
        (
            Method::POST,
            "/v1/tasks",
            r#"{"description": "x", "prompt": "y", "agent": "z", "model": {"providerID": "p", "modelId": "m"}}"#,
            400,
            "unknown_field",
            "modelId",
        ),
        (
            Method::POST,
            "/v1/tasks",
            r#"{"description": "x", "prompt": " ", "agent": "z"}"#,
            422,
            "invalid_value",
            "prompt",
        ),
        (
            Method::POST,
            "/v1/tasks",
            r#"{"description": "x", "prompt": "y", "agent": "z"} x"#,
            400,
            "unreadable_json",
            "",
        ),
        (
            Method::GET,
            "/v1/tasks?limit=many",
            "",
            400,
            "invalid_query",
            "query",
        ),
        (
            Method::GET,
            "/v1/tasks?limit=0",
            "",
            400,
            "invalid_query",
            "limit",
        ),
        (
            Method::GET,
            "/v1/tasks?status=asleep",
            "",
            400,
            "invalid_query",
            "asleep",
        ),
        (
            Method::GET,
            "/v1/tasks?colour=red",
            "",
            400,
            "unknown_field",
            "colour",
        ),
        (
            Method::GET,
            "/v1/tasks/bg_unknown",
            "",
            404,
            "task_not_found",
            "bg_unknown",
        ),
        (
            Method::GET,
            "/v1/tasks/bg_unknown/output",
            "",
            404,
            "task_not_found",
            "bg_unknown",
        ),
        (
            Method::POST,
            "/v1/tasks/bg_unknown/cancel",
            "",
            404,
            "task_not_found",
            "bg_unknown",
        ),
        (
            Method::POST,
            "/v1/tasks/bg_unknown/send",
            r#"{"prompt": "x"}"#,
            404,
            "task_not_found",
            "bg_unknown",
        ),
        (
            Method::POST,
            "/v1/tasks/bg_unknown/cancel",
            r#"{"why": 1}"#,
            400,
            "unknown_field",
            "why",
        ),
        (
            Method::GET,
            "/v1/tasks/bg_unknown/output?block=maybe",
            "",
            400,
            "invalid_query",
            "maybe",
        ),
        (
            Method::GET,
            "/v1/sessions/ses_1/history?format=xml",
            "",
            400,
            "invalid_query",
            "xml",
        ),
        (
            Method::POST,
            "/v1/session-events",
            r#"{"events": {}}"#,
            422,
            "invalid_value",
            "events",
        ),
        (
            Method::GET,
            "/v2/tasks",
            "",
            404,
            "no_such_route",
            "/v2/tasks",
        ),
        (Method::GET, "/v1/tasks/", "", 404, "", ""),
        (
            Method::DELETE,
            "/v1/tasks",
            "",
            405,
            "method_not_allowed",
            "DELETE",
        ),
        (
            Method::GET,
            "/v1/tasks/cancel",
            "",
            405,
            "method_not_allowed",
            "GET",
        ),
        (
            Method::PATCH,
            "/v1/limits",
            "{}",
            405,
            "method_not_allowed",
            "PATCH",
        ),
    ];
    for (method, path, body, status, code, text) in cases {
        let (got, error) = host.request(method.clone(), path, body).await;
        let label = format!("{method} {path} {body}");
        assert_eq!(got, *status, "{label}: {error}");
        let fields: Vec<&String> = error["error"].as_object().expect(&label).keys().collect();
        assert_eq!(fields, ["code", "hint", "message"], "{label}");
        if !code.is_empty() {
            assert_eq!(error["error"]["code"], *code, "{label}: {error}");
        }
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(text), "{label}: {message}");
    }
    host.stop().await;
}

#[actix_rt::test]
async fn oversized_body_is_answered() {
    let host = Host::start(&[]).await;
    let (status, error) = host
        .post("/v1/tasks", launch(&"x".repeat(5 * 1024 * 1024)))
        .await;
    assert_error((status, &error), 413, "body_too_large", "1048576");
    let (status, _) = host.get("/healthz").await;
    assert_eq!(status, 200);
    host.stop().await;
}

#[actix_rt::test]
async fn foreign_hosts_and_origins_are_rejected() {
    let host = Host::start(&[]).await;
    let port = host.address.port();
    let own = format!("localhost:{port}");
    let page = format!("http://localhost:{port}");
    for (name, value, allowed) in [
        ("host", own.as_str(), true),
        ("host", "evil.example", false),
        ("host", "192.168.77.1", false),
        ("origin", page.as_str(), true),
        ("origin", "http://evil.example", false),
        ("origin", "http://localhost:1", false),
        ("origin", "null", false),
    ] {
        for path in ["/v1/tasks", "/healthz", "/v1/bridge", "/nowhere"] {
            let answer = host
                .client
                .get(host.url(path))
                .header(name, value)
                .send()
                .await
                .unwrap();
            let refused = answer.status() == 403;
            assert_eq!(
                !refused,
                allowed,
                "{path} with {name}: {value} is {}",
                answer.status()
            );
            if refused {
                let error: Value = answer.json().await.unwrap();
                assert_eq!(error["error"]["code"], format!("foreign_{name}"));
            }
        }
    }
    host.stop().await;
}

#[actix_rt::test]
async fn configured_token_is_required() {
    let host = Host::start(&[("token", "s3cret")]).await;
    for (header, allowed) in [
        (None, false),
        (Some("Bearer guess"), false),
        (Some("Basic s3cret"), false),
        (Some("Bearer s3cret"), true),
    ] {
        for path in ["/v1/tasks", "/v1/limits"] {
            let mut request = host.client.get(host.url(path));
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status() == 200, allowed, "{path} with {header:?}");
            if !allowed {
                assert_eq!(answer.status(), 401);
                assert_eq!(answer.headers()["www-authenticate"], "Bearer");
                assert_eq!(
                    answer.json::<Value>().await.unwrap()["error"]["code"],
                    "unauthorized"
                );
            }
        }
    }
    assert_eq!(
        host.get("/healthz").await.0,
        200,
        "health contains no secret"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn null_equals_absent() {
    let host = Host::start(&[]).await;
    let mut body = launch("wait");
    for field in [
        "parentSessionID",
        "parentMessageID",
        "parentAgent",
        "parentModel",
        "model",
        "fallbackModels",
        "category",
        "skills",
        "skillContent",
        "directory",
        "permission",
    ] {
        body[field] = Value::Null;
    }
    let (status, task) = host.post("/v1/tasks", body).await;
    assert_eq!(status, 201, "{task}");
    let cancel = json!({"reason": null, "skipNotification": null, "abortSession": null, "descendants": null});
    let path = format!("/v1/tasks/{}/cancel", task["id"].as_str().unwrap());
    assert_eq!(host.post(&path, cancel).await.0, 200);
    let all =
        json!({"all": true, "parentSessionID": null, "reason": null, "skipNotification": null});
    assert_eq!(host.post("/v1/tasks/cancel", all).await.0, 200);
    let limits = r#"{"default": null, "max": null, "providers": null, "models": null}"#;
    assert_eq!(host.request(Method::PUT, "/v1/limits", limits).await.0, 200);
    host.stop().await;
}

#[actix_rt::test]
async fn health_head_and_bridge_errors() {
    let host = Host::start(&[]).await;
    for path in ["/healthz", "/readyz"] {
        let answer = host.client.head(host.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.bytes().await.unwrap().is_empty());
    }
    let (status, error) = host.post("/v1/bridge", json!({})).await;
    assert_error((status, &error), 405, "method_not_allowed", "POST");
    let (status, error) = host.get("/v1/bridge").await;
    assert_error((status, &error), 400, "not_a_websocket", "");
    host.stop().await;
}

#[actix_rt::test]
async fn tool_results_are_included_on_request() {
    let host = Host::start(&[]).await;
    host.fake.call_tools();
    let (_, task) = host.post("/v1/tasks", launch("count files")).await;
    let id = task["id"].as_str().unwrap();
    let session = host.running(id).await;
    host.finish(&session).await;
    host.ended(id).await;
    let path = format!("/v1/tasks/{id}/output");
    let (_, plain) = host.get(&path).await;
    assert!(plain.get("messages").is_none(), "{plain}");
    let (_, with) = host.get(&format!("{path}?includeToolResults")).await;
    assert_eq!(with["result"], plain["result"]);
    assert_eq!(with["messages"][0]["tools"][0]["output"], "42 files");
    let (status, error) = host.get(&format!("{path}?messageLimit=0")).await;
    assert_error((status, &error), 400, "invalid_query", "messageLimit");
    let (status, error) = host.get(&format!("{path}?messageLimit=x")).await;
    assert_error((status, &error), 400, "invalid_query", "messageLimit");
    host.stop().await;
}

#[actix_rt::test]
async fn readiness_reports_problems() {
    let host = Host::start(&[("opencode.events", "bridge")]).await;
    let (status, body) = host.get("/readyz").await;
    assert_eq!((status, &body["ready"]), (503, &json!(false)));
    assert!(body["problems"].to_string().contains("bridge"), "{body}");
    assert_eq!(host.get("/healthz").await.0, 200);
    host.stop().await;

    let host = Host::start(&[]).await;
    let (status, body) = host.get("/readyz").await;
    assert_eq!((status, &body["ready"]), (200, &json!(true)), "{body}");
    host.stop().await;
}

#[actix_rt::test]
async fn stop_ends_tasks_and_blocked_readers() {
    let host = Host::start(&[]).await;
    let (_, task) = host.post("/v1/tasks", launch("wait")).await;
    let id = task["id"].as_str().unwrap().to_owned();
    let session = host.running(&id).await;
    let reading = host.spawn_get(&format!("/v1/tasks/{id}/output?block=true&timeoutMs=60000"));
    host.let_request_arrive().await;
    let fake: std::sync::Arc<FakeServer> = host.fake.clone();
    let began = Instant::now();
    host.stop().await;
    assert!(began.elapsed() < Duration::from_secs(15));
    assert!(fake.aborted(&session), "the session is aborted");
    // The read must end when the service stops.
    let _ = reading.await;
}

#[actix_rt::test]
async fn lists_carry_the_first_200_characters_of_texts() {
    let host = Host::start(&[]).await;
    let text = "ü".repeat(5000);
    let body = json!({"description": "d", "prompt": text, "skillContent": text, "agent": "a",
        "parentSessionID": "ses_p"});
    let (_, task) = host.post("/v1/tasks", body).await;
    let path = format!("/v1/tasks/{}", task["id"].as_str().unwrap());
    let excerpt = json!("ü".repeat(200));
    let (_, list) = host.get("/v1/tasks").await;
    let (_, of_session) = host.get("/v1/sessions/ses_p/tasks").await;
    let (_, one) = host.get(&path).await;
    for shown in [&list["tasks"][0], &of_session["tasks"][0], &one] {
        assert_eq!(
            (&shown["prompt"], &shown["skillContent"]),
            (&excerpt, &excerpt)
        );
    }
    let (_, full) = host.get(&format!("{path}?full=true")).await;
    assert_eq!(
        (&full["prompt"], &full["skillContent"]),
        (&json!(text), &json!(text))
    );
    host.stop().await;
}

#[actix_rt::test]
async fn waiting_texts_are_bounded() {
    let host = Host::start(&[
        ("limits.default", "1"),
        ("limits.max_waiting_bytes", "1000"),
    ])
    .await;
    let launch =
        |length: usize| json!({"description": "d", "prompt": "x".repeat(length), "agent": "a"});
    let (_, first) = host.post("/v1/tasks", launch(900)).await;
    host.running(first["id"].as_str().unwrap()).await;
    assert_eq!(
        host.post("/v1/tasks", launch(900)).await.0,
        201,
        "the first one waits no more"
    );
    let (status, error) = host.post("/v1/tasks", launch(200)).await;
    assert_error((status, &error), 429, "queue_too_large", "900 bytes");
    assert_eq!(host.post("/v1/tasks", launch(100)).await.0, 201);
    host.stop().await;
}

#[actix_rt::test]
async fn invisible_names_are_refused() {
    let host = Host::start(&[]).await;
    for (field, value) in [
        ("agent", "\u{200b}"),
        ("agent", "a\u{0}"),
        ("directory", "/tmp/\u{0}a"),
        ("directory", "/tmp/\u{1b}[2J"),
    ] {
        let mut body = json!({"description": "d", "prompt": "p", "agent": "a"});
        body[field] = json!(value);
        let (status, error) = host.post("/v1/tasks", body).await;
        assert_error((status, &error), 422, "invalid_value", field);
    }
    host.stop().await;
}
