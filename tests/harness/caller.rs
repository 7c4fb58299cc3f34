//! A client that survives restarts of the service: it keeps the current URL, and repeats a request that is not answered.
//! Used by stories that kill the service.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::until;

/// A client of a service that is restarted.
#[derive(Debug, Clone)]
pub struct Caller {
    url: Arc<Mutex<String>>,
    http: Client,
}

/// The answer to a repeated request.
#[derive(Debug)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Value,
    /// The number of requests that were sent.
    pub requests: u32,
}

impl Caller {
    /// Creates a client of the service at that URL.
    pub fn new(url: &str) -> Self {
        let http = Client::builder().timeout(Duration::from_secs(120)).build();
        Self {
            url: Arc::new(Mutex::new(url.to_owned())),
            http: http.expect("a client"),
        }
    }

    /// Sets the URL of the restarted service.
    pub fn set_url(&self, url: &str) {
        url.clone_into(&mut self.url.lock().expect("no holder panics"));
    }

    /// Returns a request to the current URL; it is not repeated.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = self.url.lock().expect("no holder panics").clone();
        self.http.request(method, format!("{url}{path}"))
    }

    /// Launches a task under a key, and repeats the request until it is answered. Returns the status, the task, and the
    /// number of requests.
    pub async fn launch(&self, key: &str, launch: &Value) -> Answered {
        let mut requests = 0;
        let (status, task) = until("a launch is answered", async || {
            requests += 1;
            let request = self
                .request(Method::POST, "/v1/tasks")
                .header("idempotency-key", key);
            answered(request.json(launch)).await
        })
        .await;
        Answered {
            status,
            body: task,
            requests,
        }
    }

    /// Sends a POST request, and repeats it until it is answered. Returns the status, the body, and the number of requests.
    pub async fn post(&self, path: &str, body: &Value) -> Answered {
        let mut requests = 0;
        let (status, answer) = until(path, async || {
            requests += 1;
            answered(self.request(Method::POST, path).json(body)).await
        })
        .await;
        Answered {
            status,
            body: answer,
            requests,
        }
    }

    /// Sends a GET request, and repeats it until it is answered.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        until(path, async || {
            answered(self.request(Method::GET, path)).await
        })
        .await
    }

    /// Returns a task.
    pub async fn task(&self, id: &str) -> Value {
        let (status, answer) = self.get(&format!("/v1/tasks/{id}")).await;
        assert_eq!(status, 200, "{answer}");
        answer.get("task").cloned().unwrap_or(answer)
    }
}

/// Returns a complete answer; `None` if the connection broke.
async fn answered(request: reqwest::RequestBuilder) -> Option<(u16, Value)> {
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    let text = answer.text().await.ok()?;
    let body = serde_json::from_str(&text).unwrap_or_else(|_| json!({"text": text}));
    Some((status, body))
}
