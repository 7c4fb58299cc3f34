//! The permission rules of a child session, set at its creation: the caller's rules first, then the restrictions of the
//! agent, then the denials that always apply. A weaker rule never overrides a stronger one.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::task::{PermissionAction, PermissionRule};

/// The tools with which agents start background tasks.
pub const SPAWNING_TOOLS: [&str; 2] = ["background_task", "background_send"];

/// The restrictions of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentRules {
    /// Tools denied in addition to the tools that are always denied.
    #[serde(default)]
    pub deny: Vec<Cow<'static, str>>,
    /// Tools allowed although they are always denied: `task` or `question`.
    #[serde(default)]
    pub allow: Vec<Cow<'static, str>>,
}

impl AgentRules {
    /// Returns the built-in rule of an agent, which applies without a configured rule. Names are case-insensitive.
    pub fn built_in(agent: &str) -> AgentRules {
        let deny: &[&'static str] = match agent.to_ascii_lowercase().as_str() {
            "explore" | "librarian" | "oracle" => &[
                "write",
                "edit",
                "task",
                SPAWNING_TOOLS[0],
                SPAWNING_TOOLS[1],
            ],
            "metis" | "momus" => &["write", "edit", "task"],
            "sisyphus-junior" => &["task"],
            _ => &[],
        };
        AgentRules {
            deny: deny.iter().map(|&tool| tool.into()).collect(),
            allow: Vec::new(),
        }
    }
}

/// Returns the rules of a new session. `at_max_depth` also denies the tools that start background tasks.
pub fn rules(
    caller: &[PermissionRule],
    agent: &AgentRules,
    at_max_depth: bool,
) -> Vec<PermissionRule> {
    // The last matching rule wins on the server, so the denials follow the caller's rules.
    let deny = |tool: Cow<'static, str>| PermissionRule {
        permission: tool,
        pattern: "*".into(),
        action: PermissionAction::Deny,
    };
    let is_allowed = |tool: &str| {
        agent
            .allow
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(tool))
    };
    let mut rules: Vec<PermissionRule> = caller.to_vec();
    let caller_rules = rules.len();
    let always = ["question", "task"]
        .into_iter()
        .filter(|tool| !is_allowed(tool));
    let spawning = SPAWNING_TOOLS.into_iter().filter(|_| at_max_depth);
    let added = always.chain(spawning).map(Cow::Borrowed);
    for tool in agent.deny.iter().cloned().chain(added) {
        if !rules[caller_rules..]
            .iter()
            .any(|rule| rule.permission == tool)
        {
            rules.push(deny(tool));
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(rules: &[PermissionRule]) -> Vec<&str> {
        rules
            .iter()
            .filter(|rule| rule.action == PermissionAction::Deny)
            .map(|rule| &*rule.permission)
            .collect()
    }

    #[test]
    fn question_and_task_are_always_denied() {
        assert_eq!(
            denied(&rules(&[], &AgentRules::built_in("worker"), false)),
            ["question", "task"]
        );
    }

    #[test]
    fn built_in_rules_ignore_case() {
        let rules = rules(&[], &AgentRules::built_in("Oracle"), false);
        assert_eq!(
            denied(&rules),
            [
                "write",
                "edit",
                "task",
                "background_task",
                "background_send",
                "question"
            ]
        );
    }

    #[test]
    fn question_can_be_allowed() {
        let agent = AgentRules {
            deny: vec![],
            allow: vec!["question".into()],
        };
        assert_eq!(denied(&rules(&[], &agent, false)), ["task"]);
    }

    #[test]
    fn denials_follow_caller_rules() {
        let caller = [PermissionRule {
            permission: "*".into(),
            pattern: "*".into(),
            action: PermissionAction::Allow,
        }];
        let rules = rules(&caller, &AgentRules::built_in("worker"), true);
        assert_eq!(rules[0].permission, "*");
        assert_eq!(
            denied(&rules),
            ["question", "task", "background_task", "background_send"]
        );
    }
}
