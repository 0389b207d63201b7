//! Wait: goes on after some seconds, or at a time.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{Kind, State, fields, load_exit};
use crate::execution::{Activity, Begun, Here, Run};
use crate::expression::{Available, Count, EvaluationError, Template};
use crate::failure::Trouble;
use crate::load::{LoadError, Place, string};
use crate::machine::MAX_SECONDS;

#[derive(Debug)]
pub(crate) enum Wait {
    Seconds(Count),
    Timestamp(Template),
}

pub(super) fn load(place: Place, value: &Value) -> Result<State, LoadError> {
    let fields =
        fields(place, value, &["Seconds", "Timestamp", "Next", "End", "Output", "Assign"])?;
    let wait = match (fields.get("Seconds"), fields.get("Timestamp")) {
        (Some(seconds), None) => {
            Wait::Seconds(Count::load(&fields.at("Seconds"), seconds, 0..=MAX_SECONDS)?)
        }
        (None, Some(timestamp)) => {
            let place = fields.at("Timestamp");
            let text = string(&place, timestamp)?;
            let template = Template::load(&place, timestamp, Available::Entry)?;
            if matches!(template, Template::Literal(_)) && parse(text).is_none() {
                return Err(place.refuse(format!(
                    "must be a time as 2025-01-31T23:59:59Z, with T and an offset, but is {text:?}"
                )));
            }
            Wait::Timestamp(template)
        }
        (None, None) => return Err(fields.at("Seconds").refuse("is required, or Timestamp")),
        (Some(_), Some(_)) => {
            return Err(fields.at("Timestamp").refuse("cannot be there together with Seconds"));
        }
    };
    Ok(State::plain(Kind::Wait(wait), load_exit(&fields, Available::Entry)?))
}

/// RFC 3339 with the capital letters that Step Functions asks for.
fn parse(text: &str) -> Option<DateTime<Utc>> {
    let upper = text.contains('T') && !text.contains('z');
    DateTime::parse_from_rfc3339(text).ok().filter(|_| upper).map(|time| time.to_utc())
}

impl Wait {
    pub(super) fn begin(
        &self,
        run: &mut Run<'_>,
        here: &Here<'_>,
    ) -> Result<Begun<'static>, Trouble> {
        let until = match self {
            Self::Seconds(count) => {
                let seconds = run.evaluate(here, None, |scope| scope.count(count))?;
                run.now + TimeDelta::seconds(i64::from(seconds))
            }
            Self::Timestamp(template) => run.evaluate(here, None, |scope| {
                let text = scope.string(template)?;
                parse(&text).ok_or_else(|| EvaluationError {
                    location: Some("Timestamp".to_owned()),
                    message: format!(
                        "The Timestamp field cannot be parsed as an ISO-8601 extended offset \
                         date-time format string: {text}"
                    ),
                })
            })?,
        };
        Ok(Begun::Blocked(Activity::Waiting { until }))
    }
}
