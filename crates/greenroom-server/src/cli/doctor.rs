//! `greenroom doctor`: looks at everything the product stands on, a line each, and says what to do about what is in the
//! way. It changes nothing. The looks themselves are in [`super::checks`].

use serde::Serialize;
use serde_json::json;

use super::args::DoctorArgs;
use super::checks;
use super::failure::{FAILED, Failure, UNREACHABLE};
use super::plugin;
use super::run::json_text;
use super::term::{Style, one_line, out};
use crate::config::{Environment, Sources, check};

/// What was found of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// In order.
    Ok,
    /// Works, but not as it should.
    Warn,
    /// In the way.
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
    /// What was looked at.
    pub of: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub says: String,
    /// What to do; none if nothing is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// True if somebody does not answer, which has an exit code of its own.
    #[serde(skip)]
    pub unreachable: bool,
}

impl Finding {
    /// In order.
    pub fn ok(of: &'static str, says: impl Into<String>) -> Self {
        Self {
            of,
            verdict: Verdict::Ok,
            says: says.into(),
            next: None,
            unreachable: false,
        }
    }

    /// Not as it should be.
    pub fn warn(of: &'static str, says: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warn,
            next: Some(next.into()).filter(|next| !next.is_empty()),
            ..Self::ok(of, says)
        }
    }

    /// In the way.
    pub fn fail(of: &'static str, says: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(of, says, next)
        }
    }

    /// In the way, since nobody answers.
    pub fn away(of: &'static str, says: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            unreachable: true,
            ..Self::fail(of, says, next)
        }
    }
}

/// Looks, and reports.
pub async fn doctor(args: DoctorArgs) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let sources = Sources {
        file: args.config.clone(),
        ..Sources::default()
    };
    let (loaded, problems) = check(&sources, &environment);
    let mut findings = checks::configuration(&loaded, &problems);
    findings.push(checks::opencode(args.opencode_bin.as_deref()).await);
    findings.push(checks::git());
    let service = checks::service(&args.client, &environment, &loaded.settings).await;
    findings.extend(checks::agent_server(&loaded, service.runs).await);
    findings.extend(service.findings);
    findings.extend(checks::secrets(&loaded, &environment));
    findings.push(checks::journal(&loaded));
    findings.extend(plugin::findings(&environment));

    if args.client.json {
        let ok = findings.iter().all(|it| it.verdict != Verdict::Fail);
        out(&json_text(&json!({ "ok": ok, "checks": findings }))?);
    } else {
        out(&report(&findings, Style::of_stdout()));
    }
    match verdict(&findings) {
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

/// The exit code and how much is in the way, if anything is. What must be put right comes before what must be started.
fn verdict(findings: &[Finding]) -> Option<(u8, usize)> {
    let failed = findings.iter().filter(|it| it.verdict == Verdict::Fail);
    let count = failed.clone().count();
    let away = failed.clone().all(|it| it.unreachable);
    (count > 0).then_some((if away { UNREACHABLE } else { FAILED }, count))
}

/// The lines for people.
pub fn report(findings: &[Finding], style: Style) -> String {
    let width = findings.iter().map(|it| it.of.len()).max().unwrap_or(0);
    let mut text = String::new();
    for it in findings {
        let verdict = style.verdict(it.verdict, &format!("{:<4}", it.verdict.as_str()));
        text.push_str(&format!(
            "{verdict}  {:width$}  {}\n",
            it.of,
            one_line(&it.says)
        ));
        if let Some(next) = &it.next {
            text.push_str(&format!("{:6}{:width$}  → {}\n", "", "", one_line(next)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_put_right_decides_the_exit_code() {
        let ok = Finding::ok("a", "fine");
        let warn = Finding::warn("b", "odd", "look");
        let away = Finding::away("c", "gone", "start it");
        let fail = Finding::fail("d", "broken", "mend it");
        assert_eq!(verdict(&[ok.clone(), warn]), None);
        assert_eq!(verdict(&[ok, away.clone()]), Some((3, 1)));
        assert_eq!(verdict(&[away, fail]), Some((1, 2)));
    }
}
