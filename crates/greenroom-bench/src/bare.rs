//! The baseline: bare actix actors that only pass messages, as many actors and messages as Greenroom needs at least.

use actix::{Actor, Addr, Context, Handler, Message};
use tokio::sync::mpsc;

use crate::clock::processor_time;

/// A task: it is passed on by two actors, and the third starts an actor for it.
struct Task(u64);

impl Message for Task {
    type Result = ();
}

/// An actor that passes each task to the next actor.
struct Forwarder<Next: Actor>(Addr<Next>);

impl<Next: Actor> Actor for Forwarder<Next> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
    }
}

impl<Next> Handler<Task> for Forwarder<Next>
where
    Next: Actor<Context = Context<Next>> + Handler<Task>,
{
    type Result = ();

    fn handle(&mut self, task: Task, _: &mut Context<Self>) {
        self.0.do_send(task);
    }
}

/// An actor that starts an actor for each task.
struct Starter {
    running: Vec<Addr<Runner>>,
    started: mpsc::UnboundedSender<u64>,
}

impl Actor for Starter {
    type Context = Context<Self>;
}

impl Handler<Task> for Starter {
    type Result = ();

    fn handle(&mut self, task: Task, _: &mut Context<Self>) {
        let running = Runner {
            number: task.0,
            started: Some(self.started.clone()),
            seen: 0,
        };
        self.running.push(running.start());
    }
}

/// The actor of a task.
struct Runner {
    number: u64,
    started: Option<mpsc::UnboundedSender<u64>>,
    seen: u64,
}

impl Actor for Runner {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        if let Some(started) = &self.started {
            // The receiver may be gone at the end.
            let _ = started.send(self.number);
        }
    }
}

/// An event for the actor of a task.
struct Event;

impl Message for Event {
    type Result = ();
}

impl Handler<Event> for Runner {
    type Result = ();

    fn handle(&mut self, _: Event, _: &mut Context<Self>) {
        self.seen += 1;
    }
}

/// Returns the rate at which tasks get their actor, in tasks per second.
pub async fn tasks_per_second(count: usize) -> f64 {
    let (started, mut starts) = mpsc::unbounded_channel();
    let starter = Starter {
        running: Vec::new(),
        started,
    }
    .start();
    let second = Forwarder(starter).start();
    let first = Forwarder(second).start();
    let begin = processor_time();
    for number in 0..count {
        first.do_send(Task(number as u64));
        if number % 64 == 63 {
            tokio::task::yield_now().await;
        }
    }
    for _ in 0..count {
        starts.recv().await;
    }
    count as f64 / (processor_time() - begin).as_secs_f64()
}

/// Returns the rate of messages to that many actors in turn, in messages per second.
pub async fn messages_per_second(messages: usize, actors: usize) -> f64 {
    let all = idle_actors(actors).await;
    let begin = processor_time();
    for number in 0..messages {
        all[number % actors].do_send(Event);
        if number % 256 == 255 {
            tokio::task::yield_now().await;
        }
    }
    // The actors that were woken run before this continues.
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    messages as f64 / (processor_time() - begin).as_secs_f64()
}

/// Returns the time of one message to each of that many actors, in microseconds.
pub async fn message_to_each(actors: usize, rounds: usize) -> f64 {
    let all = idle_actors(actors).await;
    let begin = processor_time();
    for _ in 0..rounds {
        for actor in &all {
            actor.do_send(Event);
        }
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }
    (processor_time() - begin).as_secs_f64() * 1e6 / rounds as f64
}

async fn idle_actors(count: usize) -> Vec<Addr<Runner>> {
    let all: Vec<_> = (0..count as u64)
        .map(|number| {
            Runner {
                number,
                started: None,
                seen: 0,
            }
            .start()
        })
        .collect();
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    all
}
