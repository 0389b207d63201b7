//! Faults at a rate, drawn from a seed.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use chrono::TimeDelta;
use sha2::{Digest as _, Sha256};

use super::{Fault, FaultPlan, FaultyCall, When};

/// The services that a rate can be given for.
const SERVICES: [&str; 8] =
    ["apigateway", "dynamodb", "ecs", "lambda", "metadata", "s3", "states", "sts"];
/// The rate where none is given, in percent.
const DEFAULT_PERCENT: u8 = 20;
/// The highest rate: with more, patience that is made for bad days ends before a run does.
const MAX_PERCENT: u8 = 90;
/// The longest that a slow call takes, and that a late effect is late by.
const LONGEST: u64 = 300;
/// How wrong the functions' clocks are at most, in seconds either way.
const MAX_SKEW: i64 = 30;

/// Faults of every kind at a rate. What goes wrong with a call is a function of the seed and of what
/// the call is, and of nothing else: time and the order of calls do not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeded {
    seed: u64,
    percent: u8,
    of_service: BTreeMap<String, u8>,
}

impl Seeded {
    /// Faults by this seed, at the same rate for every service.
    ///
    /// # Panics
    /// When `percent` is above 90.
    #[must_use]
    pub fn new(seed: u64, percent: u8) -> Self {
        assert!(percent <= MAX_PERCENT, "at most {MAX_PERCENT} percent");
        Self { seed, percent, of_service: BTreeMap::new() }
    }

    /// Random bits for one question.
    fn draw(&self, question: &fmt::Arguments<'_>) -> Draw {
        let hash = Sha256::digest(format!("{}|{question}", self.seed));
        let mut words = hash
            .chunks_exact(8)
            .map(|bytes| bytes.iter().fold(0_u64, |word, byte| (word << 8) | u64::from(*byte)));
        let mut word = || words.next().unwrap_or_default();
        Draw { whether: word(), which: word(), much: word() }
    }
}

/// What one question draws.
struct Draw {
    whether: u64,
    which: u64,
    much: u64,
}

impl FaultPlan for Seeded {
    fn fault(&self, call: &FaultyCall<'_>) -> Option<Fault> {
        let FaultyCall { service, operation, run, nth, .. } = call;
        let draw = self.draw(&format_args!("{service}|{operation}|{run}|{nth}"));
        let percent = self.of_service.get(*service).copied().unwrap_or(self.percent);
        if draw.whether % 100 >= u64::from(percent) {
            return None;
        }
        let time = Duration::from_millis(1 + draw.much % LONGEST);
        let kinds = [
            (3, Fault::Throttled),
            (2, Fault::Failed(When::Before)),
            (2, Fault::Failed(When::After)),
            (2, Fault::Unanswered(When::Before)),
            (3, Fault::Unanswered(When::After)),
            (1, Fault::Late(time)),
            (2, Fault::Slow(time)),
            (2, Fault::TornAnswer),
            (1, Fault::TornRequest),
            (1, Fault::Skewed),
            (1, Fault::Dies(When::Before)),
            (1, Fault::Dies(When::After)),
            (1, Fault::Twice),
        ];
        let mut place = draw.which % kinds.iter().map(|(weight, _)| weight).sum::<u64>();
        for (weight, fault) in kinds {
            if place < weight {
                return Some(fault);
            }
            place -= weight;
        }
        None
    }

    fn skew(&self, function: &str) -> TimeDelta {
        if self.percent == 0 {
            return TimeDelta::zero();
        }
        let draw = self.draw(&format_args!("clock|{function}"));
        let seconds = i64::try_from(draw.much % (2 * MAX_SKEW.unsigned_abs() + 1));
        TimeDelta::seconds(seconds.unwrap_or_default() - MAX_SKEW)
    }
}

/// Why a text says no faults.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSeeded {
    /// The seed.
    #[error("the seed {0:?} is not a whole number from 0 to 18446744073709551615")]
    Seed(String),
    /// A rate.
    #[error("the rate {0:?} is not a whole number of percent from 0 to {MAX_PERCENT}")]
    Rate(String),
    /// A service.
    #[error("{0:?} is none of the services {known}", known = SERVICES.join(", "))]
    Service(String),
}

impl FromStr for Seeded {
    type Err = NotSeeded;

    /// Reads `SEED[:PERCENT][,SERVICE=PERCENT]…`, such as `7` (20 percent), `7:30` or
    /// `7:0,s3=50,sts=90`.
    fn from_str(text: &str) -> Result<Self, NotSeeded> {
        let rate = |text: &str| {
            let read = text.parse().ok().filter(|percent| *percent <= MAX_PERCENT);
            read.ok_or_else(|| NotSeeded::Rate(text.to_owned()))
        };
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let (seed, percent) = match first.split_once(':') {
            Some((seed, percent)) => (seed, rate(percent)?),
            None => (first, DEFAULT_PERCENT),
        };
        let seed = seed.parse().map_err(|_| NotSeeded::Seed(seed.to_owned()))?;
        let mut of_service = BTreeMap::new();
        for part in parts {
            let (service, percent) = part.split_once('=').unwrap_or((part, ""));
            if !SERVICES.contains(&service) {
                return Err(NotSeeded::Service(service.to_owned()));
            }
            of_service.insert(service.to_owned(), rate(percent)?);
        }
        Ok(Self { seed, percent, of_service })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn call(service: &'static str, run: &'static str, nth: u64) -> FaultyCall<'static> {
        FaultyCall { service, operation: "GetItem", function: None, run, nth }
    }

    #[test]
    fn the_same_seed_decides_the_same_and_another_one_otherwise() {
        let decide = |seed| -> Vec<_> {
            let plan = Seeded::new(seed, 20);
            (0..2000).map(|nth| plan.fault(&call("dynamodb", "a", nth))).collect()
        };
        assert_eq!(decide(7), decide(7));
        assert_ne!(decide(7), decide(8));
        // Who asks first does not matter.
        let plan = Seeded::new(7, 20);
        let backwards: Vec<_> =
            (0..2000).rev().map(|nth| plan.fault(&call("dynamodb", "a", nth))).collect();
        assert_eq!(backwards.into_iter().rev().collect::<Vec<_>>(), decide(7));
    }

    /// A seed that was written down stays good for as long as this holds.
    #[test]
    fn what_a_seed_means_does_not_change() {
        let plan = Seeded::new(1, 20);
        let faults: Vec<_> = (0..40)
            .filter_map(|nth| Some((nth, plan.fault(&call("s3", "chaos-1", nth))?.name())))
            .collect();
        insta::assert_compact_debug_snapshot!(faults, @r#"[(1, "failed before"), (5, "dies after"), (8, "torn answer"), (13, "unanswered before"), (15, "failed after"), (20, "slow"), (31, "skewed"), (35, "torn request")]"#);
    }

    #[test]
    fn every_kind_comes_and_as_often_as_it_should() {
        let plan = Seeded::new(3, 20);
        let faults: Vec<_> =
            (0..20_000).filter_map(|nth| plan.fault(&call("s3", "r", nth))).collect();
        assert!((3800..4200).contains(&faults.len()), "{}", faults.len());
        let kinds: BTreeSet<_> = faults.iter().map(|fault| fault.name()).collect();
        assert_eq!(kinds.len(), 13, "{kinds:?}");
    }

    #[test]
    fn services_have_rates_of_their_own() {
        let plan: Seeded = "5:0,s3=90".parse().expect("good");
        let met = |service| {
            (0..1000).filter(|nth| plan.fault(&call(service, "", *nth)).is_some()).count()
        };
        assert_eq!(met("dynamodb"), 0);
        assert!(met("s3") > 800);
        assert_eq!("5".parse(), Ok(Seeded::new(5, 20)));
        assert_eq!("5:30".parse(), Ok(Seeded::new(5, 30)));
    }

    #[test]
    fn clocks_are_wrong_by_half_a_minute_at_most() {
        let skews: BTreeSet<_> = (0..200).map(|seed| Seeded::new(seed, 20).skew("x")).collect();
        assert!(skews.iter().all(|skew| skew.num_seconds().abs() <= MAX_SKEW));
        assert!(skews.len() > 20);
        assert_eq!(Seeded::new(1, 0).skew("x"), TimeDelta::zero());
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (text, part) in [
            ("", "seed"),
            ("x", "seed"),
            ("-1", "seed"),
            ("1:", "rate"),
            ("1:91", "rate"),
            ("1:20,sqs=1", "\"sqs\" is none of the services apigateway, dynamodb"),
            ("1:20,s3", "rate"),
            ("1:20,s3=x", "rate"),
        ] {
            let error = text.parse::<Seeded>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
