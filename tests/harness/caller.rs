//! A caller that outlives the service: it knows where the service listens now, and asks again when nobody answers, as a
//! careful program would. Stories that kill the service launch and read through it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::until;

/// Asks a service that comes and goes.
#[derive(Debug, Clone)]
pub struct Caller {
    url: Arc<Mutex<String>>,
    http: Client,
}

impl Caller {
    /// A caller of the service at that address.
    pub fn new(url: &str) -> Self {
        let http = Client::builder().timeout(Duration::from_secs(120)).build();
        Self {
            url: Arc::new(Mutex::new(url.to_owned())),
            http: http.expect("a client"),
        }
    }

    /// The service listens there from now on.
    pub fn moved(&self, url: &str) {
        url.clone_into(&mut self.url.lock().expect("nobody panics here"));
    }

    /// A request to where it listens now; what becomes of it is the story's business.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = self.url.lock().expect("nobody panics here").clone();
        self.http.request(method, format!("{url}{path}"))
    }

    /// Launches under a key, as often as it takes to be answered. Returns the status of the answer, the task, and how
    /// often it was asked.
    pub async fn launch(&self, key: &str, launch: &Value) -> (u16, Value, u32) {
        let mut asked = 0;
        let (status, task) = until("a launch is answered", async || {
            asked += 1;
            let request = self
                .request(Method::POST, "/v1/tasks")
                .header("idempotency-key", key);
            answered(request.json(launch)).await
        })
        .await;
        (status, task, asked)
    }

    /// POST, as often as it takes to be answered. Returns the status of the answer, what it says, and how often it was
    /// asked.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value, u32) {
        let mut asked = 0;
        let (status, answer) = until(path, async || {
            asked += 1;
            answered(self.request(Method::POST, path).json(body)).await
        })
        .await;
        (status, answer, asked)
    }

    /// GET, as often as it takes to be answered.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        until(path, async || {
            answered(self.request(Method::GET, path)).await
        })
        .await
    }

    /// A task as it is now.
    pub async fn task(&self, id: &str) -> Value {
        let (status, answer) = self.get(&format!("/v1/tasks/{id}")).await;
        assert_eq!(status, 200, "{answer}");
        answer.get("task").cloned().unwrap_or(answer)
    }
}

/// An answer that came whole; none if the connection did not last.
async fn answered(request: reqwest::RequestBuilder) -> Option<(u16, Value)> {
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    let text = answer.text().await.ok()?;
    let body = serde_json::from_str(&text).unwrap_or_else(|_| json!({"text": text}));
    Some((status, body))
}
