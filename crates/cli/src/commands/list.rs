//! `stepwes list`: runs, newest first.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use chrono::{DateTime, NaiveDate, SecondsFormat};

use crate::{
    args::ListArgs,
    client::{Client, ListedRun},
    ui::{print, print_json, table},
};

/// Lists the newest runs.
pub(crate) async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let wanted = Wanted::of(&args)?;
    let client = Client::new(&args.server, None).await?;
    let runs = client.list(args.limit, &wanted.query()).await?;
    wanted.check(&runs)?;
    if args.server.json {
        print_json(&runs)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = runs
        .iter()
        .map(|run| {
            let tags: Vec<_> = run
                .tags
                .iter()
                .map(|(name, value)| match value.as_str() {
                    Some(value) => format!("{name}={value}"),
                    None => format!("{name}={value}"),
                })
                .collect();
            let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
            vec![
                run.run_id.clone(),
                run.state.0.clone(),
                time(&run.start_time),
                time(&run.end_time),
                tags.join(" "),
            ]
        })
        .collect();
    print(&table(&["RUN", "STATE", "STARTED", "ENDED", "TAGS"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// Whose runs, and which.
struct Wanted {
    states: Vec<String>,
    tags: Vec<(String, String)>,
    /// What can only be asked for, and not be seen of a listed run.
    rest: Vec<(&'static str, String)>,
}

impl Wanted {
    fn of(args: &ListArgs) -> anyhow::Result<Self> {
        let tags = args.tag.iter().map(|tag| {
            let (name, value) = tag.split_once('=').with_context(|| {
                format!("--tag {tag:?} has no value\nhint: write --tag NAME=VALUE")
            })?;
            Ok((name.to_owned(), value.to_owned()))
        });
        let time = |name: &str, text: &Option<String>| {
            text.as_deref().map(|text| time(name, text)).transpose()
        };
        let rest = [
            ("owner", args.owner.clone()),
            ("workflow_type", args.workflow_type.clone()),
            ("workflow_engine", args.engine.clone()),
            ("created_after", time("--after", &args.after)?),
            ("created_before", time("--before", &args.before)?),
        ];
        Ok(Self {
            states: args.state.iter().map(|state| state.to_uppercase()).collect(),
            tags: tags.collect::<anyhow::Result<_>>()?,
            rest: rest.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        })
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let states = self.states.iter().map(|state| ("state", state.clone()));
        let tags = self.tags.iter().map(|(name, value)| ("tags", format!("{name}:{value}")));
        self.rest.iter().cloned().chain(states).chain(tags).collect()
    }

    /// Filters are an extension: other servers answer as if there were none.
    fn check(&self, runs: &[ListedRun]) -> anyhow::Result<()> {
        let holds = |run: &ListedRun| {
            (self.states.is_empty() || self.states.contains(&run.state.0))
                && self.tags.iter().all(|(name, value)| {
                    run.tags.get(name).and_then(|value| value.as_str()) == Some(value)
                })
        };
        if !runs.iter().all(holds) {
            bail!(
                "this server does not filter its runs\nhint: filters are an extension of stepwes; \
                 leave them out, or filter what `stepwes list --json` prints"
            );
        }
        Ok(())
    }
}

/// A time as the server reads it.
fn time(name: &str, text: &str) -> anyhow::Result<String> {
    let time = match text.parse::<NaiveDate>() {
        Ok(day) => day.and_time(chrono::NaiveTime::MIN).and_utc(),
        Err(_) => DateTime::parse_from_rfc3339(text)
            .with_context(|| {
                format!(
                    "{name} {text:?} is no time\nhint: write a day (2026-01-31) or a time with its \
                     zone (2026-01-31T12:00:00Z)"
                )
            })?
            .to_utc(),
    };
    Ok(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_its_beginning_in_utc_and_a_time_has_a_zone() {
        assert_eq!(time("--after", "2026-01-31").ok().as_deref(), Some("2026-01-31T00:00:00Z"));
        let zoned = time("--after", "2026-01-31T12:00:00.5+01:00").ok();
        assert_eq!(zoned.as_deref(), Some("2026-01-31T11:00:00.500Z"));
        for bad in ["yesterday", "2026-02-30", "2026-01-31T12:00:00", ""] {
            let error = time("--after", bad).expect_err(bad);
            assert!(error.to_string().contains("hint: write a day"), "{error}");
        }
    }

    #[test]
    fn a_server_that_does_not_filter_is_told_from_one_that_does() {
        let run = |state: &str, tags: serde_json::Value| -> ListedRun {
            serde_json::from_value(serde_json::json!({"run_id": "1", "state": state, "tags": tags}))
                .expect("a run")
        };
        let wanted = Wanted {
            states: vec!["RUNNING".to_owned()],
            tags: vec![("a".to_owned(), "b".to_owned())],
            rest: Vec::new(),
        };
        let good = run("RUNNING", serde_json::json!({"a": "b", "c": "d"}));
        assert!(wanted.check(std::slice::from_ref(&good)).is_ok());
        for other in [
            run("QUEUED", serde_json::json!({"a": "b"})),
            run("RUNNING", serde_json::json!({"a": "x"})),
            run("RUNNING", serde_json::json!({})),
        ] {
            assert!(wanted.check(&[good.clone(), other]).is_err());
        }
    }
}
