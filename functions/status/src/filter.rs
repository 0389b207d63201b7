//! The filters of a list of runs, and the page tokens that are bound to them.

use chrono::{DateTime, Utc};
use stepwes_core::{ApiError, RunId, RunState};
use stepwes_store::RunFilter;
use url::form_urlencoded;

use crate::paging::bad_token;

/// What stands between the run and the filter in a token.
const BOUND: char = '.';

/// Reads the filters of a query string; other parameters are not ours.
pub(crate) fn read(query: Option<&str>) -> Result<RunFilter, ApiError> {
    let mut filter = RunFilter::default();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "state" => {
                filter.states.insert(state(&value)?);
            }
            "tags" => {
                if !value.contains(':') {
                    return Err(ApiError::BadRequest(format!(
                        "tags must be NAME:VALUE, and {value:?} has no colon"
                    )));
                }
                filter.tags.insert(value.into_owned());
            }
            "workflow_type" => once(&name, &mut filter.workflow_type, word(&name, &value)?)?,
            "workflow_engine" => once(&name, &mut filter.workflow_engine, word(&name, &value)?)?,
            "created_after" => once(&name, &mut filter.created_after, time(&name, &value)?)?,
            "created_before" => once(&name, &mut filter.created_before, time(&name, &value)?)?,
            _ => {}
        }
    }
    Ok(filter)
}

fn once<T>(name: &str, place: &mut Option<T>, value: T) -> Result<(), ApiError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(ApiError::BadRequest(format!("{name} may be given once"))),
    }
}

fn state(value: &str) -> Result<RunState, ApiError> {
    RunState::parse(value).ok_or_else(|| {
        let known: Vec<_> = RunState::ALL.iter().map(|state| state.as_str()).collect();
        ApiError::BadRequest(format!(
            "there is no state {value:?} here; state must be one of {}",
            known.join(", ")
        ))
    })
}

fn word(name: &str, value: &str) -> Result<String, ApiError> {
    match value.trim() {
        "" => Err(ApiError::BadRequest(format!("{name} is empty; leave it out to list all"))),
        word => Ok(word.to_owned()),
    }
}

fn time(name: &str, value: &str) -> Result<DateTime<Utc>, ApiError> {
    let time = DateTime::parse_from_rfc3339(value).map_err(|_| {
        ApiError::BadRequest(format!(
            "{name} must be a time such as 2026-01-31T12:00:00Z or 2026-01-31T12:00:00%2B01:00 \
             (RFC 3339; in a URL, + is written %2B)"
        ))
    })?;
    Ok(time.to_utc())
}

/// The token of the page after `run_id`. It is the run's id alone where there is no filter.
pub(crate) fn token(run_id: RunId, filter: &RunFilter, owner: &str) -> String {
    if filter.is_empty() {
        run_id.to_string()
    } else {
        format!("{run_id}{BOUND}{}", filter.fingerprint(owner))
    }
}

/// Where the page of a token begins.
///
/// # Errors
/// 400 for a token that is none, or that is of a list with other filters: pages of two lists would
/// be taken for one list.
pub(crate) fn after(token: &str, filter: &RunFilter, owner: &str) -> Result<RunId, ApiError> {
    let (run_id, bound) = match token.split_once(BOUND) {
        Some((run_id, bound)) => (run_id, Some(bound)),
        None => (token, None),
    };
    let run_id = run_id.parse().map_err(|_| bad_token())?;
    let wanted = (!filter.is_empty()).then(|| filter.fingerprint(owner));
    if bound == wanted.as_deref() {
        Ok(run_id)
    } else {
        Err(ApiError::BadRequest(
            "page_token belongs to a list with other filters; send those that the page before was \
             asked for with, or begin without it"
                .to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwes_core::{IdGenerator as _, RandomIds};

    #[test]
    fn filters_are_read() {
        let query = "state=RUNNING&state=QUEUED&state=QUEUED&tags=a:b%3Ac&tags=d:&page_size=3&x=y\
                     &workflow_type=%20cwl&workflow_engine=toil\
                     &created_after=2026-01-31T12:00:00%2B01:00&created_before=2026-02-01T00:00:00.5Z";
        let filter = read(Some(query)).expect("good");
        assert_eq!(filter.states, [RunState::Queued, RunState::Running].into());
        assert_eq!(filter.tags, ["a:b:c".to_owned(), "d:".to_owned()].into());
        assert_eq!(filter.workflow_type.as_deref(), Some("cwl"));
        assert_eq!(filter.workflow_engine.as_deref(), Some("toil"));
        assert_eq!(filter.created_after, "2026-01-31T11:00:00Z".parse().ok());
        assert_eq!(filter.created_before, "2026-02-01T00:00:00.500Z".parse().ok());
        assert!(read(None).expect("good").is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_can() {
        for (bad, says) in [
            ("state=running", "QUEUED, INITIALIZING"),
            ("state=", "QUEUED, INITIALIZING"),
            ("state=PAUSED", "\"PAUSED\""),
            ("tags=x", "NAME:VALUE"),
            ("workflow_type=%20", "workflow_type is empty"),
            ("workflow_type=CWL&workflow_type=WDL", "once"),
            ("created_after=2026-01-31", "2026-01-31T12:00:00Z"),
            ("created_before=2026-01-31T12:00:00+01:00", "%2B"),
            ("created_after=2026-01-31T12:00:00Z&created_after=2026-01-31T12:00:00Z", "once"),
        ] {
            let error = read(Some(bad)).expect_err(bad);
            assert_eq!(error.status(), 400);
            assert!(error.to_string().contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn a_token_counts_with_its_own_filters_alone() {
        let run_id = RandomIds.run_id(Utc::now());
        let of = |query| read(Some(query)).expect("good");
        let (none, running, failed) = (of(""), of("state=RUNNING"), of("state=SYSTEM_ERROR"));
        assert_eq!(token(run_id, &none, "ada"), run_id.to_string());
        for filter in [&none, &running, &failed] {
            for other in [&none, &running, &failed] {
                let read = after(&token(run_id, filter, "ada"), other, "ada");
                assert_eq!(read.ok(), (filter == other).then_some(run_id));
            }
        }
        assert!(after(&token(run_id, &running, "ada"), &running, "bob").is_err());
        for bad in ["x", ".", "", "x.y", &format!("{run_id}."), &format!("{run_id}.zz")] {
            assert_eq!(after(bad, &running, "ada").expect_err(bad).status(), 400);
        }
    }
}
