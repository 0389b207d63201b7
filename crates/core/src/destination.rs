//! Where a run's output files go: below a prefix of the runs bucket, or of a bucket of the operator's.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    error::ApiError,
    keys,
    resources::PREFIX,
    run::{Run, RunId},
};

/// The `workflow_engine_parameter` by which a run names its destination, such as
/// `s3://lab-results/project-1`. It begins with [`PREFIX`], as all of ours do.
pub const DEST: &str = "stepwes.dest";

/// The longest prefix, in bytes: it is in the session policy of the run's task, which is short.
pub const MAX_PREFIX: usize = 64;

/// `s3://bucket/prefix`. A run's files go to `prefix/<run_id>/` there, as Toil's server has it
/// (`--dest_bucket_base`, `toil.server.wes.toil_backend`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    bucket: String,
    /// Without slashes at its ends; may be empty.
    prefix: String,
}

/// It is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "it must be s3://BUCKET or s3://BUCKET/PREFIX, the prefix of at most {MAX_PREFIX} letters, digits and -_.=+@:/"
)]
pub struct NotADestination;

impl Destination {
    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What the keys of that run's files begin with.
    #[must_use]
    pub fn of_run(&self, run: RunId) -> String {
        if self.prefix.is_empty() { format!("{run}/") } else { format!("{}/{run}/", self.prefix) }
    }

    /// The longest one in that bucket, to see whether it fits where it has to.
    #[must_use]
    pub fn longest(bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), prefix: "x".repeat(MAX_PREFIX) }
    }
}

impl FromStr for Destination {
    type Err = NotADestination;

    fn from_str(text: &str) -> Result<Self, NotADestination> {
        let rest = text.trim().strip_prefix("s3://").ok_or(NotADestination)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.=+@:/".contains(c);
        let parts_are_names =
            prefix.is_empty() || prefix.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !is_bucket_name(bucket)
            || prefix.len() > MAX_PREFIX
            || !prefix.chars().all(is_plain)
            || !parts_are_names
        {
            return Err(NotADestination);
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// S3's rule for general purpose buckets
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>).
#[must_use]
pub fn is_bucket_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.starts_with(plain)
        && name.ends_with(plain)
        && name.chars().all(|c| plain(c) || c == '-' || c == '.')
}

/// Where the operator lets runs put their outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations {
    /// The buckets that a run may name.
    pub buckets: Vec<String>,
    /// Where the outputs of a run go that names none; the runs bucket when there is none.
    pub default: Option<Destination>,
}

impl Destinations {
    /// The destination of a run with these `workflow_engine_parameters`; `None` for the runs bucket.
    ///
    /// # Errors
    /// 400 for one that cannot be read, or whose bucket the operator does not allow.
    pub fn of_parameters(
        &self,
        parameters: &Map<String, Value>,
    ) -> Result<Option<Destination>, ApiError> {
        debug_assert!(DEST.starts_with(PREFIX));
        let Some(value) = parameters.get(DEST) else { return Ok(self.default.clone()) };
        let refuse = |why: String| {
            Err(ApiError::BadRequest(format!(
                "workflow_engine_parameters: {DEST} is {value}: {why}"
            )))
        };
        let destination = match value.as_str().map(str::parse::<Destination>) {
            Some(Ok(destination)) => destination,
            Some(Err(error)) => return refuse(error.to_string()),
            None => return refuse(NotADestination.to_string()),
        };
        let is_default = |default: &Destination| default.bucket == destination.bucket;
        if self.buckets.contains(&destination.bucket)
            || self.default.as_ref().is_some_and(is_default)
        {
            return Ok(Some(destination));
        }
        if self.buckets.is_empty() {
            return refuse("this service keeps outputs in its own bucket".to_owned());
        }
        refuse(format!("outputs may go to {}", self.buckets.join(", ")))
    }
}

/// Where the output files of one attempt are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputsPlace {
    /// The bucket, when it is not the runs bucket.
    pub bucket: Option<String>,
    /// What their keys begin with; ends with a slash.
    pub prefix: String,
}

impl OutputsPlace {
    /// The place of an attempt's outputs. At a destination all attempts share one: only one of them
    /// is ever at work, and what counts is what `outputs.json` names.
    #[must_use]
    pub fn new(run: RunId, attempt: u32, destination: Option<&Destination>) -> Self {
        match destination {
            Some(destination) => {
                Self { bucket: Some(destination.bucket.clone()), prefix: destination.of_run(run) }
            }
            None => Self { bucket: None, prefix: keys::outputs_prefix(run, attempt) },
        }
    }

    /// The key of a file, by its path below the engine's output directory.
    #[must_use]
    pub fn key(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

impl Run {
    /// Where the output files of its present attempt are.
    #[must_use]
    pub fn outputs_place(&self) -> OutputsPlace {
        OutputsPlace::new(self.run_id, self.attempt, self.destination.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run_id() -> RunId {
        "01890000-0000-7000-8000-000000000000".parse().expect("a run id")
    }

    #[test]
    fn a_destination_is_a_bucket_and_a_plain_prefix() {
        for (text, prefix) in [
            ("s3://lab-results", ""),
            ("s3://lab-results/", ""),
            (" s3://lab-results/a/b=c/ ", "a/b=c/"),
        ] {
            let destination: Destination = text.parse().expect(text);
            assert_eq!(destination.bucket(), "lab-results");
            assert_eq!(destination.of_run(run_id()), format!("{prefix}{}/", run_id()));
            assert_eq!(destination.to_string().parse(), Ok(destination));
        }
        let long = format!("s3://lab-results/{}", "x".repeat(MAX_PREFIX + 1));
        for bad in [
            "",
            "lab-results/x",
            "gs://lab-results",
            "s3://",
            "s3://Lab",
            "s3://a",
            "s3://lab-results/*",
            "s3://lab-results/${aws:userid}",
            "s3://lab-results/a//b",
            "s3://lab-results/../x",
            "s3://lab-results/a b",
            "s3://lab-results/?",
            &long,
        ] {
            assert_eq!(bad.parse::<Destination>(), Err(NotADestination), "{bad}");
        }
    }

    #[test]
    fn a_run_goes_where_the_operator_lets_it() {
        let asked = |value: Value| {
            let Value::Object(parameters) = json!({ DEST: value }) else { panic!("an object") };
            parameters
        };
        let none = Destinations::default();
        assert_eq!(none.of_parameters(&Map::new()), Ok(None));
        let refused = |to: &Destinations, value: Value| {
            to.of_parameters(&asked(value)).expect_err("refused").to_string()
        };
        assert!(refused(&none, json!("s3://lab-results/x")).contains("its own bucket"));
        let some = Destinations {
            buckets: vec!["lab-results".to_owned()],
            default: Some("s3://archive/runs".parse().expect("good")),
        };
        assert_eq!(some.of_parameters(&Map::new()), Ok(some.default.clone()));
        for good in ["s3://lab-results/x", "s3://archive/other"] {
            let destination = some.of_parameters(&asked(json!(good))).expect(good);
            assert_eq!(destination.expect("one").to_string(), good);
        }
        assert!(refused(&some, json!("s3://elsewhere/x")).contains("may go to lab-results"));
        for bad in [json!(3), json!(null), json!("x")] {
            assert!(refused(&some, bad).contains("s3://BUCKET"));
        }
    }

    #[test]
    fn files_are_below_the_run_s_own_prefix() {
        let id = run_id();
        let own = OutputsPlace::new(id, 2, None);
        assert_eq!((own.bucket.clone(), own.key("a/b")), (None, format!("outputs/{id}/2/a/b")));
        let destination = "s3://lab-results/x".parse().expect("good");
        let there = OutputsPlace::new(id, 2, Some(&destination));
        assert_eq!(there.bucket.as_deref(), Some("lab-results"));
        assert_eq!(there.key("a/b"), format!("x/{id}/a/b"));
    }
}
