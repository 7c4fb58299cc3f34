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
        life: Life::Unborn(build, context),
        on_exit: Some(on_exit),
        _alive: Alive::of::<A>(),
    }));
    address
}

/// One after the other in the same place, so that an actor takes up no more than it needs.
enum Life<A: Actor<Context = Context<A>>, Build> {
    Unborn(Build, Context<A>),
    Running(ContextFut<A, Context<A>>),
    Over,
}

/// An actor from its making to its end.
struct Supervised<A: Actor<Context = Context<A>>, Build, OnExit> {
    life: Life<A, Build>,
    on_exit: Option<OnExit>,
    _alive: Alive,
}

impl<A, Build, OnExit> Future for Supervised<A, Build, OnExit>
where
    A: Actor<Context = Context<A>>,
    Build: FnOnce(&mut Context<A>) -> A + Unpin,
    OnExit: FnOnce(Exit) + Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Waking<'_>) -> Poll<()> {
        let life = &mut self.life;
        // Built in here, so that a panic while it is built is its death and not that of whoever starts it.
        let lived = catch_unwind(AssertUnwindSafe(|| {
            if let Life::Unborn(..) = life
                && let Life::Unborn(build, mut context) = std::mem::replace(life, Life::Over)
            {
                let actor = build(&mut context);
                *life = Life::Running(context.into_future(actor));
            }
            match life {
                Life::Running(actor) => Pin::new(actor).poll(cx),
                Life::Unborn(..) | Life::Over => Poll::Ready(()),
            }
        }));
        let mut exit = match lived {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => Exit::Finished,
            Err(panic) => Exit::Panicked(panic_text(&*panic)),
        };
        // The mailbox goes first; whatever is dropped with it may panic as well.
        let life = &mut self.life;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| *life = Life::Over)) {
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
struct Alive(&'static str);

impl Alive {
    fn of<A>() -> Self {
        let kind = std::any::type_name::<A>();
        LIVE.with_borrow_mut(|live| *live.entry(kind).or_default() += 1);
        Self(kind)
    }
}

impl Drop for Alive {
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

    struct Glass;

    impl Actor for Glass {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Fall;

    impl Handler<Fall> for Glass {
        type Result = ();

        fn handle(&mut self, _: Fall, _: &mut Self::Context) {
            panic!("broken");
        }
    }

    #[test]
    fn the_death_of_an_actor_is_heard_with_its_reason() {
        System::new().block_on(async {
            let (told, hears) = tokio::sync::oneshot::channel();
            let glass = spawn_supervised(
                |_| Glass,
                |exit| {
                    let _ = told.send(exit);
                },
            );
            assert_eq!(live::<Glass>(), 1);
            glass.do_send(Fall);
            assert_eq!(hears.await.unwrap(), Exit::Panicked("broken".to_owned()));
            assert_eq!(live::<Glass>(), 0);
        });
    }
}
