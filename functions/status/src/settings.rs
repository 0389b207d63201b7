//! What the operator decides about reads.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use stepwes_cloud::{
    env::{self, SettingError},
    http::Callers,
    objects::MAX_EXPIRY,
};
use stepwes_core::{engines::Engines, resources::ResourceBounds, wes::Organization};

/// The settings of status.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The run table's name (`STEPWES_TABLE`).
    pub table: String,
    /// The runs bucket's name (`STEPWES_BUCKET`).
    pub bucket: String,
    /// The engines that there are (`STEPWES_ENGINES`, JSON).
    pub engines: Engines,
    /// The URL schemes that the service reads (`STEPWES_SCHEMES`, comma-separated).
    pub schemes: Vec<String>,
    /// What a run may ask for ([`env::resources`]).
    pub resources: ResourceBounds,
    /// What service-info says of the operator (`STEPWES_SERVICE`, JSON).
    pub service: ServiceSettings,
    /// What absolute URLs of the API begin with (`STEPWES_PUBLIC_URL`); the request tells when it
    /// is not set.
    pub public_url: Option<String>,
    /// The S3 endpoint in presigned URLs (`STEPWES_PRESIGN_URL`), when callers reach S3 by another
    /// than we do.
    pub presign_url: Option<String>,
    /// How callers are known ([`Callers::from_env`]).
    pub callers: Callers,
    /// How much one answer holds.
    pub limits: Limits,
    /// How long a presigned URL lives; at most [`MAX_EXPIRY`].
    pub presign_expiry: Duration,
}

/// How much one answer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The runs, tasks or files of a page unless the caller says otherwise.
    pub default_page_size: u32,
    /// The most that a caller may ask for.
    pub max_page_size: u32,
    /// The piece of a log that one answer holds, in bytes. A Lambda answers 6 MiB at most, Base64
    /// makes four bytes of three, and headers want room too.
    pub max_log_bytes: u64,
    /// The JSON of one page, in bytes: a page ends early rather than grow over it. API Gateway
    /// takes JSON as a string in JSON, which nearly doubles what has many quotes.
    pub max_page_bytes: usize,
    /// The outputs object within a RunLog, in bytes; a larger one is replaced by a pointer.
    pub max_outputs_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            default_page_size: 100,
            max_page_size: 1000,
            max_log_bytes: 4 * 1024 * 1024,
            max_page_bytes: 2 * 1024 * 1024,
            max_outputs_bytes: 1_000_000,
        }
    }
}

/// What service-info says of the operator: the GA4GH fields that we cannot know.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSettings {
    /// The service's id, in reverse domain name notation.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Who provides it.
    pub organization: Organization,
    /// Whom to ask.
    #[serde(rename = "contactUrl")]
    pub contact_url: Option<String>,
    /// Where its documentation is.
    #[serde(rename = "documentationUrl")]
    pub documentation_url: Option<String>,
    /// `prod`, `test`, …
    pub environment: Option<String>,
    /// Where to learn how to get credentials.
    pub auth_instructions_url: String,
    /// Whatever else is worth saying.
    pub tags: BTreeMap<String, String>,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        const HOME: &str = env!("CARGO_PKG_REPOSITORY");
        Self {
            id: "io.github.stepwes".to_owned(),
            name: "stepwes".to_owned(),
            description: "A GA4GH Workflow Execution Service".to_owned(),
            organization: Organization { name: "stepwes".to_owned(), url: HOME.to_owned() },
            contact_url: None,
            documentation_url: Some(HOME.to_owned()),
            environment: None,
            auth_instructions_url: HOME.to_owned(),
            tags: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// The settings that have no sensible default, and the defaults of the rest.
    #[must_use]
    pub fn new(table: String, bucket: String, engines: Engines) -> Self {
        Self {
            table,
            bucket,
            engines,
            schemes: ["http", "https", "s3"].map(str::to_owned).to_vec(),
            resources: ResourceBounds::default(),
            service: ServiceSettings::default(),
            public_url: None,
            presign_url: None,
            callers: Callers::anonymous(),
            limits: Limits::default(),
            presign_expiry: MAX_EXPIRY,
        }
    }

    /// From the environment variables named at the fields.
    ///
    /// # Errors
    /// [`SettingError`] naming the variable that is missing or cannot be read.
    pub fn from_env() -> Result<Self, SettingError> {
        let mut settings = Self::new(
            env::required("STEPWES_TABLE")?,
            env::required("STEPWES_BUCKET")?,
            env::json("STEPWES_ENGINES")?,
        );
        let schemes = env::list("STEPWES_SCHEMES");
        if !schemes.is_empty() {
            settings.schemes = schemes;
        }
        if env::optional("STEPWES_SERVICE").is_some() {
            settings.service = env::json("STEPWES_SERVICE")?;
        }
        settings.resources = env::resources()?;
        settings.callers = Callers::from_env()?;
        settings.public_url = env::optional("STEPWES_PUBLIC_URL");
        settings.presign_url = env::optional("STEPWES_PRESIGN_URL");
        Ok(settings)
    }
}
