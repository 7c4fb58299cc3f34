//! Detects that the runtime has no ready task. The runtime calls back before it parks, which is before it
//! would advance virtual time. A task that waits in [`Quiescence::settle`] is woken there, and a runtime that
//! was woken does not advance the clock.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::lock;

/// Waits until a runtime has no ready task. Supports one waiter at a time.
#[derive(Debug, Clone, Default)]
pub struct Quiescence {
    wait: Arc<Mutex<Wait>>,
}

#[derive(Debug, Default)]
enum Wait {
    /// No task waits.
    #[default]
    None,
    /// A task waits and is woken when no other task is ready.
    Waiting(Waker),
    /// The runtime became idle since the wait began.
    Over,
}

impl Quiescence {
    /// Returns a runtime with paused virtual time, which advances only when no task is ready.
    pub fn runtime(&self) -> std::io::Result<tokio::runtime::Runtime> {
        let quiescence = self.clone();
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(move || quiescence.on_idle())
            .build()
    }

    /// Waits until no other task is ready. Does not advance time. Works only on the runtime of
    /// [`Quiescence::runtime`].
    pub async fn settle(&self) {
        let mut begun = false;
        poll_fn(|context| {
            let mut wait = lock(&self.wait);
            if begun && matches!(*wait, Wait::Over) {
                *wait = Wait::None;
                return Poll::Ready(());
            }
            begun = true;
            *wait = Wait::Waiting(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn on_idle(&self) {
        let mut wait = lock(&self.wait);
        if let Wait::Waiting(waker) = std::mem::replace(&mut *wait, Wait::None) {
            *wait = Wait::Over;
            drop(wait);
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use actix::prelude::*;
    use tokio::time::{Instant, sleep, sleep_until, timeout};

    use super::*;

    /// An actor that counts down to zero through its own mailbox, and delays a countdown by some
    /// milliseconds.
    struct Counter {
        seen: Rc<RefCell<Vec<u32>>>,
    }

    impl Actor for Counter {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct CountDown(u32);

    impl Handler<CountDown> for Counter {
        type Result = ();

        fn handle(&mut self, CountDown(number): CountDown, context: &mut Self::Context) {
            self.seen.borrow_mut().push(number);
            if number > 0 {
                context.notify(CountDown(number - 1));
            }
        }
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Nap(u64);

    impl Handler<Nap> for Counter {
        type Result = ();

        fn handle(&mut self, Nap(millis): Nap, context: &mut Self::Context) {
            context.run_later(Duration::from_millis(millis), |_, context| {
                context.notify(CountDown(3))
            });
        }
    }

    fn in_virtual_time<F: Future>(story: impl FnOnce(Quiescence) -> F) -> F::Output {
        let quiescence = Quiescence::default();
        let runtime = quiescence.runtime().unwrap();
        System::with_tokio_rt(|| runtime).block_on(story(quiescence))
    }

    #[test]
    fn settle_processes_messages_without_advancing_time() {
        in_virtual_time(|quiescence| async move {
            let seen = Rc::new(RefCell::new(Vec::new()));
            let counter = Counter {
                seen: Rc::clone(&seen),
            }
            .start();
            let started = Instant::now();
            counter.do_send(Nap(5));
            counter.do_send(CountDown(1000));
            quiescence.settle().await;
            assert_eq!(seen.borrow().len(), 1001, "all of it is done");
            assert_eq!(
                started.elapsed(),
                Duration::ZERO,
                "and the nap has not passed"
            );
        });
    }

    #[test]
    fn repeated_settle_keeps_clock() {
        in_virtual_time(|quiescence| async move {
            let started = Instant::now();
            actix_rt::spawn(sleep(Duration::from_millis(1)));
            for _ in 0..100 {
                quiescence.settle().await;
            }
            assert_eq!(started.elapsed(), Duration::ZERO);
        });
    }

    #[test]
    fn due_timers_settle_before_step() {
        in_virtual_time(|quiescence| async move {
            let seen = Rc::new(RefCell::new(Vec::new()));
            let counter = Counter {
                seen: Rc::clone(&seen),
            }
            .start();
            counter.do_send(Nap(40));
            quiescence.settle().await;
            sleep_until(Instant::now() + Duration::from_millis(40)).await;
            quiescence.settle().await;
            assert_eq!(*seen.borrow(), [3, 2, 1, 0]);
        });
    }

    #[test]
    fn answer_wins_over_timeout_at_same_time() {
        in_virtual_time(|_| async {
            let answer = async {
                sleep(Duration::from_secs(10)).await;
                "answer"
            };
            assert_eq!(timeout(Duration::from_secs(10), answer).await, Ok("answer"));
        });
    }

    #[test]
    fn yielding_task_is_not_idle() {
        in_virtual_time(|quiescence| async move {
            let turns = Rc::new(RefCell::new(0));
            let counted = Rc::clone(&turns);
            actix_rt::spawn(async move {
                for _ in 0..500 {
                    tokio::task::yield_now().await;
                    *counted.borrow_mut() += 1;
                }
            });
            quiescence.settle().await;
            assert_eq!(*turns.borrow(), 500);
        });
    }
}
