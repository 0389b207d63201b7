//! `Retry` and `Catch`: which error is handled how, and how long to wait before the next attempt.

use chrono::TimeDelta;
use serde_json::Value;

use crate::assign::{Assign, load_output};
use crate::expression::Available;
use crate::failure::{ALL, Failure};
use crate::load::{Fields, LoadError, Place, string};
use crate::random::Random;
use crate::states::Exit;

const MAX_COUNT: u32 = 99_999_999;
/// 31,622,400 seconds (366 days), the most `MaxDelaySeconds` may say.
const MAX_DELAY_SECONDS: u32 = 31_622_400;

/// One entry of `Retry`.
#[derive(Debug)]
pub(crate) struct Retrier {
    error_equals: Vec<String>,
    interval_seconds: u32,
    pub(crate) max_attempts: u32,
    backoff_rate: f64,
    max_delay_seconds: Option<u32>,
    full_jitter: bool,
}

/// The retriers of a state, in order.
pub(crate) fn load_retriers(fields: &Fields<'_>) -> Result<Vec<Retrier>, LoadError> {
    let Some(entries) = fields.array("Retry")? else { return Ok(Vec::new()) };
    let place = fields.at("Retry");
    let last = entries.len().saturating_sub(1);
    entries
        .iter()
        .enumerate()
        .map(|(index, entry)| Retrier::load(place.item(index), entry, index == last))
        .collect()
}

impl Retrier {
    fn load(place: Place, value: &Value, last: bool) -> Result<Self, LoadError> {
        let fields = Fields::of(
            place,
            value,
            &[
                "ErrorEquals",
                "IntervalSeconds",
                "MaxAttempts",
                "BackoffRate",
                "MaxDelaySeconds",
                "JitterStrategy",
                "Comment",
            ],
        )?;
        fields.string("Comment")?;
        let interval_seconds = fields.integer("IntervalSeconds", 1..=MAX_COUNT)?.unwrap_or(1);
        let max_delay_seconds = fields.integer("MaxDelaySeconds", 1..=MAX_DELAY_SECONDS)?;
        if max_delay_seconds.is_some_and(|max| max <= interval_seconds) {
            return Err(fields.at("MaxDelaySeconds").refuse(format!(
                "must be more than IntervalSeconds, which is {interval_seconds}"
            )));
        }
        let backoff_rate = match fields.get("BackoffRate") {
            None => 2.0,
            Some(value) => value.as_f64().filter(|rate| *rate >= 1.0).ok_or_else(|| {
                fields.at("BackoffRate").refuse("must be a number of 1.0 or more")
            })?,
        };
        let full_jitter = match fields.string("JitterStrategy")? {
            None | Some("NONE") => false,
            Some("FULL") => true,
            Some(other) => {
                return Err(fields
                    .at("JitterStrategy")
                    .refuse(format!("must be \"FULL\" or \"NONE\", but is {other:?}")));
            }
        };
        Ok(Self {
            error_equals: error_equals(&fields, last)?,
            interval_seconds,
            max_attempts: fields.integer("MaxAttempts", 0..=MAX_COUNT)?.unwrap_or(3),
            backoff_rate,
            max_delay_seconds,
            full_jitter,
        })
    }

    pub(crate) fn matches(&self, failure: &Failure) -> bool {
        self.error_equals.iter().any(|pattern| failure.matches(pattern))
    }

    /// How long to wait before the retry after `done` retries by this retrier.
    pub(crate) fn delay(&self, done: u32, random: &mut Random) -> TimeDelta {
        let exponent = i32::try_from(done).unwrap_or(i32::MAX);
        let most = f64::from(self.max_delay_seconds.unwrap_or(MAX_COUNT));
        let seconds =
            (f64::from(self.interval_seconds) * self.backoff_rate.powi(exponent)).min(most);
        let seconds = if self.full_jitter { seconds * random.unit() } else { seconds };
        #[expect(clippy::cast_possible_truncation, reason = "at most 99,999,999 seconds")]
        let milliseconds = (seconds * 1000.0).round() as i64;
        TimeDelta::milliseconds(milliseconds)
    }
}

/// One entry of `Catch`.
#[derive(Debug)]
pub(crate) struct Catcher {
    error_equals: Vec<String>,
    pub(crate) exit: Exit,
}

/// The catchers of a state, in order.
pub(crate) fn load_catchers(fields: &Fields<'_>) -> Result<Vec<Catcher>, LoadError> {
    let Some(entries) = fields.array("Catch")? else { return Ok(Vec::new()) };
    let place = fields.at("Catch");
    let last = entries.len().saturating_sub(1);
    entries
        .iter()
        .enumerate()
        .map(|(index, entry)| {
            let fields = Fields::of(
                place.item(index),
                entry,
                &["ErrorEquals", "Next", "Output", "Assign", "Comment"],
            )?;
            fields.string("Comment")?;
            Ok(Catcher {
                error_equals: error_equals(&fields, index == last)?,
                exit: Exit {
                    next: Some(fields.required_string("Next")?.to_owned()),
                    output: load_output(&fields, Available::ErrorOutput)?,
                    assign: Assign::load(&fields, Available::ErrorOutput)?,
                },
            })
        })
        .collect()
}

impl Catcher {
    pub(crate) fn matches(&self, failure: &Failure) -> bool {
        self.error_equals.iter().any(|pattern| failure.matches(pattern))
    }
}

/// `ErrorEquals`: not empty; `States.ALL` alone and in the last entry.
fn error_equals(fields: &Fields<'_>, last: bool) -> Result<Vec<String>, LoadError> {
    let place = fields.at("ErrorEquals");
    let names = fields
        .array("ErrorEquals")?
        .ok_or_else(|| place.refuse("is required"))?
        .iter()
        .enumerate()
        .map(|(index, name)| string(&place.item(index), name).map(str::to_owned))
        .collect::<Result<Vec<_>, _>>()?;
    if names.is_empty() {
        return Err(place.refuse("must name at least one error"));
    }
    if names.iter().any(|name| name == ALL) {
        if names.len() > 1 {
            return Err(place.refuse("States.ALL must stand alone"));
        }
        if !last {
            return Err(
                place.refuse("States.ALL must be in the last entry; later ones would never match")
            );
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn retrier(value: &Value) -> Retrier {
        Retrier::load(Place::machine(), value, true).expect("a valid retrier")
    }

    fn seconds(retrier: &Retrier, done: u32) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let milliseconds = retrier.delay(done, &mut Random::new(0)).num_milliseconds() as f64;
        milliseconds / 1000.0
    }

    #[test]
    fn the_delay_grows_by_the_rate_from_the_interval() {
        let retrier =
            retrier(&json!({"ErrorEquals": ["A"], "IntervalSeconds": 3, "BackoffRate": 1.5}));
        assert_eq!([0, 1, 2].map(|n| seconds(&retrier, n)), [3.0, 4.5, 6.75]);
    }

    #[test]
    fn the_defaults_are_one_second_doubling_three_times() {
        let retrier = retrier(&json!({"ErrorEquals": ["A"]}));
        assert_eq!([0, 1, 2].map(|n| seconds(&retrier, n)), [1.0, 2.0, 4.0]);
        assert_eq!(retrier.max_attempts, 3);
    }

    proptest! {
        #[test]
        fn the_delay_never_exceeds_max_delay_and_jitter_only_shortens_it(
            interval in 1u32..1000,
            more in 1u32..1000,
            rate in 1.0f64..10.0,
            done in 0u32..5000,
            seed: u64,
            jitter: bool,
        ) {
            let max = interval + more;
            let retrier = retrier(&json!({
                "ErrorEquals": ["A"],
                "IntervalSeconds": interval,
                "MaxDelaySeconds": max,
                "BackoffRate": rate,
                "JitterStrategy": if jitter { "FULL" } else { "NONE" },
            }));
            let delay = retrier.delay(done, &mut Random::new(seed));
            prop_assert!(delay >= TimeDelta::zero());
            prop_assert!(delay <= TimeDelta::seconds(i64::from(max)));
            if !jitter {
                prop_assert!(delay >= TimeDelta::seconds(i64::from(interval)));
            }
        }

        #[test]
        fn no_delay_overflows_without_max_delay(interval in 1u32..=MAX_COUNT, rate in 1.0f64..1e9, done: u32) {
            let retrier = retrier(&json!({
                "ErrorEquals": ["A"], "IntervalSeconds": interval, "BackoffRate": rate,
            }));
            prop_assert!(retrier.delay(done, &mut Random::new(0)) <= TimeDelta::seconds(i64::from(MAX_COUNT)));
        }
    }
}
