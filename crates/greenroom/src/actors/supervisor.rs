//! Running an actor so that its death is seen. `actix::Supervisor` restarts nothing that panicked; here the actor's future
//! is awaited, and whoever is responsible hears how it ended.

use std::cell::RefCell;
use std::collections::BTreeMap;

use actix::{Actor, Addr, AsyncContext, Context};
use tokio::task::JoinHandle;

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
    build: impl FnOnce(&mut Context<A>) -> A + 'static,
    on_exit: impl FnOnce(Exit) + 'static,
) -> Addr<A>
where
    A: Actor<Context = Context<A>>,
{
    let mut context = Context::new();
    let address = context.address();
    let alive = Alive::of::<A>();
    let running: JoinHandle<()> = actix_rt::spawn(async move {
        let _alive = alive;
        // Built in here, so that a panic while it is built is its death and not that of whoever starts it.
        let actor = build(&mut context);
        context.into_future(actor).await;
    });
    actix_rt::spawn(async move {
        let exit = match running.await {
            Err(failure) if failure.is_panic() => {
                Exit::Panicked(panic_text(&*failure.into_panic()))
            }
            _ => Exit::Finished,
        };
        on_exit(exit);
    });
    address
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
pub(super) fn living<A>() -> usize {
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
            assert_eq!(living::<Glass>(), 1);
            glass.do_send(Fall);
            assert_eq!(hears.await.unwrap(), Exit::Panicked("broken".to_owned()));
            assert_eq!(living::<Glass>(), 0);
        });
    }
}
