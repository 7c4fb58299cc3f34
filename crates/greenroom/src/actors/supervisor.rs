//! Spawning of supervised actors. `actix::Supervisor` does not restart an actor that panicked; here the actor's future is
//! awaited, panics are caught, and a callback receives the exit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context as Waking, Poll};

use actix::dev::ContextFut;
use actix::{Actor, Addr, AsyncContext, Context};

/// How an actor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Its last address was dropped, or it stopped by itself.
    Finished,
    /// It panicked, with this text.
    Panicked(String),
}

/// Starts an actor on the current arbiter and calls `on_exit` once when it has ended: also after a panic in `build`, in a
/// handler, in a timer or in a future spawned on its context. The mailbox is closed by then.
pub fn spawn_supervised<A>(
    build: impl FnOnce(&mut Context<A>) -> A + Unpin + 'static,
    on_exit: impl FnOnce(Exit) + Unpin + 'static,
) -> Addr<A>
where
    A: Actor<Context = Context<A>>,
{
    let context = Context::new();
    let address = context.address();
    // Boxed, since the runtime moves a spawned future several times.
    actix_rt::spawn(Box::pin(Supervised {
        state: ActorState::Building(build, context),
        on_exit: Some(on_exit),
        _live_count: LiveCount::of::<A>(),
    }));
    address
}

/// The states of a supervised actor, in one allocation.
enum ActorState<A: Actor<Context = Context<A>>, Build> {
    Building(Build, Context<A>),
    Running(ContextFut<A, Context<A>>),
    Ended,
}

/// The future of an actor, from `build` to its end.
struct Supervised<A: Actor<Context = Context<A>>, Build, OnExit> {
    state: ActorState<A, Build>,
    on_exit: Option<OnExit>,
    _live_count: LiveCount,
}

impl<A, Build, OnExit> Future for Supervised<A, Build, OnExit>
where
    A: Actor<Context = Context<A>>,
    Build: FnOnce(&mut Context<A>) -> A + Unpin,
    OnExit: FnOnce(Exit) + Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Waking<'_>) -> Poll<()> {
        let state = &mut self.state;
        // Built here, so that a panic of `build` ends this actor and not its creator.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if let ActorState::Building(..) = state
                && let ActorState::Building(build, mut context) =
                    std::mem::replace(state, ActorState::Ended)
            {
                let actor = build(&mut context);
                *state = ActorState::Running(context.into_future(actor));
            }
            match state {
                ActorState::Running(actor) => Pin::new(actor).poll(cx),
                ActorState::Building(..) | ActorState::Ended => Poll::Ready(()),
            }
        }));
        let mut exit = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => Exit::Finished,
            Err(panic) => Exit::Panicked(panic_text(&*panic)),
        };
        // The mailbox is dropped before `on_exit`; a drop inside it may panic as well.
        let state = &mut self.state;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| *state = ActorState::Ended)) {
            exit = Exit::Panicked(panic_text(&*panic));
        }
        if let Some(on_exit) = self.on_exit.take() {
            on_exit(exit);
        }
        Poll::Ready(())
    }
}

thread_local! {
    // One entry per actor type. Actors start and end on the thread of their arbiter.
    static LIVE: RefCell<BTreeMap<&'static str, usize>> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts an actor until it is dropped.
struct LiveCount(&'static str);

impl LiveCount {
    fn of<A>() -> Self {
        let kind = std::any::type_name::<A>();
        LIVE.with_borrow_mut(|live| *live.entry(kind).or_default() += 1);
        Self(kind)
    }
}

impl Drop for LiveCount {
    fn drop(&mut self) {
        // The thread may be ending, and a panic in a drop would end the process.
        let _ = LIVE.try_with(|live| {
            if let Some(count) = live
                .try_borrow_mut()
                .ok()
                .as_mut()
                .and_then(|live| live.get_mut(self.0))
            {
                *count = count.saturating_sub(1);
            }
        });
    }
}

/// Returns the number of running actors of that type on this arbiter.
pub(super) fn live<A>() -> usize {
    let kind = std::any::type_name::<A>();
    LIVE.with_borrow(|live| live.get(kind).copied().unwrap_or(0))
}

/// Returns the text of a panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|&text| text.to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::{Handler, Message, System};

    struct Panicking;

    impl Actor for Panicking {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Panic;

    impl Handler<Panic> for Panicking {
        type Result = ();

        fn handle(&mut self, _: Panic, _: &mut Self::Context) {
            panic!("broken");
        }
    }

    #[test]
    fn panic_is_reported_with_its_text() {
        System::new().block_on(async {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let actor = spawn_supervised(
                |_| Panicking,
                |exit| {
                    let _ = sender.send(exit);
                },
            );
            assert_eq!(live::<Panicking>(), 1);
            actor.do_send(Panic);
            assert_eq!(receiver.await.unwrap(), Exit::Panicked("broken".to_owned()));
            assert_eq!(live::<Panicking>(), 0);
        });
    }
}
