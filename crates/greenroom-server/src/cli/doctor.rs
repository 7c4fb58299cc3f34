//! `greenroom doctor`: checks everything the service depends on, one line per check, with a hint for each problem.
//! Changes nothing. The checks are in [`super::checks`].

use serde::Serialize;
use serde_json::json;

use super::args::DoctorArgs;
use super::checks;
use super::failure::{FAILED, Failure, UNREACHABLE};
use super::plugin;
use super::run::json_text;
use super::terminal::{Style, one_line, print_out};
use crate::config::{Environment, Sources, check};

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No problem.
    Ok,
    /// Works with limitations.
    Warn,
    /// Does not work.
    Fail,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The subject of the check.
    #[serde(rename = "of")]
    pub subject: &'static str,
    /// The result.
    pub verdict: Verdict,
    /// The result of the check.
    #[serde(rename = "says")]
    pub message: String,
    /// What to do; none if there is nothing to do.
    #[serde(rename = "next", skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// True if a server does not answer, which has its own exit code.
    #[serde(skip)]
    pub unreachable: bool,
}

impl Finding {
    /// Creates a finding without a problem.
    pub fn ok(subject: &'static str, message: impl Into<String>) -> Self {
        Self {
            subject,
            verdict: Verdict::Ok,
            message: message.into(),
            hint: None,
            unreachable: false,
        }
    }

    /// Creates a warning.
    pub fn warn(
        subject: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warn,
            hint: Some(hint.into()).filter(|hint| !hint.is_empty()),
            ..Self::ok(subject, message)
        }
    }

    /// Creates a failure.
    pub fn fail(
        subject: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(subject, message, hint)
        }
    }

    /// Creates a failure because of a server that does not answer.
    pub fn unreachable(
        subject: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            unreachable: true,
            ..Self::fail(subject, message, hint)
        }
    }
}

/// Runs all checks and prints the report.
pub async fn doctor(args: DoctorArgs) -> Result<(), Failure> {
    let environment = Environment::from_process();
    let sources = Sources {
        file: args.config.clone(),
        ..Sources::default()
    };
    let (loaded, problems) = check(&sources, &environment);
    let mut findings = checks::configuration(&loaded, &problems);
    findings.push(checks::opencode(args.opencode_bin.as_deref()).await);
    findings.push(checks::git());
    let service = checks::service(&args.client, &environment, &loaded.settings).await;
    findings.extend(checks::agent_server(&loaded, service.is_running).await);
    findings.extend(service.findings);
    findings.extend(checks::secrets(&loaded));
    findings.push(checks::journal(&loaded));
    findings.extend(plugin::findings(&environment));

    if args.client.json {
        let ok = findings
            .iter()
            .all(|finding| finding.verdict != Verdict::Fail);
        print_out(&json_text(&json!({ "ok": ok, "checks": findings }))?);
    } else {
        print_out(&report(&findings, Style::for_stdout()));
    }
    match exit_status(&findings) {
        None => Ok(()),
        Some((code, count)) => {
            let plural = if count == 1 { "thing is" } else { "things are" };
            Err(Failure::new(
                code,
                format!("{count} {plural} in the way"),
                "",
            ))
        }
    }
}

/// Returns the exit code and the number of failures; none without failures. `FAILED` has precedence over `UNREACHABLE`.
fn exit_status(findings: &[Finding]) -> Option<(u8, usize)> {
    let failed = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Fail);
    let count = failed.clone().count();
    let all_unreachable = failed.clone().all(|finding| finding.unreachable);
    (count > 0).then_some((if all_unreachable { UNREACHABLE } else { FAILED }, count))
}

/// Returns the report for people.
pub fn report(findings: &[Finding], style: Style) -> String {
    let width = findings
        .iter()
        .map(|finding| finding.subject.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let verdict = style.verdict(finding.verdict, &format!("{:<4}", finding.verdict.as_str()));
        text.push_str(&format!(
            "{verdict}  {:width$}  {}\n",
            finding.subject,
            one_line(&finding.message)
        ));
        if let Some(hint) = &finding.hint {
            text.push_str(&format!("{:6}{:width$}  → {}\n", "", "", one_line(hint)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_status_prefers_failed_over_unreachable() {
        let ok = Finding::ok("a", "fine");
        let warn = Finding::warn("b", "odd", "look");
        let unreachable = Finding::unreachable("c", "gone", "start it");
        let fail = Finding::fail("d", "broken", "mend it");
        assert_eq!(exit_status(&[ok.clone(), warn]), None);
        assert_eq!(exit_status(&[ok, unreachable.clone()]), Some((3, 1)));
        assert_eq!(exit_status(&[unreachable, fail]), Some((1, 2)));
    }
}
