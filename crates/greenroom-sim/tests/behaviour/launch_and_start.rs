//! Launch and start: what is refused, where a task stands in its lineage, how it comes to its session and its prompt.

use greenroom::domain::ids::{ModelRef, TaskId};
use greenroom::domain::restrictions::AgentRules;
use greenroom::domain::task::{Launch, PermissionAction, PermissionRule};
use greenroom::ports::agent_server::{NewSession, TaskPrompt};
use greenroom::{CancelOptions, LaunchError};
use serde_json::json;

use crate::server::{Fate, On, What, cut_off, not_found, status};
use crate::stage::{Stage, error_event, job, job_of, job_on, story, story_with};

fn creates(s: &Stage) -> Vec<NewSession> {
    let calls = s.server.calls(On::Create).into_iter();
    calls
        .filter_map(|call| match call.what {
            What::Create(new) => Some(*new),
            _ => None,
        })
        .collect()
}

fn prompts(s: &Stage) -> Vec<TaskPrompt> {
    let calls = s.server.calls(On::Prompt).into_iter();
    calls
        .filter_map(|call| match call.what {
            What::Prompt(prompt) => Some(*prompt),
            _ => None,
        })
        .collect()
}

/// `tool` for each denied tool, in order.
fn denied(new: &NewSession) -> Vec<&str> {
    new.permission
        .iter()
        .filter(|rule| rule.action == PermissionAction::Deny && rule.pattern == "*")
        .map(|rule| rule.permission.as_str())
        .collect()
}

#[test]
fn a_launch_with_a_blank_or_oversized_field_is_refused_by_its_name() {
    story(|s| async move {
        let half = ModelRef {
            provider_id: "acme".to_owned(),
            model_id: " ".to_owned(),
            variant: None,
        };
        let bad = [
            (
                "description",
                Launch {
                    description: " ".to_owned(),
                    ..job("a")
                },
            ),
            (
                "prompt",
                Launch {
                    prompt: "\n".to_owned(),
                    ..job("a")
                },
            ),
            (
                "agent",
                Launch {
                    agent: String::new(),
                    ..job("a")
                },
            ),
            (
                "prompt",
                Launch {
                    prompt: "x".repeat(600_000),
                    ..job("a")
                },
            ),
            (
                "model",
                Launch {
                    model: Some(half),
                    ..job("a")
                },
            ),
        ];
        for (wanted, launch) in bad {
            match s.try_launch(launch).await {
                Err(LaunchError::Invalid { field, .. }) => assert_eq!(field, wanted),
                other => panic!("{wanted}: {other:?}"),
            }
        }
        assert!(s.tasks().await.is_empty());
        assert!(s.told("P").is_empty(), "no batch was opened");
    });
}

#[test]
fn a_launch_calls_nobody_and_returns_at_once_whatever_the_server_does() {
    story(|s| async move {
        for on in [On::Session, On::Create, On::Toast, On::Statuses] {
            s.server.always(on, Fate::Hangs);
        }
        // Both are answered in this very instant, though no call of theirs ever is.
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        assert_eq!(s.state(&a).await, "pending");
        assert_eq!(s.state(&b).await, "pending");
        assert!(s.calls(On::Create).is_empty(), "the lineage comes first");
    });
}

#[test]
fn without_a_parent_nobody_is_asked_and_nobody_told() {
    story(|s| async move {
        let alone = Launch {
            parent_session: None,
            ..job("a")
        };
        let a = s.launch(alone).await;
        s.at(6000).await;
        s.finish(&a).await;
        s.at(20_000).await;
        assert_eq!(s.state(&a).await, "completed");
        assert!(s.calls(On::Session).is_empty());
        assert!(s.calls(On::Notify).is_empty());
        assert_eq!(creates(&s)[0].parent, None);
        assert_eq!(s.task(&a).await.spawn_depth, 1);
        s.at(11 * 60_000).await;
        assert_eq!(s.state(&a).await, "gone");
    });
}

#[test]
fn the_session_is_made_as_the_task_says() {
    story(|s| async move {
        let a = s
            .launch(Launch {
                skill_content: Some("be brief".to_owned()),
                ..job_on("acme/big:high", "a")
            })
            .await;
        let made = &creates(&s)[0];
        assert_eq!(made.title, "a (@worker subagent)");
        assert_eq!(made.parent.as_ref().map(|p| p.as_str()), Some("P"));
        assert_eq!(
            (made.directory.as_str(), made.agent.as_str()),
            ("/base", "worker")
        );
        let model = made.model.as_ref().expect("it was given");
        assert_eq!(model.key().as_str(), "acme/big");
        let identity = json!({"greenroom": {"task": a, "run": 1, "attempt": 1}});
        assert_eq!(made.metadata, identity);
        let prompt = &prompts(&s)[0];
        assert_eq!(
            (prompt.agent.as_str(), prompt.text.as_str()),
            ("worker", "do a")
        );
        assert_eq!(prompt.system.as_deref(), Some("be brief"));
        let model = prompt.model.as_ref().expect("it was given");
        assert_eq!(model.variant.as_deref(), Some("high"));
        assert_eq!(prompt.metadata["greenroom"]["task"], json!(a));
    });
}

#[test]
fn the_directory_is_the_launchs_else_the_parents_else_the_configured_one() {
    story_with(
        |config| config.directory = "/configured".to_owned(),
        |s| async move {
            s.launch(Launch {
                directory: Some("/own".to_owned()),
                ..job("a")
            })
            .await;
            s.launch(job("b")).await;
            s.launch(job_of("nobody", "c")).await;
            s.launch(Launch {
                parent_session: None,
                ..job("d")
            })
            .await;
            let places: Vec<String> = creates(&s).into_iter().map(|new| new.directory).collect();
            assert_eq!(places, ["/own", "/base", "/configured", "/configured"]);
        },
    );
}

#[test]
fn a_child_is_denied_questions_and_tasks() {
    story(|s| async move {
        s.launch(job("a")).await;
        assert_eq!(denied(&creates(&s)[0]), ["question", "task"]);
    });
}

#[test]
fn built_in_restrictions_hold_whatever_the_case_of_the_name() {
    story(|s| async move {
        let by = |agent: &str| Launch {
            agent: agent.to_owned(),
            ..job(agent)
        };
        for agent in [
            "Explore",
            "librarian",
            "ORACLE",
            "metis",
            "Momus",
            "sisyphus-junior",
        ] {
            s.launch(by(agent)).await;
        }
        let all = creates(&s);
        for read_only in &all[..3] {
            for tool in ["write", "edit", "task", "background_task", "question"] {
                assert!(denied(read_only).contains(&tool), "{read_only:?}");
            }
        }
        for planner in &all[3..5] {
            assert_eq!(denied(planner), ["write", "edit", "task", "question"]);
        }
        assert_eq!(denied(&all[5]), ["task", "question"]);
    });
}

#[test]
fn restrictions_of_an_agent_are_configured_and_may_give_back() {
    story_with(
        |config| {
            let rules = AgentRules {
                deny: vec!["bash".to_owned()],
                allow: vec!["task".to_owned()],
            };
            config.agents.insert("Worker".to_owned(), rules);
        },
        |s| async move {
            s.launch(job("a")).await;
            assert_eq!(denied(&creates(&s)[0]), ["bash", "question"]);
        },
    );
}

#[test]
fn the_callers_rules_come_first_and_are_not_weakened() {
    story(|s| async move {
        let rule = |permission: &str, pattern: &str, action| PermissionRule {
            permission: permission.to_owned(),
            pattern: pattern.to_owned(),
            action,
        };
        let given = vec![
            rule("*", "*", PermissionAction::Allow),
            rule("bash", "rm *", PermissionAction::Deny),
        ];
        s.launch(Launch {
            permission: given.clone(),
            ..job("a")
        })
        .await;
        let rules = &creates(&s)[0].permission;
        assert_eq!(rules[..2], given[..]);
        assert!(
            rules[2..]
                .iter()
                .all(|rule| rule.action == PermissionAction::Deny),
            "what follows only denies: {rules:?}"
        );
        assert_eq!(denied(&creates(&s)[0]), ["question", "task"]);
    });
}

#[test]
fn at_the_deepest_level_our_own_spawning_tools_are_denied() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        let b = s.launch(job_of(session.as_str(), "b")).await;
        let session = s.server.session_of(&b).expect("it runs");
        s.launch(job_of(session.as_str(), "c")).await;
        let all = creates(&s);
        assert!(
            !denied(&all[1]).contains(&"background_task"),
            "{:?}",
            all[1]
        );
        let deepest = ["question", "task", "background_task", "background_send"];
        assert_eq!(denied(&all[2]), deepest);
    });
}

#[test]
fn below_a_session_of_ours_the_depth_is_known_at_once() {
    story(|s| async move {
        let mut parent = "P".to_owned();
        for depth in 1..=3 {
            let id = s.launch(job_of(parent.as_str(), "x")).await;
            let task = s.task(&id).await;
            assert_eq!(task.spawn_depth, depth);
            assert_eq!(
                task.root_session.as_ref().map(|root| root.as_str()),
                Some("P")
            );
            parent = s.server.session_of(&id).expect("it runs").to_string();
        }
        let refused = s.try_launch(job_of(parent.as_str(), "x")).await;
        assert_eq!(refused, Err(LaunchError::TooDeep { depth: 4, limit: 3 }));
        let text = refused.map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(text, Err("depth 4 is more than 3".to_owned()));
    });
}

#[test]
fn another_parent_is_looked_up_at_the_start_and_a_task_too_deep_ends_there() {
    story(|s| async move {
        s.server.has("C1", Some("P"));
        s.server.has("C2", Some("C1"));
        s.server.has("C3", Some("C2"));
        let fine = s.launch(job_of("C2", "fine")).await;
        assert_eq!(s.task(&fine).await.spawn_depth, 3);
        let deep = s.launch(job_of("C3", "deep")).await;
        assert_eq!(s.state(&deep).await, "error: depth 4 is more than 3");
        assert_eq!(s.in_use().await, 1);
        assert_eq!(s.calls(On::Create), ["0 fine"]);
        s.at(1000).await;
        assert_eq!(s.told("C3"), ["0 final wakes: deep error"]);
    });
}

#[test]
fn a_foreign_session_below_one_of_ours_counts_from_there() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server.has("F", Some(session.as_str()));
        let b = s.launch(job_of("F", "b")).await;
        let task = s.task(&b).await;
        assert_eq!(task.spawn_depth, 3, "a is 1, F would be 2");
        assert_eq!(
            task.root_session.as_ref().map(|root| root.as_str()),
            Some("P")
        );
    });
}

#[test]
fn a_lineage_that_runs_in_a_circle_has_an_end() {
    story_with(
        |config| config.safety.max_depth = 10,
        |s| async move {
            s.server.has("X", Some("Y"));
            s.server.has("Y", Some("X"));
            let a = s.launch(job_of("X", "a")).await;
            assert_eq!(s.state(&a).await, "running");
            assert_eq!(s.task(&a).await.spawn_depth, 2);
        },
    );
}

#[test]
fn a_lineage_that_cannot_be_read_counts_as_depth_one() {
    story(|s| async move {
        s.server.has("C1", Some("P"));
        s.server
            .always_for(On::Session, "P", Fate::Fails(status(500)));
        let a = s.launch(job_of("C1", "a")).await;
        assert_eq!(s.task(&a).await.spawn_depth, 1);
        let b = s.launch(job_of("unknown", "b")).await;
        assert_eq!(s.task(&b).await.spawn_depth, 1);
    });
}

#[test]
fn a_lineage_is_read_for_ten_seconds_in_all() {
    story(|s| async move {
        s.server.has("C1", Some("P"));
        s.server.always(On::Session, Fate::Late(6000));
        let a = s.launch(job_of("C1", "a")).await;
        s.at(9999).await;
        assert!(s.calls(On::Create).is_empty());
        s.at(10_000).await;
        assert_eq!(s.calls(On::Create), ["10000 a"]);
        assert_eq!(s.task(&a).await.spawn_depth, 1);
    });
}

#[test]
fn a_create_that_is_refused_or_has_no_id_is_an_error() {
    story(|s| async move {
        s.server.next(On::Create, Fate::Fails(status(400)));
        s.server.next(On::Create, Fate::Ignored);
        s.server.next(On::Create, Fate::Fails(not_found()));
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        let c = s.launch(job("c")).await;
        assert_eq!(s.state(&a).await, "error: refused with 400");
        assert_eq!(s.state(&b).await, "error: the answer has no id");
        assert_eq!(s.state(&c).await, "error: no such session");
        assert_eq!(s.in_use().await, 0);
        assert!(s.calls(On::Abort).is_empty());
    });
}

#[test]
fn a_create_has_thirty_seconds_and_a_session_that_comes_later_is_aborted() {
    story(|s| async move {
        s.server.next(On::Create, Fate::Late(45_000));
        let a = s.launch(job("a")).await;
        s.at(29_999).await;
        assert_eq!(s.state(&a).await, "pending");
        s.at(30_000).await;
        assert_eq!(
            s.state(&a).await,
            "error: the session was not created within 30s"
        );
        assert_eq!(s.in_use().await, 0);
        s.at(50_000).await;
        let late = s.server.session_of(&a).expect("it came late");
        assert_eq!(s.calls(On::Abort), [format!("45000 {late}")]);
        assert!(s.calls(On::Prompt).is_empty());
        assert_eq!(s.told("P"), ["30000 final wakes: a error"]);
    });
}

#[test]
fn a_create_answered_at_its_very_limit_counts() {
    story(|s| async move {
        s.server.next(On::Create, Fate::Late(30_000));
        let a = s.launch(job("a")).await;
        s.at(30_000).await;
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn a_create_of_unknown_fate_that_arrived_is_found_and_used() {
    story(|s| async move {
        s.server.next(On::Create, Fate::Cut(cut_off()));
        let a = s.launch(job("a")).await;
        s.at(10_000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.calls(On::Create).len(), 1, "it is not repeated");
        assert_eq!(s.calls(On::Below), ["500 P"]);
        let session = s.server.session_of(&a).expect("it was made");
        assert_eq!(s.calls(On::Prompt), [format!("500 {session}")]);
    });
}

#[test]
fn a_create_of_unknown_fate_that_did_not_arrive_is_repeated() {
    story(|s| async move {
        s.server.next(On::Create, Fate::Fails(cut_off()));
        let a = s.launch(job("a")).await;
        s.at(10_000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.calls(On::Create), ["0 a", "500 a"]);
    });
}

#[test]
fn a_create_of_unknown_fate_is_not_repeated_while_it_cannot_be_looked_up() {
    story(|s| async move {
        s.server.next(On::Create, Fate::Cut(cut_off()));
        s.server.next(On::Below, Fate::Fails(status(500)));
        s.server.next(On::Below, Fate::Fails(cut_off()));
        let a = s.launch(job("a")).await;
        s.at(10_000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.times(On::Below), [500, 1500, 3500]);
        assert_eq!(s.calls(On::Create).len(), 1);
    });
}

#[test]
fn without_a_parent_a_create_is_looked_for_in_its_directory() {
    story(|s| async move {
        s.server.next(On::Create, Fate::Cut(cut_off()));
        let a = s
            .launch(Launch {
                parent_session: None,
                ..job("a")
            })
            .await;
        s.at(10_000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.calls(On::Below), ["500 /base"]);
        assert_eq!(s.calls(On::Create).len(), 1);
    });
}

#[test]
fn a_prompt_that_is_refused_interrupts() {
    story(|s| async move {
        s.server.next(On::Prompt, Fate::Fails(status(400)));
        let a = s.launch(job("a")).await;
        assert_eq!(s.state(&a).await, "interrupt: refused with 400");
        let session = s.server.session_of(&a).expect("it was made");
        assert_eq!(s.calls(On::Abort), [format!("0 {session}")]);
        assert_eq!(s.in_use().await, 0);
    });
}

#[test]
fn a_prompt_has_two_minutes() {
    story_with(
        |config| config.lifecycle.not_taken_up = None,
        |s| async move {
            s.server.next(On::Prompt, Fate::Hangs);
            let a = s.launch(job("a")).await;
            s.at(119_999).await;
            assert_eq!(s.state(&a).await, "running");
            s.at(120_000).await;
            assert_eq!(
                s.state(&a).await,
                "interrupt: the prompt was not accepted: no answer from the agent server within 120s"
            );
        },
    );
}

#[test]
fn a_prompt_of_unknown_fate_that_arrived_is_not_repeated() {
    story(|s| async move {
        s.server.next(On::Prompt, Fate::Cut(cut_off()));
        let a = s.launch(job("a")).await;
        s.at(10_000).await;
        assert_eq!(s.calls(On::Prompt).len(), 1);
        s.finish(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn a_prompt_of_unknown_fate_that_did_not_arrive_is_repeated() {
    story(|s| async move {
        s.server.next(On::Prompt, Fate::Fails(cut_off()));
        s.server.next(On::Messages, Fate::Fails(status(503)));
        s.launch(job("a")).await;
        s.at(10_000).await;
        assert_eq!(
            s.times(On::Messages),
            [500, 1500],
            "looked up until it is known"
        );
        assert_eq!(s.times(On::Prompt), [0, 1500]);
        let prompts = prompts(&s);
        assert_eq!(prompts[0], prompts[1]);
    });
}

#[test]
fn an_unknown_agent_is_known_by_its_error_alone() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.at(20).await;
        let text = "Agent not found: \"worker\". Available agents: build, plan";
        let error = json!({"name": "UnknownError", "data": {"message": text}});
        s.event(error_event(&session, error)).await;
        assert_eq!(s.state(&a).await, format!("error: {text}"));
        // The server says it twice; the second is a stack trace.
        let error = json!({"name": "UnknownError", "data": {"message": "at x.ts:1"}});
        s.event(error_event(&session, error)).await;
        assert_eq!(s.state(&a).await, format!("error: {text}"));
    });
}

#[test]
fn an_unknown_model_that_the_server_names_badly_is_named_by_us() {
    story(|s| async move {
        let a = s.launch(job_on("fake/nope", "a")).await;
        s.at(20).await;
        s.fail(&a, "Model not found: fake/nope.").await;
        let state = s.state(&a).await;
        assert!(state.contains("fake/nope"), "{state}");
    });
}

/// Cancels a task at once and tells what came of it: the state, the calls after it, the slots.
async fn cancelled_at(s: &Stage, a: &TaskId) {
    let before = s.server.log().len();
    assert!(s.cancel(a).await);
    assert_eq!(s.state(a).await, "cancelled");
    assert_eq!(s.in_use().await, 0);
    s.pass(60_000).await;
    let after = &s.server.log()[before..];
    assert!(
        !after
            .iter()
            .any(|call| matches!(call.on, On::Create | On::Prompt)),
        "nothing is made or prompted after a cancel: {after:?}"
    );
    let told = s.told("P");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("final wakes: a cancelled"), "{told:?}");
}

#[test]
fn a_cancel_while_the_lineage_is_read_wins() {
    story(|s| async move {
        s.server.next(On::Session, Fate::Late(5000));
        let a = s.launch(job("a")).await;
        s.at(1000).await;
        cancelled_at(&s, &a).await;
        assert!(s.calls(On::Abort).is_empty());
    });
}

#[test]
fn a_cancel_while_the_session_is_made_wins_and_aborts_what_comes_back() {
    story(|s| async move {
        s.server.next(On::Create, Fate::Late(5000));
        let a = s.launch(job("a")).await;
        s.at(1000).await;
        cancelled_at(&s, &a).await;
        let late = s.server.session_of(&a).expect("it came back");
        assert_eq!(s.calls(On::Abort), [format!("5000 {late}")]);
    });
}

#[test]
fn a_cancel_while_a_create_is_looked_up_wins_and_aborts_what_is_found() {
    story(|s| async move {
        s.server.next(On::Create, Fate::Cut(cut_off()));
        s.server.next(On::Below, Fate::Late(3000));
        let a = s.launch(job("a")).await;
        s.at(1000).await;
        cancelled_at(&s, &a).await;
        let found = s.server.session_of(&a).expect("it was made");
        assert_eq!(s.calls(On::Abort), [format!("3500 {found}")]);
    });
}

#[test]
fn a_cancel_before_a_create_of_unknown_fate_is_looked_up_leaves_no_session_at_work() {
    story(|s| async move {
        s.server.next(On::Create, Fate::Cut(cut_off()));
        let a = s.launch(job("a")).await;
        s.at(200).await;
        cancelled_at(&s, &a).await;
        let made = s.server.session_of(&a).expect("it was made");
        let status = s.server.status_of(&made);
        assert_eq!(status, None, "nothing was prompted, so nothing works");
    });
}

#[test]
fn a_cancel_while_the_prompt_is_under_way_wins() {
    story(|s| async move {
        s.server.next(On::Prompt, Fate::Late(5000));
        let a = s.launch(job("a")).await;
        s.at(1000).await;
        cancelled_at(&s, &a).await;
        let session = s.server.session_of(&a).expect("it runs");
        assert_eq!(s.calls(On::Abort)[0], format!("1000 {session}"));
    });
}

#[test]
fn a_cancel_while_a_start_waits_to_be_tried_again_wins() {
    story(|s| async move {
        s.server.down();
        let a = s.launch(job("a")).await;
        s.at(1200).await;
        s.server.up();
        cancelled_at(&s, &a).await;
    });
}

#[test]
fn a_cancel_of_pending_only_leaves_what_has_its_slot() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            s.server.next(On::Create, Fate::Late(5000));
            let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
            let only_pending = CancelOptions {
                only_pending: true,
                ..CancelOptions::default()
            };
            assert!(s.try_cancel(&a, only_pending.clone()).await.is_err());
            assert!(s.try_cancel(&b, only_pending.clone()).await.is_ok());
            assert!(s.try_cancel(&b, only_pending).await.is_err());
            s.at(5000).await;
            assert_eq!(s.state(&a).await, "running");
            assert_eq!(s.state(&b).await, "cancelled");
        },
    );
}
