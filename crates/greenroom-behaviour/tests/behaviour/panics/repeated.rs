//! Panics in quick succession, or during another event: an answer of one restart must not be repeated by the
//! next.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Panics at several failpoints, at one pass each.
struct PanicAtEach {
    at: Vec<(&'static str, usize)>,
    passed: Mutex<BTreeMap<&'static str, usize>>,
}

impl FaultInjector for PanicAtEach {
    fn should_fail(&self, place: &'static str) -> bool {
        let mut passed = lock(&self.passed);
        let nth = passed.entry(place).or_default();
        *nth += 1;
        self.at.contains(&(place, *nth))
    }
}

/// Panics once at each of several failpoints, counting the passes from the moment at which the failpoint was
/// armed.
#[derive(Default)]
struct ArmedPanics {
    remaining: Mutex<BTreeMap<&'static str, usize>>,
}

impl ArmedPanics {
    /// Makes the `nth` pass of the failpoint from now on panic.
    fn arm(&self, place: &'static str, nth: usize) {
        let mut remaining = lock(&self.remaining);
        remaining.insert(place, nth);
    }
}

impl FaultInjector for ArmedPanics {
    fn should_fail(&self, place: &'static str) -> bool {
        let mut remaining = lock(&self.remaining);
        let Some(passes) = remaining.get_mut(place) else {
            return false;
        };
        *passes -= 1;
        let due = *passes == 0;
        if due {
            remaining.remove(place);
        }
        due
    }
}

/// Panics once, at the next pass after it was armed.
struct ArmedPanic {
    place: &'static str,
    armed: AtomicBool,
}

impl ArmedPanic {
    fn at(place: &'static str) -> Arc<Self> {
        let armed = AtomicBool::new(false);
        Arc::new(Self { place, armed })
    }
}

impl FaultInjector for ArmedPanic {
    fn should_fail(&self, place: &'static str) -> bool {
        place == self.place && self.armed.swap(false, Ordering::SeqCst)
    }
}

#[test]
fn batch_closing_during_registry_restart_is_reported_once() {
    // In each case the registry restarts at the instant in which a notifier has read its parent and closes
    // its batch.
    for at in [
        [("registry: AbortDone", 3), ("task: EndAccepted", 3)],
        [("registry: AbortDone", 7), ("task: EndAccepted", 7)],
        [("registry: Debts", 14), ("task: EndAccepted", 5)],
        [
            ("registry: a change is in the journal", 16),
            ("registry: Debts", 10),
        ],
    ] {
        let name = format!("{at:?}");
        let several = Arc::new(PanicAtEach {
            at: at.into(),
            passed: Mutex::default(),
        });
        let panics = story_with_failpoints(several, move |s| async move {
            run_workload(&s).await;
            assert_invariants(&s, &name).await;
        });
        assert_eq!(panics.len(), 2, "{at:?}: {panics:?}");
    }
}

#[test]
fn restarted_registry_checks_health_during_outage() {
    let word = ArmedPanic::at("registry: Ask");
    let panics = story_with_failpoints(word.clone(), move |s| async move {
        s.server.go_offline();
        s.link(greenroom::EventLink::Broken).await;
        word.armed.store(true, Ordering::SeqCst);
        let greenroom = s.greenroom.clone();
        retry_until_answered(&s, async move { greenroom.readiness().await }).await;
        s.server.come_online();
        s.advance(20_000).await;
        let task = launch(&s, job("a")).await;
        s.advance(1000).await;
        assert_eq!(s.state(&task).await, "running");
    });
    assert_eq!(panics.len(), 1, "{panics:?}");
}

#[test]
fn panic_after_end_still_aborts() {
    let word = ArmedPanic::at("task: Happened");
    let panics = story_with_failpoints(word.clone(), move |s| async move {
        let task = launch(&s, job("a")).await;
        s.advance(6000).await;
        let session = session(&s, &task).await.expect("it runs");
        s.busy(&session).await;
        word.armed.store(true, Ordering::SeqCst);
        let (greenroom, id) = (s.greenroom.clone(), task.clone());
        let cancelled =
            actix_rt::spawn(async move { greenroom.cancel(&id, CancelOptions::default()).await });
        s.send_event(part_event(
            &session,
            serde_json::json!({"id": "1", "type": "tool", "tool": "bash"}),
        ));
        s.advance(3000).await;
        assert!(cancelled.await.expect("it is answered").is_ok());
        assert_eq!(s.state(&task).await, "cancelled");
        assert_eq!(
            s.calls(CallKind::Abort).len(),
            1,
            "its session works on unseen"
        );
        assert_eq!(s.in_use().await, 0);
    });
    assert_eq!(panics.len(), 1, "{panics:?}");
}

#[test]
fn taken_over_run_ends_despite_registry_panic() {
    let word = ArmedPanic::at("registry: EndByOrder");
    let panics = story_with_failpoints(word.clone(), move |s| async move {
        let task = launch(&s, job("a")).await;
        s.advance(6000).await;
        let at_work = session(&s, &task).await.expect("it runs");
        s.server
            .set_outcome(CallKind::Abort, crate::server::CallOutcome::Hangs);
        assert!(s.cancel(&task).await);
        // The resume waits for that abort; meanwhile the session is tracked as another task.
        s.resume(&at_work).await;
        word.armed.store(true, Ordering::SeqCst);
        s.track("t", at_work.as_str(), None).await;
        s.advance(60_000).await;
        assert_eq!(s.state(&task).await, "cancelled: Session taken over by t");
        assert_eq!(s.calls(CallKind::Prompt).len(), 1);
    });
    assert_eq!(panics.len(), 1, "{panics:?}");
}

#[test]
fn slot_requested_during_manager_panic_is_counted() {
    for at in [
        vec![("slots: Adopt", 1)],
        // The actor that rebuilds the manager was not the one notified of the panic.
        vec![("slots: Adopt", 1), ("registry: KeptDied", 1)],
    ] {
        let deaths = at.len();
        let several = Arc::new(PanicAtEach {
            at,
            passed: Mutex::default(),
        });
        let panics = story_with_failpoints(several, move |s| async move {
            s.track("t", "S", Some("acme/x")).await;
            s.advance(1000).await;
            assert_eq!(s.slots().await, ["acme/x 1/5"]);
            let task = s.task(&"t".into()).await;
            assert_eq!(task.concurrency_key, Some("acme/x".into()));
        });
        assert_eq!(panics.len(), deaths, "{panics:?}");
    }
}

#[test]
fn poller_that_panics_after_registry_is_replaced_once() {
    let armed = Arc::new(ArmedPanics::default());
    let panics = story_with_failpoints(armed.clone(), move |s| async move {
        let task = launch(&s, job("a")).await;
        s.advance(6000).await;
        let session = session(&s, &task).await.expect("it runs");
        s.busy(&session).await;
        // From the next polls on the run is sent only changes, so that its idle makes it write to the poller.
        s.stream_text(&session).await;
        s.advance(10_000).await;
        armed.arm("registry: SessionHappened", 2);
        armed.arm("poller: Attends", 1);
        s.send_event(idle_event(&session));
        s.send_event(delta_event(&session));
        s.advance(1000).await;
        assert_eq!(s.resource_counts().await.pollers, 1);
        s.finish_turn(&session).await;
        s.advance(10_000).await;
        assert_eq!(s.state(&task).await, "completed");
        let polls = s.server.calls(CallKind::Statuses).len();
        s.advance(60_000).await;
        assert_eq!(
            s.server.calls(CallKind::Statuses).len(),
            polls,
            "nothing runs"
        );
    });
    assert_eq!(panics.len(), 2, "{panics:?}");
}
