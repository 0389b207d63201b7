//! What the operator decides about submissions.

use chrono::TimeDelta;
use stepwes_cloud::{
    env::{self, SettingError},
    http::Callers,
};
use stepwes_core::{destination::Destinations, engines::Engines, resources::ResourceBounds};

/// The settings of submit.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The run table's name (`STEPWES_TABLE`).
    pub table: String,
    /// The runs bucket's name (`STEPWES_BUCKET`).
    pub bucket: String,
    /// The state machine that runs are started in (`STEPWES_STATE_MACHINE_ARN`).
    pub state_machine_arn: String,
    /// The engines that there are (`STEPWES_ENGINES`, JSON).
    pub engines: Engines,
    /// The schemes that an absolute `workflow_url` may have (`STEPWES_SCHEMES`, comma-separated).
    pub schemes: Vec<String>,
    /// What a run may ask for ([`env::resources`]).
    pub resources: ResourceBounds,
    /// Where outputs may go ([`env::destinations`]).
    pub destinations: Destinations,
    /// How large a request may be.
    pub limits: Limits,
    /// How long an idempotency key counts (`STEPWES_IDEMPOTENCY_DAYS`).
    pub idempotency: TimeDelta,
    /// How many runs may be at work at once; further ones wait ([`env::max_runs`]).
    pub max_runs: Option<u32>,
    /// How callers are known ([`Callers::from_env`]).
    pub callers: Callers,
    /// The buckets whose new objects may start runs (`STEPWES_TRIGGER_BUCKETS`, comma-separated).
    pub trigger_buckets: Vec<String>,
}

/// How large a request may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All attachments and fields together, in bytes (`STEPWES_MAX_REQUEST_BYTES`). They are held
    /// in memory until the request is known to be good.
    pub max_request_bytes: u64,
    /// The text fields together, or the JSON body, in bytes: they come back in every
    /// `GET /runs/{id}`, which has to fit a Lambda's answer.
    pub max_field_bytes: u64,
    /// The number of attachments.
    pub max_attachments: usize,
    /// The number of tags. They are kept in the run's item, as is the URL.
    pub max_tags: usize,
    /// The tags' names and values together, in bytes.
    pub max_tag_bytes: usize,
    /// `workflow_url`, in bytes.
    pub max_url_bytes: usize,
}

impl Limits {
    /// 4.5 MB of attachments: a Lambda is handed 6 MiB at most, and Base64 makes four bytes of
    /// three.
    pub const LAMBDA_REQUEST_BYTES: u64 = 4_500_000;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_request_bytes: Self::LAMBDA_REQUEST_BYTES,
            max_field_bytes: 1024 * 1024,
            max_attachments: 1000,
            max_tags: 50,
            max_tag_bytes: 16 * 1024,
            max_url_bytes: 8 * 1024,
        }
    }
}

impl Settings {
    /// The schemes that a `workflow_url` may have unless the operator says otherwise.
    pub const SCHEMES: [&str; 3] = ["http", "https", "s3"];

    /// How long an idempotency key counts unless the operator says otherwise, in days.
    pub const IDEMPOTENCY_DAYS: u32 = 7;

    /// From the environment variables named at the fields.
    ///
    /// # Errors
    /// [`SettingError`] naming the variable that is missing or cannot be read.
    pub fn from_env() -> Result<Self, SettingError> {
        let mut schemes = env::list("STEPWES_SCHEMES");
        if schemes.is_empty() {
            schemes = Self::SCHEMES.map(str::to_owned).to_vec();
        }
        let days = env::parsed("STEPWES_IDEMPOTENCY_DAYS", Self::IDEMPOTENCY_DAYS)?;
        Ok(Self {
            table: env::required("STEPWES_TABLE")?,
            bucket: env::required("STEPWES_BUCKET")?,
            state_machine_arn: env::required("STEPWES_STATE_MACHINE_ARN")?,
            engines: env::json("STEPWES_ENGINES")?,
            schemes,
            resources: env::resources()?,
            destinations: env::destinations()?,
            limits: Limits {
                max_request_bytes: env::parsed(
                    "STEPWES_MAX_REQUEST_BYTES",
                    Limits::LAMBDA_REQUEST_BYTES,
                )?,
                ..Limits::default()
            },
            idempotency: TimeDelta::days(days.into()),
            max_runs: env::max_runs()?,
            callers: Callers::from_env()?,
            trigger_buckets: env::list("STEPWES_TRIGGER_BUCKETS"),
        })
    }
}
