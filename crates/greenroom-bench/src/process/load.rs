//! A long run: load of every kind on a service with its journal on disk, at a bounded rate, for many minutes, while its
//! memory is sampled. What is kept for a while is kept for seconds here, so that a service that forgets is flat.
//! `cargo xtask load` calls it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::agent::Agent;
use super::sample::{middle, resident, slope};
use super::service::Service;

/// How long, and how much.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How long the load lasts
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    minutes: u64,
    /// Launches a second
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=500))]
    rate: u64,
    /// Print every sample as a line `seconds bytes` to stdout
    #[arg(long)]
    samples: bool,
}

/// Between two samples of the memory.
const SAMPLE: Duration = Duration::from_secs(2);
/// One call, blocking reads included.
const CALL: Duration = Duration::from_secs(30);
/// A connection that was idle for so long is not used again: the service closes it soon, and a call on its way then is lost.
const IDLE: Duration = Duration::from_secs(2);
/// Tasks whose life is followed at a time, for each launch a second; a launch beyond them is left out and counted.
const AT_ONCE: u64 = 10;
/// Launches of one parent and of one agent in ten seconds. At every rate a parent comes to the end of its batches, and an
/// agent's line is empty now and then, so that what grows with them does not pass for what is lost with each task.
const OF_PARENT: u64 = 10;
const OF_AGENT: u64 = 25;
/// The last third may hold so much more than the one before it: what a sample may be off by. In 20 minutes 200 bytes lost
/// with each task are more than that.
const GROWTH: f64 = 0.03;
/// How long ended tasks and the journal's are kept, and how often it polls: minutes, days and seconds in real life.
const SET: [&str; 3] = [
    "lifecycle.keep_ended=10s",
    "lifecycle.retention=60s",
    "lifecycle.poll_interval=1s",
];

/// Runs it, and says how memory went.
///
/// # Errors
/// The service did not come up, ended, failed calls, or its memory still grew at the end.
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
    tell(&samples, &clients, last)
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
                if clients.under_way() < AT_ONCE * options.rate {
                    tokio::spawn(Arc::clone(&clients).live());
                } else {
                    clients.left_out.fetch_add(1, Ordering::Relaxed);
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
    // What is under way comes to its end, so that the end of the service is an orderly one.
    let end = Instant::now() + CALL;
    while clients.under_way() > 0 && Instant::now() < end {
        sleep(Duration::from_millis(100)).await;
    }
    Ok((samples, clients))
}

fn tell(samples: &[(f64, f64)], clients: &Clients, last: u64) -> Result<(), String> {
    const MIB: f64 = 1024.0 * 1024.0;
    let third = samples.len() / 3;
    let (begin, rest) = samples.split_at(third);
    let (second, third) = rest.split_at(rest.len() / 2);
    let (before, after) = (middle(second), middle(third));
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "tasks followed to their end {}, left out {}, calls {}, failed {}\n\
         resident memory, middle of each third: {:.1}, {:.1}, {:.1} MiB; {:.1} MiB after the last task\n\
         slope after the first third: {:+.1} KiB a minute, in the last third {:+.1}",
        count(&clients.ended),
        count(&clients.left_out),
        count(&clients.calls),
        count(&clients.failed),
        middle(begin) / MIB,
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
            "memory still grows: {:.1} % more in the last third than in the one before it",
            (after / before - 1.0) * 100.0
        ));
    }
    Ok(())
}

/// Whoever calls the service: launches, and follows what it launched to its end.
#[derive(Debug)]
struct Clients {
    client: Client,
    url: String,
    /// Sessions that launch; each one's history is full after a hundred tasks.
    parents: u64,
    agents: u64,
    begun: AtomicU64,
    ended: AtomicU64,
    left_out: AtomicU64,
    calls: AtomicU64,
    failed: AtomicU64,
}

/// A call that was not answered as it should have been.
#[derive(Debug)]
struct Failed(String);

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
            left_out: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    fn under_way(&self) -> u64 {
        self.begun.load(Ordering::Relaxed) - self.ended.load(Ordering::Relaxed)
    }

    /// One task from its launch to its end, of the kind whose turn it is.
    async fn live(self: Arc<Self>) {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        if let Err(Failed(problem)) = self.life(number).await {
            eprintln!("task {number}: {problem}");
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    async fn life(&self, number: u64) -> Result<(), Failed> {
        let kind = number % 10;
        // One that is resumed works twice: no life may be much longer than the time between two launches of a parent, or
        // its batch would have no end and grow, as it should.
        let wait = match kind {
            4 | 5 => 50 + number * 37 % 750,
            _ => 50 + number * 37 % 1500,
        };
        let prompt = match kind {
            0 | 1 => format!("fail {wait}"),
            2 | 3 => "hang until somebody cancels".to_owned(),
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
        // Now and then somebody looks at everything.
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

    /// Blocks until it has ended, and reads its messages.
    async fn until_ended(&self, of_task: &str) -> Result<Value, Failed> {
        for _ in 0..10 {
            let path = format!("{of_task}/output?block=true&timeoutMs=10000&fullSession=true");
            let output = self.get(&path, &[200]).await?;
            if output["task"]["completedAt"].is_string() {
                return Ok(output);
            }
        }
        Err(Failed(format!("{of_task} has no end")))
    }

    /// Reads the stream of changes, for a few seconds at a time.
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
            // It is cut off, or ends by itself.
            let _ = tokio::time::timeout(Duration::from_secs(5), reading).await;
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn get(&self, path: &str, wanted: &[u16]) -> Result<Value, Failed> {
        self.call(Method::GET, path, None, wanted).await
    }

    async fn post(&self, path: &str, body: &Value, wanted: &[u16]) -> Result<Value, Failed> {
        self.call(Method::POST, path, Some(body), wanted).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wanted: &[u16],
    ) -> Result<Value, Failed> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let failed = |problem: &dyn std::fmt::Display| Failed(format!("{path}: {problem}"));
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
        // Metrics are no JSON; nobody reads them here.
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

/// What a call that was not answered says of itself is the least; why is below it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}
