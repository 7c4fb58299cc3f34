//! A long run: load of every kind on a service with its journal on disk, at a bounded rate, for many minutes, while its
//! memory is sampled. Retention times are seconds here, so that the memory of a correct service stays flat. Called by
//! `cargo xtask load`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::agent::Agent;
use super::sample::{median, resident, slope};
use super::service::Service;

/// The options of a load run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How long the load lasts
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    minutes: u64,
    /// Launches per second
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=500))]
    rate: u64,
    /// Print every sample as a line `seconds bytes` to stdout
    #[arg(long)]
    samples: bool,
}

/// The interval between two samples of the memory.
const SAMPLE: Duration = Duration::from_secs(2);
/// The time limit of one call, blocking reads included.
const CALL: Duration = Duration::from_secs(30);
/// The time after which an idle connection is not used again: the service closes it soon, and would lose the call.
const IDLE: Duration = Duration::from_secs(2);
/// The number of tasks followed at a time, per launch per second; further launches are skipped and counted.
const CONCURRENT: u64 = 10;
/// Launches of one parent and of one agent in ten seconds. At every rate the batches of a parent end, and the queue of an
/// agent is sometimes empty, so that their growth is not mistaken for a leak per task.
const OF_PARENT: u64 = 10;
const OF_AGENT: u64 = 25;
/// The allowed growth from the second to the last third, as a fraction: the error of a sample. A leak of 200 bytes per task
/// exceeds it in 20 minutes.
const GROWTH: f64 = 0.03;
/// Retention times and poll interval of the service; in production they are minutes, days and seconds.
const SET: [&str; 3] = [
    "lifecycle.keep_ended=10s",
    "lifecycle.retention=60s",
    "lifecycle.poll_interval=1s",
];

/// Runs the load, and prints the memory figures.
///
/// # Errors
/// Returns a text if the service did not start, ended, failed calls, or its memory still grew at the end.
pub fn run(options: &Options) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let agent = Agent::start()?;
    let service = Service::start(&agent.url(), &folder.path().join("journal.db"), &SET)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let (samples, clients) = runtime.block_on(drive(&service, options))?;
    let last = resident(service.pid())?;
    service.stop()?;
    report(&samples, &clients, last)
}

type Samples = Vec<(f64, f64)>;

async fn drive(service: &Service, options: &Options) -> Result<(Samples, Arc<Clients>), String> {
    let clients = Arc::new(Clients::of(&service.url, options.rate)?);
    let begin = Instant::now();
    let length = Duration::from_secs(options.minutes * 60);
    let mut samples = Samples::new();
    let mut launches = interval(Duration::from_secs(1) / options.rate as u32);
    launches.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sampling = interval(SAMPLE);
    let follower = tokio::spawn(Arc::clone(&clients).follow());
    while begin.elapsed() < length {
        tokio::select! {
            _ = launches.tick() => {
                if clients.in_flight() < CONCURRENT * options.rate {
                    tokio::spawn(Arc::clone(&clients).run_task());
                } else {
                    clients.skipped.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ = sampling.tick() => {
                let bytes = resident(service.pid())? as f64;
                samples.push((begin.elapsed().as_secs_f64(), bytes));
                if options.samples {
                    println!("{:.0} {bytes:.0}", begin.elapsed().as_secs_f64());
                }
            }
        }
    }
    follower.abort();
    // Waits for the tasks in flight, so that the service stops with nothing open.
    let end = Instant::now() + CALL;
    while clients.in_flight() > 0 && Instant::now() < end {
        sleep(Duration::from_millis(100)).await;
    }
    Ok((samples, clients))
}

fn report(samples: &[(f64, f64)], clients: &Clients, last: u64) -> Result<(), String> {
    const MIB: f64 = 1024.0 * 1024.0;
    let third = samples.len() / 3;
    let (begin, rest) = samples.split_at(third);
    let (second, third) = rest.split_at(rest.len() / 2);
    let (before, after) = (median(second), median(third));
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "tasks followed to their end {}, left out {}, calls {}, failed {}\n\
         resident memory, median of each third: {:.1}, {:.1}, {:.1} MiB; {:.1} MiB after the last task\n\
         slope after the first third: {:+.1} KiB a minute, in the last third {:+.1}",
        count(&clients.ended),
        count(&clients.skipped),
        count(&clients.calls),
        count(&clients.failed),
        median(begin) / MIB,
        before / MIB,
        after / MIB,
        last as f64 / MIB,
        slope(rest) * 60.0 / 1024.0,
        slope(third) * 60.0 / 1024.0,
    );
    if count(&clients.failed) > 0 {
        return Err("calls failed: see above".to_owned());
    }
    if after > before * (1.0 + GROWTH) {
        return Err(format!(
            "memory still grows: {:.1} % more in the last third than in the second",
            (after / before - 1.0) * 100.0
        ));
    }
    Ok(())
}

/// The clients of the service: they launch tasks and follow them to their end.
#[derive(Debug)]
struct Clients {
    client: Client,
    url: String,
    /// The number of launching sessions; the history of each is full after a hundred tasks.
    parents: u64,
    agents: u64,
    begun: AtomicU64,
    ended: AtomicU64,
    skipped: AtomicU64,
    calls: AtomicU64,
    failed: AtomicU64,
}

/// A call with an unexpected answer.
#[derive(Debug)]
struct CallFailed(String);

impl Clients {
    fn of(url: &str, rate: u64) -> Result<Self, String> {
        let client = Client::builder()
            .no_proxy()
            .timeout(CALL)
            .pool_idle_timeout(IDLE)
            .build();
        Ok(Self {
            client: client.map_err(|error| error.to_string())?,
            url: url.to_owned(),
            parents: (rate * 10).div_ceil(OF_PARENT),
            agents: (rate * 10).div_ceil(OF_AGENT),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    fn in_flight(&self) -> u64 {
        self.begun.load(Ordering::Relaxed) - self.ended.load(Ordering::Relaxed)
    }

    /// Runs one task from its launch to its end, and counts it.
    async fn run_task(self: Arc<Self>) {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        if let Err(CallFailed(problem)) = self.follow_task(number).await {
            eprintln!("task {number}: {problem}");
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    async fn follow_task(&self, number: u64) -> Result<(), CallFailed> {
        let kind = number % 10;
        // A resumed task works twice. A task must not take much longer than the time between two launches of a parent, or
        // the batch would never end.
        let wait = match kind {
            4 | 5 => 50 + number * 37 % 750,
            _ => 50 + number * 37 % 1500,
        };
        let prompt = match kind {
            0 | 1 => format!("fail {wait}"),
            2 | 3 => "hang until a cancel".to_owned(),
            _ => format!("answer {wait}"),
        };
        let parent = format!("ses_parent{}", number % self.parents);
        let launch = json!({
            "description": format!("load {number}"),
            "prompt": format!("{prompt} {}", "and some more words of it ".repeat(20)),
            "agent": format!("agent{}", number / 10 % self.agents),
            "parentSessionID": parent,
        });
        let task = self.post("/v1/tasks", &launch, &[201]).await?;
        let id = task["id"].as_str().unwrap_or_default().to_owned();
        let of_task = format!("/v1/tasks/{id}");
        self.get(&of_task, &[200]).await?;
        if matches!(kind, 2 | 3) {
            sleep(Duration::from_millis(wait)).await;
            self.post(&format!("{of_task}/cancel"), &json!({}), &[200])
                .await?;
        }
        let ended = self.until_ended(&of_task).await?;
        if matches!(kind, 4 | 5)
            && let Some(session) = ended["task"]["sessionID"].as_str()
        {
            let again = json!({"prompt": format!("answer {wait}"), "parentSessionID": parent});
            let resume = format!("/v1/sessions/{session}/resume");
            self.post(&resume, &again, &[202]).await?;
            self.until_ended(&of_task).await?;
        }
        // Every fifth client reads everything.
        if number.is_multiple_of(5) {
            for path in [
                "/v1/tasks?limit=20".to_owned(),
                format!("{of_task}/why"),
                format!("/v1/sessions/{parent}/history"),
                format!("/v1/sessions/{parent}/notifications"),
                format!("/v1/sessions/{parent}/tasks?descendants=true"),
                "/v1/limits".to_owned(),
                "/metrics".to_owned(),
            ] {
                self.get(&path, &[200]).await?;
            }
        }
        Ok(())
    }

    /// Waits until the task has ended, and returns its output with all messages.
    async fn until_ended(&self, of_task: &str) -> Result<Value, CallFailed> {
        for _ in 0..10 {
            let path = format!("{of_task}/output?block=true&timeoutMs=10000&fullSession=true");
            let output = self.get(&path, &[200]).await?;
            if output["task"]["completedAt"].is_string() {
                return Ok(output);
            }
        }
        Err(CallFailed(format!("{of_task} has no end")))
    }

    /// Reads the stream of changes, a few seconds per connection.
    async fn follow(self: Arc<Self>) {
        loop {
            let opened = self
                .client
                .get(format!("{}/v1/events", self.url))
                .send()
                .await;
            let reading = async {
                if let Ok(mut answer) = opened {
                    while let Ok(Some(_)) = answer.chunk().await {}
                }
            };
            // The reading is cut off, or the stream ends.
            let _ = tokio::time::timeout(Duration::from_secs(5), reading).await;
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn get(&self, path: &str, wanted: &[u16]) -> Result<Value, CallFailed> {
        self.call(Method::GET, path, None, wanted).await
    }

    async fn post(&self, path: &str, body: &Value, wanted: &[u16]) -> Result<Value, CallFailed> {
        self.call(Method::POST, path, Some(body), wanted).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wanted: &[u16],
    ) -> Result<Value, CallFailed> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let failed = |problem: &dyn std::fmt::Display| CallFailed(format!("{path}: {problem}"));
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await;
        let answer = answer.map_err(|error| failed(&with_causes(&error)))?;
        let status = answer.status().as_u16();
        let text = answer.text().await;
        let text = text.map_err(|error| failed(&with_causes(&error)))?;
        if !wanted.contains(&status) {
            return Err(failed(&format!("{status} {text}")));
        }
        // Metrics are not JSON; their text is not used.
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

/// Returns the text of an error with all its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}
