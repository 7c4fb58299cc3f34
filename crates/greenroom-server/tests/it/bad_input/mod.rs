//! Random input from callers and servers: no panic, no 500, an error that names the problem, and a service that still
//! works. `GREENROOM_BAD_INPUTS` sets the number of inputs, `GREENROOM_BAD_INPUTS_SEED` the seed.

mod rng;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::Host;
use futures::StreamExt;
use greenroom::domain::session_event::{SessionEvent, read_retry};
use greenroom::domain::transcript::{Message, Part, error_text};
use greenroom_bridge::protocol::FromBridge;
use reqwest::Method;
use rng::{NAMES, NUMBERS, Rng, any, body, shaped};
use serde_json::{Value, json};

/// Returns the number of inputs: half are requests, half go to the parsers.
fn inputs() -> usize {
    env_number("GREENROOM_BAD_INPUTS").map_or(20_000, |inputs| usize::try_from(inputs).unwrap())
}

fn env_number(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().expect("a number"))
}

struct Target {
    method: Method,
    path: String,
    example: Option<Value>,
    /// The fields of its body or query.
    names: Vec<String>,
    statuses: BTreeSet<u16>,
}

fn targets(document: &Value) -> Vec<Target> {
    let mut targets = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let content = &operation["requestBody"]["content"]["application/json"];
            let schema = content["schema"]["$ref"]
                .as_str()
                .map(|name| &document["components"]["schemas"][name.rsplit('/').next().unwrap()]);
            let fields = schema.and_then(|schema| schema["properties"].as_object());
            let query = operation["parameters"].as_array().into_iter().flatten();
            let query = query.filter(|parameter| parameter["in"] == "query");
            let in_query = query.map(|parameter| parameter["name"].as_str().unwrap().to_owned());
            let names: Vec<String> = match fields {
                Some(fields) => fields.keys().cloned().collect(),
                None => in_query.collect(),
            };
            let example = content.get("example").cloned();
            if example.is_none() && names.is_empty() {
                continue;
            }
            let statuses = operation["responses"].as_object().unwrap().keys();
            targets.push(Target {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                example,
                names,
                statuses: statuses.map(|status| status.parse().unwrap()).collect(),
            });
        }
    }
    targets
}

const IDS: [&str; 10] = [
    "bg_unknown",
    "bg_",
    "ses_1",
    "ses_2",
    "per_1",
    "%00",
    "%ff%fe",
    "..%2f..%2fetc",
    "a%20b",
    "%F0%9F%98%80",
];

/// Sends one input and checks the response. Returns true if the service accepted it.
async fn try_one(host: &Host, target: &Target, known: &BTreeSet<String>, number: usize) -> bool {
    let rng = &mut Rng::from_seed(number as u64);
    let mut path = target.path.clone();
    for name in ["{id}", "{sessionID}", "{askID}"] {
        path = path.replace(name, IDS[rng.below(IDS.len())]);
    }
    let text = match &target.example {
        Some(example) => body(rng, example, &target.names),
        None => {
            let mut query = Vec::new();
            for _ in 0..=rng.below(3) {
                let name = if rng.below(6) == 0 {
                    rng.pick(&NAMES).to_string()
                } else {
                    rng.pick(&target.names).clone()
                };
                let value = match rng.below(3) {
                    0 => rng.pick(&NUMBERS),
                    1 => rng.pick(&[
                        "",
                        "true",
                        "false",
                        "%00",
                        "%zz",
                        "pending,running",
                        "1",
                        "2026-01-01T00:00:00Z",
                    ]),
                    _ => rng.pick(&IDS),
                };
                // A blocking read would delay the others.
                if name != "block" {
                    query.push(format!("{name}={value}"));
                }
            }
            path = format!("{path}?{}", query.join("&"));
            String::new()
        }
    };
    let case = || {
        let shown: String = text.chars().take(400).collect();
        format!("input {number}: {} {path} {shown}", target.method)
    };
    let request = host.client.request(target.method.clone(), host.url(&path));
    let answer = request.body(text.clone()).send().await;
    let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", case()));
    let status = answer.status().as_u16();
    assert!(
        target.statuses.contains(&status),
        "{}: {status} is not documented",
        case()
    );
    if status < 400 {
        return true;
    }
    let error: Value = answer
        .json()
        .await
        .unwrap_or_else(|_| panic!("{}: {status}", case()));
    let [code, message, hint] =
        ["code", "message", "hint"].map(|field| error["error"][field].as_str().unwrap_or_default());
    assert!(
        !code.is_empty() && !message.is_empty() && !hint.is_empty(),
        "{}: {error}",
        case()
    );
    if matches!(code, "invalid_value" | "unknown_field" | "invalid_query") {
        let named =
            message.contains('`') || known.iter().any(|name| message.contains(name.as_str()));
        assert!(named, "{}: {error} names no field", case());
    }
    false
}

/// Number of panics since [`watch_panics`], caught or not.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn watch_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let of_product = panic
                .location()
                .is_some_and(|place| place.file().contains("/src/"));
            if of_product {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(panic);
        }));
    });
}

#[actix_rt::test]
async fn random_requests_do_not_break_the_service() {
    watch_panics();
    let host = Host::start(&[("limits.default", "1")]).await;
    let document: Value = serde_json::from_str(&host.text("/openapi.json").await).unwrap();
    let targets = targets(&document);
    let writing = targets
        .iter()
        .filter(|target| target.example.is_some())
        .count();
    assert!(writing >= 8, "{writing}");
    let schemas = document["components"]["schemas"]
        .as_object()
        .unwrap()
        .values();
    let mut known: BTreeSet<String> = schemas
        .filter_map(|schema| schema["properties"].as_object())
        .flat_map(|fields| fields.keys().cloned())
        .collect();
    known.extend(
        targets
            .iter()
            .flat_map(|target| target.names.iter().cloned()),
    );
    known.insert("Idempotency-Key".to_owned());

    let tried = futures::stream::iter(0..inputs() / 2).map(|number| {
        let target = &targets[number % targets.len()];
        try_one(&host, target, &known, number)
    });
    let taken: Vec<bool> = tried.buffer_unordered(16).collect().await;
    // The inputs must be neither all invalid nor all valid.
    let share = taken.iter().filter(|taken| **taken).count() * 100 / taken.len();
    assert!(
        (5..95).contains(&share),
        "{share} % of {} were taken",
        taken.len()
    );
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);

    // The service still works.
    assert_eq!(
        host.post("/v1/tasks/cancel", json!({"all": true})).await.0,
        200
    );
    let limits = r#"{"default": null, "max": null}"#;
    assert_eq!(host.request(Method::PUT, "/v1/limits", limits).await.0, 200);
    let after = json!({"description": "after", "prompt": "all that", "agent": "explore"});
    let (status, task) = host.post("/v1/tasks", after).await;
    assert_eq!(status, 201);
    let session = host.running(task["id"].as_str().unwrap()).await;
    host.finish(&session).await;
    let ended = host.ended(task["id"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "completed");
    host.stop().await;
}

#[test]
fn random_events_and_frames_do_not_panic() {
    for number in 0..inputs() / 2 {
        let rng = &mut Rng::from_seed(u64::MAX - number as u64);
        let text = if rng.below(3) == 0 {
            any(rng, 4)
        } else {
            shaped(rng)
        };
        let shown: String = text.chars().take(400).collect();
        let read = std::panic::catch_unwind(AssertUnwindSafe(|| {
            FromBridge::read(&text);
            let Ok(value) = serde_json::from_str::<Value>(&text) else {
                return;
            };
            SessionEvent::read(&value);
            Message::read(&value);
            Message::read_info(&value);
            Part::read(&value);
            error_text(&value);
            read_retry(&value);
        }));
        assert!(read.is_ok(), "input {number}: {shown}");
    }
}
