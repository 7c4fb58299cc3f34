//! Toaster: owns the toasts on the user's screen, sent by the registry. It has one call in flight at a time and keeps only
//! the newest waiting toast; failures are logged and ignored.

use actix::{Actor, Context, Handler, Message};

use super::env::{Env, panic_error, spawn_call, within};
use crate::handle::{ResourceCounts, counted};
use crate::ports::agent_server::{Toast, ToastVariant};

/// Shows a toast.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Show {
    pub(crate) title: String,
    pub(crate) message: String,
    pub(crate) variant: ToastVariant,
}

/// The call to show a toast has returned.
#[derive(Message)]
#[rtype(result = "()")]
struct ToastAnswered;

pub(crate) struct Toaster {
    env: Env,
    // The newest toast that waits behind one in flight; it replaces older ones.
    waiting: Option<Toast>,
    in_flight: bool,
}

impl Toaster {
    pub(crate) fn new(env: Env) -> Self {
        env.failpoints.hit("toaster: start");
        Self {
            env,
            waiting: None,
            in_flight: false,
        }
    }

    fn show_next(&mut self, ctx: &mut Context<Self>) {
        if self.in_flight {
            return;
        }
        let Some(toast) = self.waiting.take() else {
            return;
        };
        self.in_flight = true;
        let (env, addr) = (self.env.clone(), actix::AsyncContext::address(ctx));
        spawn_call(
            &self.env,
            "toaster: toast is answered",
            async move { within(env.config.calls.other, env.server.toast(toast)).await },
            |panic| Err(panic_error(panic)),
            move |answer| {
                if let Err(failure) = answer {
                    tracing::debug!(%failure, "toast failed");
                }
                addr.do_send(ToastAnswered);
            },
        );
    }
}

impl Actor for Toaster {
    type Context = Context<Self>;
}

impl Handler<Show> for Toaster {
    type Result = ();

    fn handle(&mut self, show: Show, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("toaster: Show");
        self.waiting = Some(Toast {
            title: show.title,
            message: show.message,
            variant: show.variant,
        });
        self.show_next(ctx);
    }
}

impl Handler<ToastAnswered> for Toaster {
    type Result = ();

    fn handle(&mut self, _: ToastAnswered, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("toaster: Shown");
        self.in_flight = false;
        self.show_next(ctx);
    }
}

impl Toaster {
    fn count(&self, counts: &mut ResourceCounts) {
        counts.toasts = usize::from(self.waiting.is_some()) + usize::from(self.in_flight);
    }
}

counted!(Toaster);
