//! The bare mechanism: actix actors that do nothing but pass messages, as many of them and as many messages as Greenroom
//! needs at least. What Greenroom's figures are held against.

use actix::{Actor, Addr, Context, Handler, Message};
use tokio::sync::mpsc;

use crate::clock::processor_time;

/// A task on its way: three messages, and an actor at the end.
struct Task(u64);

impl Message for Task {
    type Result = ();
}

/// Passes on to the next.
struct Passing<Next: Actor>(Addr<Next>);

impl<Next: Actor> Actor for Passing<Next> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
    }
}

impl<Next> Handler<Task> for Passing<Next>
where
    Next: Actor<Context = Context<Next>> + Handler<Task>,
{
    type Result = ();

    fn handle(&mut self, task: Task, _: &mut Context<Self>) {
        self.0.do_send(task);
    }
}

/// Starts an actor for each task, and keeps it.
struct Starting {
    running: Vec<Addr<Running>>,
    told: mpsc::UnboundedSender<u64>,
}

impl Actor for Starting {
    type Context = Context<Self>;
}

impl Handler<Task> for Starting {
    type Result = ();

    fn handle(&mut self, task: Task, _: &mut Context<Self>) {
        let running = Running {
            number: task.0,
            told: Some(self.told.clone()),
            seen: 0,
        };
        self.running.push(running.start());
    }
}

/// One of many.
struct Running {
    number: u64,
    told: Option<mpsc::UnboundedSender<u64>>,
    seen: u64,
}

impl Actor for Running {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        if let Some(told) = &self.told {
            // Nobody counts at the very end.
            let _ = told.send(self.number);
        }
    }
}

/// Something for one of many.
struct Event;

impl Message for Event {
    type Result = ();
}

impl Handler<Event> for Running {
    type Result = ();

    fn handle(&mut self, _: Event, _: &mut Context<Self>) {
        self.seen += 1;
    }
}

/// How many tasks a second come through three messages to an actor of their own.
pub async fn tasks_per_second(count: usize) -> f64 {
    let (told, mut started) = mpsc::unbounded_channel();
    let starting = Starting {
        running: Vec::new(),
        told,
    }
    .start();
    let second = Passing(starting).start();
    let first = Passing(second).start();
    let begin = processor_time();
    for number in 0..count {
        first.do_send(Task(number as u64));
        if number % 64 == 63 {
            tokio::task::yield_now().await;
        }
    }
    for _ in 0..count {
        started.recv().await;
    }
    count as f64 / (processor_time() - begin).as_secs_f64()
}

/// How many messages a second reach actors, spread over so many of them.
pub async fn messages_per_second(messages: usize, actors: usize) -> f64 {
    let all = idle_actors(actors).await;
    let begin = processor_time();
    for number in 0..messages {
        all[number % actors].do_send(Event);
        if number % 256 == 255 {
            tokio::task::yield_now().await;
        }
    }
    // Whoever was woken has its turn before this.
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    messages as f64 / (processor_time() - begin).as_secs_f64()
}

/// How long one message to each of so many actors takes, in microseconds.
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

async fn idle_actors(count: usize) -> Vec<Addr<Running>> {
    let all: Vec<_> = (0..count as u64)
        .map(|number| {
            Running {
                number,
                told: None,
                seen: 0,
            }
            .start()
        })
        .collect();
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    all
}
