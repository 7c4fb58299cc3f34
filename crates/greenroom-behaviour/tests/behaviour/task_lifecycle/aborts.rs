//! The abort of an ended run: repeated when it fails or was lost, and nobody but a resume of its session waits for it.

use greenroom::ports::agent_server::SessionStatus;

use crate::harness::{job, story};
use crate::server::{Fate, On, not_found, status, unreachable};

#[test]
fn a_failed_abort_is_repeated_at_once_three_in_all() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        s.server.always(On::Abort, Fate::Fails(status(500)));
        s.finish(&a).await;
        s.at(60_000).await;
        assert_eq!(s.times(On::Abort), [6000, 6000, 6000]);
        assert_eq!(s.state(&a).await, "completed", "it never changes the state");
        assert_eq!(s.told("P"), ["6000 final wakes: a completed"]);
    });
}

#[test]
fn an_abort_that_cannot_get_there_is_repeated_too() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        s.server.next(On::Abort, Fate::Fails(unreachable()));
        s.server.next(On::Abort, Fate::Fails(status(503)));
        assert!(s.cancel(&a).await);
        s.at(60_000).await;
        assert_eq!(s.times(On::Abort), [6000, 6000, 6000]);
    });
}

#[test]
fn an_abort_that_never_got_there_is_made_up_for_when_the_server_is_back() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        s.server.down();
        assert!(s.cancel(&a).await);
        s.at(30_000).await;
        assert_eq!(s.times(On::Abort), [6000, 6000, 6000]);
        s.server.up();
        s.at(60_000).await;
        assert_eq!(s.times(On::Abort), [6000, 6000, 6000, 31_500]);
        assert_eq!(s.state(&a).await, "cancelled");
    });
}

#[test]
fn a_session_that_does_not_work_any_more_when_the_server_is_back_is_left_alone() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        s.server.down();
        assert!(s.cancel(&a).await);
        s.at(10_000).await;
        s.server.restarted();
        s.server.up();
        s.at(60_000).await;
        assert_eq!(s.times(On::Abort), [6000, 6000, 6000]);
    });
}

#[test]
fn a_resume_does_not_wait_for_an_abort_that_waits_for_the_server_and_ends_it() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        s.server.always(On::Abort, Fate::Fails(unreachable()));
        s.server.always(On::Statuses, Fate::Fails(unreachable()));
        assert!(s.cancel(&a).await);
        s.at(7000).await;
        s.resume(&a).await;
        assert_eq!(s.state(&a).await, "running");
        s.server.mend(On::Abort);
        s.server.mend(On::Statuses);
        s.at(60_000).await;
        assert_eq!(s.times(On::Abort), [6000, 6000, 6000]);
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn a_server_that_stays_away_is_waited_for_ten_minutes() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        s.server.down();
        assert!(s.cancel(&a).await);
        s.at(700_000).await;
        let asked = s.times(On::Statuses).len();
        s.server.up();
        s.at(900_000).await;
        assert_eq!(s.times(On::Abort), [6000, 6000, 6000]);
        assert_eq!(s.times(On::Statuses).len(), asked);
    });
}

#[test]
fn an_abort_is_given_ten_seconds_each_time() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let b = s.launch(job("b")).await;
        let (sa, sb) = (s.server.session_of(&a), s.server.session_of(&b));
        let (sa, sb) = (sa.expect("a runs"), sb.expect("b runs"));
        s.at(6000).await;
        s.server
            .always_for(On::Abort, &*sa.to_string(), Fate::Hangs);
        assert!(s.cancel(&a).await);
        assert_eq!(s.in_use().await, 1, "the slot does not wait for the abort");
        s.at(7000).await;
        assert!(s.cancel(&b).await);
        s.at(60_000).await;
        let expected = [
            format!("6000 {sa}"),
            format!("7000 {sb}"),
            format!("16000 {sa}"),
            format!("26000 {sa}"),
        ];
        assert_eq!(s.calls(On::Abort), expected, "and blocks no other abort");
    });
}

#[test]
fn an_abort_that_was_lost_is_repeated_a_second_later() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        s.server.next(On::Abort, Fate::Ignored);
        assert!(s.cancel(&a).await);
        s.at(60_000).await;
        assert_eq!(s.times(On::Abort), [6000, 7000]);
    });
}

#[test]
fn a_lost_abort_is_repeated_twice_at_most() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        s.server.always(On::Abort, Fate::Ignored);
        assert!(s.cancel(&a).await);
        s.at(60_000).await;
        assert_eq!(s.times(On::Abort), [6000, 7000, 8000]);
    });
}

#[test]
fn a_session_that_backs_off_after_its_abort_is_still_at_work() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server.next(On::Abort, Fate::Ignored);
        let retry = SessionStatus::Retry {
            attempt: Some(2),
            message: "overloaded".to_owned(),
            until: None,
        };
        s.server.set_status(&session, Some(retry));
        assert!(s.cancel(&a).await);
        s.at(60_000).await;
        assert_eq!(s.times(On::Abort), [6000, 7000]);
    });
}

#[test]
fn a_lost_abort_is_not_repeated_into_a_resumed_run() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        s.server.always(On::Abort, Fate::Ignored);
        assert!(s.cancel(&a).await);
        s.at(6500).await;
        s.resume(&a).await;
        assert_eq!(s.times(On::Prompt), [0, 6500]);
        s.at(20_000).await;
        assert_eq!(s.times(On::Abort), [6000]);
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn a_lost_abort_is_not_repeated_into_a_run_resumed_while_the_status_is_read() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        s.server.next(On::Abort, Fate::Ignored);
        assert!(s.cancel(&a).await);
        s.at(6900).await;
        s.server.next(On::Statuses, Fate::Late(500));
        s.at(7200).await;
        assert_eq!(
            s.times(On::Statuses).last(),
            Some(&7000),
            "it is being read"
        );
        s.resume(&a).await;
        s.at(20_000).await;
        assert_eq!(s.times(On::Abort), [6000]);
    });
}

#[test]
fn an_abort_is_not_repeated_into_a_turn_that_somebody_else_has_begun() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        s.finish(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        s.at(6300).await;
        s.user_says(&a, None, None).await;
        s.busy(&a).await;
        s.at(20_000).await;
        assert_eq!(s.times(On::Abort), [6000], "that turn is the user's");
    });
}

#[test]
fn an_abort_is_not_repeated_into_a_session_that_was_tracked_since() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        s.at(6000).await;
        s.finish(&a).await;
        s.at(6300).await;
        s.track("t", &session, None).await;
        s.busy(session.as_str()).await;
        s.at(12_000).await;
        assert_eq!(s.times(On::Abort), [6000]);
        assert_eq!(s.state(&"t".into()).await, "running");
    });
}

#[test]
fn only_a_resume_of_its_session_waits_for_an_abort() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.at(6000).await;
        s.server.next(On::Abort, Fate::Late(4000));
        assert!(s.cancel(&a).await);
        s.at(6500).await;
        s.resume(&a).await;
        s.finish(&b).await;
        assert_eq!(s.state(&b).await, "completed");
        assert_eq!(s.state(&a).await, "pending");
        s.resume(&b).await;
        assert_eq!(s.state(&b).await, "running");
        s.at(9999).await;
        assert_eq!(s.state(&a).await, "pending");
        s.at(10_000).await;
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn a_session_that_is_gone_needs_no_abort() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.at(6000).await;
        s.server.always(On::Abort, Fate::Fails(not_found()));
        assert!(s.cancel(&a).await);
        s.at(20_000).await;
        assert_eq!(s.times(On::Abort), [6000]);
    });
}
