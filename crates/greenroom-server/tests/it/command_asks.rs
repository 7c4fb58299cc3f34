//! `greenroom asks` and `answer` against a minimal service.

use std::sync::{Arc, Mutex};

use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::{Value, json};

use crate::command::{greenroom, run_command};

/// Starts a service with two open requests. Returns its address and the received answers.
async fn service() -> (String, Arc<Mutex<Vec<(String, Value)>>>) {
    let answers: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let kept = answers.clone();
    let server = HttpServer::new(move || {
        let kept = kept.clone();
        let list = || async {
            let ask = |id: &str, kind: &str, what: &str| {
                json!({"id": id, "kind": kind, "what": what, "taskID": "bg_00000001",
                       "sessionID": "ses_1", "since": "2026-01-01T00:00:00.000Z", "agent": "general"})
            };
            HttpResponse::Ok().json(json!({"asks": [
                ask("per_1a", "permission", "bash rm -r \u{1b}[2Jbuild"),
                ask("que_1b", "question", "Which\none?"),
                ask("que_1c", "question", "And then?"),
            ]}))
        };
        let answer = move |id: web::Path<String>, body: web::Json<Value>| {
            let kept = kept.clone();
            async move {
                if id.as_str() == "per_gone" {
                    let error = json!({"code": "ask_not_found", "message": "no open request per_gone", "hint": "look again"});
                    return HttpResponse::NotFound().json(json!({ "error": error }));
                }
                kept.lock().unwrap().push((id.into_inner(), body.into_inner()));
                HttpResponse::Ok().json(json!({"task": {}}))
            }
        };
        App::new()
            .route("/v1/asks", web::get().to(list))
            .route("/v1/asks/{id}", web::post().to(answer))
    })
    .workers(1)
    .disable_signals()
    .bind("127.0.0.1:0")
    .unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    actix_rt::spawn(server.run());
    reqwest::get(format!("{url}/v1/asks")).await.unwrap();
    (url, answers)
}

#[actix_rt::test]
async fn asks_are_listed_and_answered() {
    let (url, answers) = service().await;
    let run =
        async |args: &[&str]| run_command(greenroom(&[args, &["--url", &url]].concat())).await;

    let listed = run(&["asks"]).await;
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    let lines: Vec<&str> = listed.stdout.lines().collect();
    assert!(lines[0].starts_with("ASK     TASK"), "{}", listed.stdout);
    assert!(lines[1].starts_with("per_1a  bg_00000001  permission"));
    assert!(lines[1].ends_with("bash rm -r [2Jbuild") && lines[2].ends_with("Which one?"));
    assert!(
        listed
            .stderr
            .contains("greenroom answer per_1a once|always|reject")
    );
    let json = run(&["asks", "--json"]).await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["asks"][1]["id"], "que_1b");

    for answer in [
        &["answer", "per_1a", "once"][..],
        &["answer", "per", "always"],
        &["answer", "que_1b", "reject"],
        &["answer", "que_1c", "--say", "this", "--say", "that"],
    ] {
        let answered = run(answer).await;
        assert_eq!(answered.code, 0, "{answer:?}: {}", answered.stderr);
    }
    let given = answers.lock().unwrap().clone();
    let wanted = [
        ("per_1a", json!({"answer": "once"})),
        ("per_1a", json!({"answer": "always"})),
        ("que_1b", json!({"answer": "reject"})),
        ("que_1c", json!({"answers": [["this"], ["that"]]})),
    ];
    assert_eq!(given, wanted.map(|(id, body)| (id.to_owned(), body)));

    let several = run(&["answer", "que", "reject"]).await;
    assert_eq!((several.code, several.stdout.as_str()), (1, ""));
    assert!(
        several.stderr.contains("more than one"),
        "{}",
        several.stderr
    );
    let gone = run(&["answer", "per_gone", "once"]).await;
    assert_eq!(gone.code, 1);
    assert!(gone.stderr.contains("per_gone"), "{}", gone.stderr);
    for wrong in [
        &["answer", "per_1a"][..],
        &["answer", "per_1a", "maybe"],
        &["answer", "per_1a", "once", "--say", "x"],
        &["answer"],
    ] {
        let refused = run(wrong).await;
        assert_eq!(
            (refused.code, refused.stdout.as_str()),
            (2, ""),
            "{wrong:?}"
        );
    }
}
