//! Validation of arguments: fields must not be blank or too large, and a model needs both parts. Errors name the field
//! as JSON does.

use super::foreign_text::{is_blank, is_unsafe};
use super::ids::{ModelRef, SessionId};
use super::task::{Launch, Resume, Track};

/// The field and its problem.
pub type Problem = (&'static str, String);

/// The maximum length of a prompt or system text, in bytes.
pub const MAX_PROMPT: usize = 512 * 1024;
/// The maximum length of a description, in bytes.
pub const MAX_DESCRIPTION: usize = 2_000;
/// The maximum length of the name of an agent, model, category, skill or session, in bytes.
pub const MAX_NAME: usize = 500;
/// The maximum length of a directory, in bytes.
const MAX_DIRECTORY: usize = 4096;
/// The maximum number of skills or permission rules.
pub const MAX_LIST: usize = 200;

/// Validates a launch.
pub fn launch(launch: &Launch) -> Result<(), Problem> {
    text("description", &launch.description, MAX_DESCRIPTION)?;
    text("prompt", &launch.prompt, MAX_PROMPT)?;
    text("agent", &launch.agent, MAX_NAME)?;
    session("parentSessionID", launch.parent_session.as_ref())?;
    if let Some(message) = &launch.parent_message {
        text("parentMessageID", message.as_str(), MAX_NAME)?;
    }
    optional("parentAgent", launch.parent_agent.as_deref(), MAX_NAME)?;
    model("model", launch.model.as_ref())?;
    model("parentModel", launch.parent_model.as_ref())?;
    if !launch.fallback_models.is_empty() {
        let problem = "models to fall back on are not supported yet; leave the field out";
        return Err(("fallbackModels", problem.to_owned()));
    }
    optional("category", launch.category.as_deref(), MAX_NAME)?;
    optional("directory", launch.directory.as_deref(), MAX_DIRECTORY)?;
    if let Some(directory) = &launch.directory
        && !directory.starts_with('/')
        && !directory.contains(":\\")
    {
        return Err(("directory", "must be an absolute path".to_owned()));
    }
    if let Some(content) = &launch.skill_content
        && content.len() > MAX_PROMPT
    {
        return Err(("skillContent", too_long(content.len(), MAX_PROMPT)));
    }
    if launch.skills.len() > MAX_LIST {
        return Err((
            "skills",
            format!(
                "has {} entries; at most {MAX_LIST} are taken",
                launch.skills.len()
            ),
        ));
    }
    launch
        .skills
        .iter()
        .try_for_each(|skill| text("skills", skill, MAX_NAME))?;
    if launch.permission.len() > MAX_LIST {
        return Err((
            "permission",
            format!(
                "has {} rules; at most {MAX_LIST} are taken",
                launch.permission.len()
            ),
        ));
    }
    launch.permission.iter().try_for_each(|rule| {
        text("permission.permission", &rule.permission, MAX_NAME)?;
        text("permission.pattern", &rule.pattern, MAX_NAME)
    })
}

/// Validates a resume.
pub fn resume(resume: &Resume) -> Result<(), Problem> {
    text("prompt", &resume.prompt, MAX_PROMPT)?;
    session("sessionID", resume.session.as_ref())?;
    session("parentSessionID", resume.parent_session.as_ref())?;
    optional("parentAgent", resume.parent_agent.as_deref(), MAX_NAME)?;
    if resume.parent_session.is_some() && resume.parent_session == resume.session {
        return Err((
            "parentSessionID",
            "a session cannot be its own parent".to_owned(),
        ));
    }
    Ok(())
}

/// Validates a track.
pub fn track(track: &Track) -> Result<(), Problem> {
    text("taskID", track.task.as_str(), MAX_NAME)?;
    session("sessionID", Some(&track.session))?;
    session("parentSessionID", Some(&track.parent_session))?;
    text("description", &track.description, MAX_DESCRIPTION)?;
    optional("agent", track.agent.as_deref(), MAX_NAME)?;
    optional("parentAgent", track.parent_agent.as_deref(), MAX_NAME)?;
    optional(
        "concurrencyKey",
        track.concurrency_key.as_ref().map(|key| key.as_str()),
        MAX_NAME,
    )?;
    if track.session == track.parent_session {
        return Err((
            "parentSessionID",
            "a session cannot be its own parent".to_owned(),
        ));
    }
    Ok(())
}

/// Validates an idempotency key.
pub fn key(key: &str) -> Result<(), Problem> {
    text("Idempotency-Key", key, 255)
}

/// Validates a further prompt.
pub fn prompt(prompt: &str) -> Result<(), Problem> {
    text("prompt", prompt, MAX_PROMPT)
}

fn text(field: &'static str, value: &str, max: usize) -> Result<(), Problem> {
    if value.trim().is_empty() {
        return Err((field, "must not be blank".to_owned()));
    }
    if is_blank(value) {
        return Err((field, "must contain a visible character".to_owned()));
    }
    if value.len() > max {
        return Err((field, too_long(value.len(), max)));
    }
    let is_name = max <= MAX_NAME || max == MAX_DIRECTORY;
    if is_name && let Some(c) = value.chars().find(|c| is_unsafe(*c)) {
        let kind = if c.is_control() {
            "control"
        } else {
            "invisible"
        };
        let problem = format!(
            "must not contain {kind} characters (U+{:04X})",
            u32::from(c)
        );
        return Err((field, problem));
    }
    Ok(())
}

fn optional(field: &'static str, value: Option<&str>, max: usize) -> Result<(), Problem> {
    value.map_or(Ok(()), |value| text(field, value, max))
}

fn session(field: &'static str, value: Option<&SessionId>) -> Result<(), Problem> {
    optional(field, value.map(SessionId::as_str), MAX_NAME)
}

fn model(field: &'static str, value: Option<&ModelRef>) -> Result<(), Problem> {
    let Some(model) = value else { return Ok(()) };
    for part in [&model.provider_id, &model.model_id] {
        text(field, part, MAX_NAME)
            .map_err(|(field, problem)| (field, format!("providerID and modelID {problem}")))?;
    }
    optional(field, model.variant.as_deref(), MAX_NAME)
}

fn too_long(length: usize, max: usize) -> String {
    format!("is {length} bytes long; at most {max} are taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid_launch() -> Launch {
        Launch {
            description: "d".into(),
            prompt: "p".into(),
            agent: "a".into(),
            ..Launch::default()
        }
    }

    #[test]
    fn blank_fields_are_named() {
        assert_eq!(launch(&valid_launch()), Ok(()));
        assert_eq!(
            launch(&Launch {
                prompt: " \n".into(),
                ..valid_launch()
            })
            .unwrap_err()
            .0,
            "prompt"
        );
        assert_eq!(
            launch(&Launch {
                agent: "".into(),
                ..valid_launch()
            })
            .unwrap_err()
            .0,
            "agent"
        );
        assert_eq!(
            launch(&Launch {
                description: "".into(),
                ..valid_launch()
            })
            .unwrap_err()
            .0,
            "description"
        );
    }

    #[test]
    fn model_needs_both_parts() {
        let half = ModelRef {
            provider_id: "acme".into(),
            model_id: "".into(),
            variant: None,
        };
        assert_eq!(
            launch(&Launch {
                model: Some(half),
                ..valid_launch()
            })
            .unwrap_err()
            .0,
            "model"
        );
    }

    #[test]
    fn invisible_names_are_refused() {
        let launch_of = |agent: &str, directory: &str| Launch {
            agent: agent.into(),
            directory: Some(directory.into()),
            ..valid_launch()
        };
        for (agent, directory, field) in [
            ("\u{200b}", "/a", "agent"),
            ("a\u{202e}b", "/a", "agent"),
            ("a\u{0}", "/a", "agent"),
            ("a", "/a\u{0}b", "directory"),
            ("a", "/a\u{1b}[2J", "directory"),
            ("a", "/a\u{2066}", "directory"),
        ] {
            let refused = launch(&launch_of(agent, directory)).unwrap_err();
            assert_eq!(refused.0, field, "{agent:?} {directory:?}");
        }
        assert_eq!(launch(&launch_of("général", "/tmp/日本 語")), Ok(()));
    }

    #[test]
    fn too_large_field_is_named_with_bound() {
        let (field, problem) = launch(&Launch {
            prompt: "x".repeat(MAX_PROMPT + 1),
            ..valid_launch()
        })
        .unwrap_err();
        assert_eq!(field, "prompt");
        assert!(problem.contains("524288"), "{problem}");
    }
}
