//! `stepwes doctor`: what is wrong with an installation, and what to do about it.
//!
//! Each check asks one question, and reads alone: nothing is repaired, started or stopped.

mod deployed;
mod local;
mod service;

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use crate::{
    args::DoctorArgs,
    ui::{Colour, Style, print, print_json, printable},
};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// It is as it should be.
    Ok,
    /// It works, but not everything, or not for long.
    Warning,
    /// It does not work.
    Problem,
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What was looked at; the same name every time, for scripts.
    pub(crate) name: &'static str,
    /// How it came out.
    pub(crate) status: Status,
    /// What was found.
    pub(crate) found: String,
    /// What to do, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) then: Option<String>,
}

impl Check {
    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), then: None }
    }

    pub(crate) fn warning(
        name: &'static str,
        found: impl Into<String>,
        then: impl Into<String>,
    ) -> Self {
        Self { name, status: Status::Warning, found: found.into(), then: Some(then.into()) }
    }

    pub(crate) fn problem(
        name: &'static str,
        found: impl Into<String>,
        then: impl Into<String>,
    ) -> Self {
        Self { name, status: Status::Problem, found: found.into(), then: Some(then.into()) }
    }
}

/// Checks what the arguments name, shows what was found, and exits with 1 when something is wrong.
pub(crate) async fn doctor(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let checks = match (&args.stack, args.server.url()) {
        // The environment's server may well be another one.
        (Some(stack), _) => deployed::checks(stack, args.server.url.clone(), &args.server).await,
        (None, Some(url)) if args.dir.is_none() => service::checks(&url, &args.server).await,
        (None, _) => local::checks(&args).await,
    };
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let problems = count(Status::Problem);
    if args.server.json {
        print_json(&json!({"healthy": problems == 0, "checks": checks}))?;
    } else {
        print(&shown(&checks, Style::of_stdout()))?;
        let warnings = count(Status::Warning);
        let all = checks.len();
        let told = [(all, "check"), (problems, "problem"), (warnings, "warning")].map(plural);
        print(&format!("{}: {}, {}\n", told[0], told[1], told[2]))?;
    }
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plural((count, what): (usize, &str)) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn shown(checks: &[Check], style: Style) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let (word, colour) = match check.status {
            Status::Ok => ("ok     ", Colour::Green),
            Status::Warning => ("warning", Colour::Yellow),
            Status::Problem => ("problem", Colour::Red),
        };
        let found = printable(&check.found);
        text.push_str(&format!("{} {:<width$}  {found}\n", style.paint(colour, word), check.name));
        if let Some(then) = &check.then {
            let arrow = style.paint(Colour::Cyan, "->");
            text.push_str(&format!("{:8}{:<width$}  {arrow} {}\n", "", "", printable(then)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_shown_with_what_to_do_and_cannot_move_the_cursor() {
        let checks = [
            Check::ok("folder", "/x"),
            Check::warning("containers", "none\x1b[2J", "install one"),
            Check::problem("disk", "full", "make room"),
        ];
        insta::assert_snapshot!(shown(&checks, Style::of_stdout()), @r"
        ok      folder      /x
        warning containers  none\u{1b}[2J
                            -> install one
        problem disk        full
                            -> make room
        ");
    }
}
