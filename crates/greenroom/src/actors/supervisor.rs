//! Running an actor so that its death is seen. `actix::Supervisor` restarts nothing that panicked; here the actor's future
//! is awaited, and whoever is responsible hears how it ended.

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
    /// It panicked; the text of the panic.
    Panicked(String),
}

/// Starts an actor on the current arbiter and calls `on_exit` once when it has ended, also by a panic in a handler, a
/// timer or a future it spawned on its context, or while it was built. The actor's mailbox is closed by then.
pub fn spawn_supervised<A>(
    build: impl FnOnce(&mut Context<A>) -> A + Unpin + 'static,
    on_exit: impl FnOnce(Exit) + Unpin + 'static,
) -> Addr<A>
where
    A: Actor<Context = Context<A>>,
{
    let context = Context::new();
    let address = context.address();
    // Boxed, since the runtime moves what it is given several times on its way in and out.
    actix_rt::spawn(Box::pin(Supervised {
        state: ActorState::Building(build, context),
        on_exit: Some(on_exit),
        _live_count: LiveCount::of::<A>(),
    }));
    address
}

/// One after the other in the same place, so that an actor takes up no more than it needs.
enum ActorState<A: Actor<Context = Context<A>>, Build> {
    Building(Build, Context<A>),
    Running(ContextFut<A, Context<A>>),
    Ended,
}

/// An actor from its making to its end.
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
        // Built in here, so that a panic while it is built is its death and not that of whoever starts it.
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
        // The mailbox goes first; whatever is dropped with it may panic as well.
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
    // One entry a kind of actor. Actors live and end on the thread of their arbiter.
    static LIVE: RefCell<BTreeMap<&'static str, usize>> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts an actor for as long as it lives, however it ends.
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

/// How many actors of that kind live on this arbiter.
pub(super) fn live<A>() -> usize {
    let kind = std::any::type_name::<A>();
    LIVE.with_borrow(|live| live.get(kind).copied().unwrap_or(0))
}

/// The text of a panic.
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
    fn a_panic_is_reported_with_its_text() {
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
