//! Checks of a service by its URL, as any caller sees it.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::StatusCode;
use serde_json::Value;

use super::Check;
use crate::{args::ServerArgs, client::Client};

/// By how much the clocks of caller and service may differ: AWS refuses signatures beyond five
/// minutes, and a presigned URL is cut short by any difference.
const CLOCK_WARNING: TimeDelta = TimeDelta::seconds(30);
const CLOCK_PROBLEM: TimeDelta = TimeDelta::seconds(300);

/// An answer that takes longer than this says that something is cold or busy.
const SLOW: Duration = Duration::from_secs(5);

/// The version of this command.
pub(crate) const OURS: &str = env!("CARGO_PKG_VERSION");

/// Every check of the service at `url`, with the credentials of `args`.
pub(crate) async fn checks(url: &str, args: &ServerArgs) -> Vec<Check> {
    let named = ServerArgs { url: Some(url.to_owned()), ..args.clone() };
    let client = match Client::new(&named, None).await {
        Ok(client) => client,
        Err(error) => {
            let then = "give --url as in https://wes.example.org, and credentials that can be read";
            return vec![Check::problem("service", format!("{error:#}"), then)];
        }
    };
    let asked = Instant::now();
    let answer = match client.look("/service-info").await {
        Ok(answer) => answer,
        Err(error) => {
            return vec![Check::problem(
                "service",
                format!("{} does not answer: {error:#}", client.base()),
                "is the URL right, the server started, and no proxy or firewall in between?",
            )];
        }
    };
    let took = asked.elapsed();
    let (status, date) = (answer.status(), date_of(&answer));
    let info = answer.json::<Value>().await.unwrap_or_default();
    let mut checks = vec![service(client.base(), status, &info, took)];
    checks.extend(date.map(|date| clock(date, Utc::now())));
    if status.is_success() && is_stepwes(&info) {
        checks.push(version(info["version"].as_str().unwrap_or_default()));
        checks.push(engines(&info));
    }
    let runs = client.look("/runs?page_size=1").await;
    checks.push(match runs {
        Ok(answer) => access(answer.status(), client.has_credentials()),
        Err(error) => Check::problem(
            "access",
            format!("the list of runs was not answered: {error:#}"),
            "try again; if it stays so, read the log of the function status",
        ),
    });
    checks
}

fn is_stepwes(info: &Value) -> bool {
    info["type"]["artifact"] == "wes" && info["system_state_counts"].is_object()
}

fn service(base: &str, status: StatusCode, info: &Value, took: Duration) -> Check {
    let name = "service";
    match status {
        status if status.is_success() && info["supported_wes_versions"].is_array() => {
            let found = format!("{base} answers in {} ms", took.as_millis());
            if took > SLOW {
                let then = "a first answer may be cold; if it stays so, the service is overloaded";
                return Check::warning(name, found, then);
            }
            Check::ok(name, found)
        }
        status if status.is_success() => Check::problem(
            name,
            format!("{base} answers, but not as a WES service does"),
            "give the URL that has /ga4gh/wes/v1 below it",
        ),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            // Service-info may be for callers alone: `access` tells whether we are one.
            Check::ok(
                name,
                format!("{base} answers {}, callers are asked who they are", status.as_u16()),
            )
        }
        status if status.is_server_error() => Check::problem(
            name,
            format!("{base} answers {}", status.as_u16()),
            "the log has the cause, under the request id in the answer's x-request-id header",
        ),
        status => Check::problem(
            name,
            format!("{base} answers {}", status.as_u16()),
            "give the URL that has /ga4gh/wes/v1 below it",
        ),
    }
}

fn access(status: StatusCode, has_credentials: bool) -> Check {
    let name = "access";
    match status {
        status if status.is_success() && has_credentials => {
            Check::ok(name, "the credentials are taken")
        }
        status if status.is_success() => Check::ok(name, "anybody is let in"),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if has_credentials => Check::problem(
            name,
            format!("the credentials are refused ({})", status.as_u16()),
            "was the token revoked, has it expired, and is it one of this service's? `stepwes token \
             list` shows them",
        ),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Check::warning(
            name,
            format!("the service asks who you are ({}), and nobody said", status.as_u16()),
            "give --token, --user or --aws to try your credentials, too",
        ),
        status => Check::problem(
            name,
            format!("the list of runs is answered {}", status.as_u16()),
            "the log has the cause, under the request id in the answer's x-request-id header",
        ),
    }
}

/// The server's time, by its answer's `Date`.
fn date_of(answer: &reqwest::Response) -> Option<DateTime<Utc>> {
    let text = answer.headers().get("date")?.to_str().ok()?;
    DateTime::parse_from_rfc2822(text).ok().map(|date| date.to_utc())
}

fn clock(theirs: DateTime<Utc>, ours: DateTime<Utc>) -> Check {
    let (name, apart) = ("clock", (theirs - ours).abs());
    let found =
        format!("this machine's clock and the service's are {} s apart", apart.num_seconds());
    let then = "set the clock by NTP: signatures and presigned URLs count by it";
    if apart > CLOCK_PROBLEM {
        Check::problem(name, found, then)
    } else if apart > CLOCK_WARNING {
        Check::warning(name, found, then)
    } else {
        Check::ok(name, found)
    }
}

pub(crate) fn version(theirs: &str) -> Check {
    let name = "version";
    if theirs == OURS {
        return Check::ok(name, format!("service and command are both {OURS}"));
    }
    Check::warning(
        name,
        format!("the service is {theirs:?}, this command is {OURS}"),
        "use the same version on both sides; a server on this machine has to be started anew after \
         an upgrade",
    )
}

fn engines(info: &Value) -> Check {
    let name = "service's engines";
    let versions = info["workflow_engine_versions"].as_object();
    let named: Vec<_> = versions
        .into_iter()
        .flatten()
        .filter(|(_, versions)| {
            versions["workflow_engine_version"].as_array().is_some_and(|list| !list.is_empty())
        })
        .map(|(name, _)| name.as_str())
        .collect();
    if named.is_empty() {
        return Check::warning(
            name,
            "the service names no engine with a version",
            "install one: `stepwes engines install cwltool`; on AWS the parameter Engines says what \
             the image has",
        );
    }
    Check::ok(name, named.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::Status::{self, Ok, Problem, Warning};

    #[test]
    fn the_services_answer_is_told_from_no_wes_and_from_its_failures() {
        let info = json!({"supported_wes_versions": ["1.1.0"]});
        let fast = Duration::from_millis(5);
        for (status, info, took, expected) in [
            (200, &info, fast, Ok),
            (200, &info, Duration::from_secs(9), Warning),
            (200, &json!("hello"), fast, Problem),
            (401, &json!(null), fast, Ok),
            (403, &json!(null), fast, Ok),
            (404, &json!(null), fast, Problem),
            (502, &json!(null), fast, Problem),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let check = service("http://x", status, info, took);
            assert_eq!(check.status, expected, "{check:?}");
            assert_eq!(check.then.is_some(), expected != Ok);
        }
    }

    #[test]
    fn credentials_are_told_from_none() {
        for (status, given, expected) in [
            (200, true, Ok),
            (200, false, Ok),
            (401, false, Warning),
            (403, true, Problem),
            (401, true, Problem),
            (500, true, Problem),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(access(status, given).status, expected, "{status} {given}");
        }
    }

    #[test]
    fn clocks_may_differ_by_seconds_and_not_by_minutes() {
        let now = Utc::now();
        let of = |seconds| -> Status { clock(now + TimeDelta::seconds(seconds), now).status };
        assert_eq!(
            [0, 29, -31, 299, 301, -4000].map(of),
            [Ok, Ok, Warning, Warning, Problem, Problem]
        );
    }

    #[test]
    fn another_version_and_no_engine_are_said() {
        assert_eq!(version(OURS).status, Ok);
        assert_eq!(version("0.0.1").status, Warning);
        let of = |versions| {
            engines(
                &json!({"workflow_engine_versions": {"cwltool": {"workflow_engine_version": versions}}}),
            )
        };
        assert_eq!(of(json!(["3.1"])).status, Ok);
        assert_eq!(of(json!([])).status, Warning);
    }
}
