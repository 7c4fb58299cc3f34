//! The session created for a task: its directory and its permissions.

use greenroom::domain::restrictions::AgentRules;
use greenroom::domain::task::{Launch, PermissionAction, PermissionRule};
use serde_json::json;

use super::{creates, denied, prompts};
use crate::harness::{job, job_of, job_on, story, story_with};
use crate::server::{CallKind, CallPayload};

#[test]
fn session_is_created_from_launch() {
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
        assert_eq!((&*made.directory, &*made.agent), ("/base", "worker"));
        let model = made.model.as_ref().expect("it was given");
        assert_eq!(model.key().as_str(), "acme/big");
        let identity = json!({"greenroom": {"task": a, "run": 1, "attempt": 1}});
        assert_eq!(made.tag.metadata(), identity);
        let prompt = &prompts(&s)[0];
        assert_eq!((&*prompt.agent, &*prompt.text), ("worker", "do a"));
        assert_eq!(prompt.system.as_deref(), Some("be brief"));
        let model = prompt.model.as_ref().expect("it was given");
        assert_eq!(model.variant.as_deref(), Some("high"));
        assert_eq!(json!(prompt.tag.task), json!(a));
        let CallPayload::Prompt(directory, _) = &s.server.calls(CallKind::Prompt)[0].payload else {
            panic!("a prompt carries a prompt");
        };
        assert_eq!(directory.as_deref(), Some("/base"));
    });
}

#[test]
fn directory_of_launch_parent_or_configuration() {
    story_with(
        |config| config.directory = "/configured".into(),
        |s| async move {
            s.launch(Launch {
                directory: Some("/own".to_owned()),
                ..job("a")
            })
            .await;
            s.launch(job("b")).await;
            s.launch(job_of("unknown", "c")).await;
            s.launch(Launch {
                parent_session: None,
                ..job("d")
            })
            .await;
            let places: Vec<String> = creates(&s)
                .into_iter()
                .map(|new| new.directory.to_string())
                .collect();
            assert_eq!(places, ["/own", "/base", "/configured", "/configured"]);
        },
    );
}

#[test]
fn child_is_denied_questions_and_tasks() {
    story(|s| async move {
        s.launch(job("a")).await;
        assert_eq!(denied(&creates(&s)[0]), ["question", "task"]);
    });
}

#[test]
fn built_in_restrictions_ignore_case() {
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
fn agent_restrictions_are_configurable() {
    story_with(
        |config| {
            let rules = AgentRules {
                deny: vec!["bash".into()],
                allow: vec!["task".into()],
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
fn caller_rules_come_first() {
    story(|s| async move {
        let rule = |permission: &str, pattern: &str, action| PermissionRule {
            permission: permission.to_owned().into(),
            pattern: pattern.to_owned().into(),
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
fn spawning_tools_are_denied_at_maximum_depth() {
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
