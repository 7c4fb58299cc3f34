//! Listing and answering the requests of children over HTTP.

use crate::support::{Host, assert_error};
use greenroom::domain::task::AskAnswer;
use serde_json::{Value, json};

/// Launches a task whose session asks, and returns the task's id once the request is listed.
async fn launch_with_ask(host: &Host, ask: &str, kind: &str) -> String {
    let body = json!({"description": "asks", "prompt": "wait", "agent": "general", "parentSessionID": "ses_p"});
    let (_, task) = host.post("/v1/tasks", body).await;
    let id = task["id"].as_str().unwrap().to_owned();
    let session = host.running(&id).await;
    let event = match kind {
        "permission" => "permission.asked",
        _ => "question.asked",
    };
    host.event(
        json!({"type": event, "properties": {"id": ask, "sessionID": session,
        "permission": "bash", "patterns": ["rm *"], "questions": [{"question": "Which one?"}]}}),
    )
    .await;
    let listed = async {
        while !open(host).await.iter().any(|open| open == ask) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), listed)
        .await
        .expect("it is listed");
    id
}

async fn open(host: &Host) -> Vec<String> {
    let (status, body) = host.get("/v1/asks").await;
    assert_eq!(status, 200);
    let asks = body["asks"].as_array().unwrap();
    asks.iter()
        .map(|ask| ask["id"].as_str().unwrap().to_owned())
        .collect()
}

#[actix_rt::test]
async fn permission_is_listed_and_answered() {
    let host = Host::start(&[]).await;
    let task = launch_with_ask(&host, "per_1", "permission").await;
    let (_, body) = host.get("/v1/asks").await;
    let ask = &body["asks"][0];
    let shown = ["kind", "what", "taskID", "parentSessionID", "agent"].map(|field| &ask[field]);
    assert_eq!(
        json!(shown),
        json!(["permission", "bash rm *", task, "ses_p", "general"])
    );
    assert!(ask["rejectedAt"].as_str() > ask["since"].as_str(), "{ask}");

    let (status, answered) = host
        .post("/v1/asks/per_1", json!({"answer": "always"}))
        .await;
    assert_eq!(status, 200);
    assert_eq!(answered["task"]["id"], json!(task));
    assert!(answered["task"].get("asking").is_none(), "{answered}");
    assert_eq!(
        host.fake.answers(),
        [("per_1".to_owned(), AskAnswer::Always)]
    );
    assert!(open(&host).await.is_empty());
    let (status, error) = host.post("/v1/asks/per_1", json!({"answer": "once"})).await;
    assert_error((status, &error), 404, "ask_not_found", "per_1");
    host.stop().await;
}

#[actix_rt::test]
async fn concurrent_answers_count_once() {
    let host = Host::start(&[]).await;
    launch_with_ask(&host, "per_1", "permission").await;
    let (one, two) = futures::join!(
        host.post("/v1/asks/per_1", json!({"answer": "once"})),
        host.post("/v1/asks/per_1", json!({"answer": "reject"}))
    );
    let mut statuses = [one.0, two.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404]);
    assert_eq!(host.fake.answers().len(), 1);
    host.stop().await;
}

#[actix_rt::test]
async fn question_is_answered_or_rejected() {
    let host = Host::start(&[]).await;
    launch_with_ask(&host, "que_1", "question").await;
    launch_with_ask(&host, "que_2", "question").await;
    launch_with_ask(&host, "per_1", "permission").await;
    let wrong: &[(&str, Value)] = &[
        ("que_1", json!({"answer": "once"})),
        ("per_1", json!({"answers": [["a"]]})),
        ("que_1", json!({})),
        ("que_1", json!({"answers": []})),
        ("que_1", json!({"answer": "perhaps"})),
        ("que_1", json!({"answer": "reject", "answers": [["a"]]})),
    ];
    for (ask, body) in wrong {
        let (status, error) = host.post(&format!("/v1/asks/{ask}"), body.clone()).await;
        assert_error((status, &error), 422, "invalid_value", "answer");
    }
    assert!(host.fake.answers().is_empty());
    let chosen = json!({"answers": [["a", "b"]], "answer": null});
    assert_eq!(host.post("/v1/asks/que_1", chosen).await.0, 200);
    let rejected = json!({"answer": "reject"});
    assert_eq!(host.post("/v1/asks/que_2", rejected).await.0, 200);
    let labels = AskAnswer::Answers(vec![vec!["a".to_owned(), "b".to_owned()]]);
    let wanted = [
        ("que_1".to_owned(), labels),
        ("que_2".to_owned(), AskAnswer::Reject),
    ];
    assert_eq!(host.fake.answers(), wanted);
    assert_eq!(open(&host).await, ["per_1"]);
    host.stop().await;
}
