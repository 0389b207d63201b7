//! Requests that were staged for runs that were never made, as a server leaves them that is killed
//! in between. In AWS the bucket's lifecycle rule for `requests/` removes such.

use std::{
    fs,
    path::{Path, PathBuf},
};

use chrono::{DateTime, TimeDelta, Utc};
use stepwes_cloud::{Aws, objects::Objects};
use stepwes_core::{RunId, keys};
use uuid::Uuid;

use crate::{arn, credentials::write_private};

/// Holds when they were last looked for.
const FILE: &str = "strays-removed";
/// By how much ids may be older than the time at which they were made, as clocks are set.
const MARGIN: TimeDelta = TimeDelta::hours(1);

/// What may be strays.
pub(crate) struct Suspects {
    /// The runs that requests were staged for since strays were last looked for.
    runs: Vec<RunId>,
    at: DateTime<Utc>,
}

impl Suspects {
    /// Lists them in the server's folder `dir`. Before any request is answered: what is being
    /// staged then is none.
    pub(crate) fn list(dir: &Path, at: DateTime<Utc>) -> Self {
        let last = fs::read_to_string(dir.join(FILE)).ok();
        let last = last.and_then(|text| text.parse::<DateTime<Utc>>().ok());
        let since = last.map_or(i64::MIN, |last| (last - MARGIN).timestamp());
        let staged = dir.join("s3").join(arn::BUCKET).join("requests");
        let names = fs::read_dir(staged).into_iter().flatten().flatten();
        let ids = names.filter_map(|name| name.file_name().to_str()?.parse::<Uuid>().ok());
        let is_new = |id: &Uuid| {
            let seconds = id.get_timestamp().map(|time| time.to_unix().0);
            seconds.and_then(|seconds| i64::try_from(seconds).ok()).is_some_and(|at| at >= since)
        };
        Self { runs: ids.filter(is_new).map(RunId::from_uuid).collect(), at }
    }

    /// Removes those of no run. What cannot be looked at or removed is logged, and tried again by
    /// the next server.
    pub(crate) async fn remove(self, dir: PathBuf, aws: Aws) {
        let store = aws.store(arn::TABLE);
        let objects = Objects::new(aws.s3(), arn::BUCKET);
        for run in self.runs {
            let failed = match store.state(run).await {
                Ok(Some(_)) => continue,
                Ok(None) => match objects.delete_prefix(&keys::request_prefix(run)).await {
                    Ok(_) => continue,
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            tracing::warn!(%run, error = failed, "a request of no run stays for now");
            return;
        }
        let at = self.at.to_rfc3339();
        if let Err(error) = write_private(&dir.join(FILE), at.as_bytes()) {
            tracing::warn!(%error, "that strays were removed is not recorded");
        }
    }
}
