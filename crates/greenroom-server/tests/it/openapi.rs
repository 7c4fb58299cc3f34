//! The OpenAPI document matches the running service, and its examples are accepted.

use std::collections::BTreeSet;

use crate::support::Host;
use reqwest::Method;
use serde_json::Value;

const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::PATCH,
];

fn filled(path: &str) -> String {
    path.replace("{id}", "bg_unknown")
        .replace("{sessionID}", "ses_unknown")
        .replace("{askID}", "per_unknown")
}

#[actix_rt::test]
async fn document_and_routes_match() {
    let host = Host::start(&[("token", "s3cret")]).await;
    let open: Value = serde_json::from_str(&host.text("/openapi.json").await).unwrap();
    assert_eq!(open["openapi"], "3.1.0");
    for (path, operations) in open["paths"].as_object().unwrap() {
        for method in METHODS {
            let documented = operations.get(method.as_str().to_lowercase());
            let answer = host
                .client
                .request(method.clone(), host.url(&filled(path)))
                .bearer_auth("s3cret")
                .send()
                .await
                .unwrap();
            let status = answer.status().as_u16();
            assert_eq!(status == 405, documented.is_none(), "{method} {path}");
            let Some(documented) = documented else {
                let allowed: BTreeSet<String> = answer.headers()["allow"]
                    .to_str()
                    .unwrap()
                    .split(", ")
                    .map(str::to_lowercase)
                    .collect();
                let named = operations.as_object().unwrap().keys().cloned().collect();
                assert_eq!(allowed, named, "{path}");
                continue;
            };
            assert!(
                documented["responses"][status.to_string()].is_object(),
                "{method} {path} answers {status}"
            );
            if method != Method::HEAD && status >= 400 {
                let error: Value = answer.json().await.unwrap();
                assert_ne!(error["error"]["code"], "no_such_route", "{path}");
                assert!(error["error"]["hint"].is_string(), "{path}: {error}");
            }
        }
    }
    host.stop().await;
}

#[actix_rt::test]
async fn examples_are_accepted() {
    let host = Host::start(&[]).await;
    let open: Value = serde_json::from_str(&host.text("/openapi.json").await).unwrap();
    let mut examples = 0;
    for (path, operations) in open["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if operation.get("requestBody").is_none() {
                continue;
            }
            let example = &operation["requestBody"]["content"]["application/json"]["example"];
            assert!(example.is_object(), "{method} {path} has no example");
            examples += 1;
            let method = method.to_uppercase().parse().unwrap();
            let (status, body) = host
                .request(method, &filled(path), &example.to_string())
                .await;
            assert!(matches!(status, 200..=299 | 404), "{path}: {status} {body}");
        }
    }
    assert!(examples >= 8, "{examples}");
    host.stop().await;
}

#[actix_rt::test]
async fn page_has_no_external_resources() {
    let host = Host::start(&[("token", "s3cret")]).await;
    let page = host.text("/docs").await;
    let body = page.replace("http://127.0.0.1:7717", "");
    for foreign in ["http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(!body.contains(foreign), "{foreign}");
    }
    for wanted in [
        "POST /v1/tasks/{id}/cancel",
        "Something is wrong?",
        "waitsFor",
        "idempotency_key_reused",
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
    let targets = page.split("href=\"#").skip(1);
    for target in targets.map(|rest| rest.split('"').next().unwrap()) {
        assert!(page.contains(&format!("id=\"{target}\"")), "#{target}");
    }
    host.stop().await;
}
