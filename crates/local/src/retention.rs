//! What goes where runs are not kept for ever, beside the runs that reconcile removes with their
//! files: in AWS, by the rules of the bucket.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use stepwes_cloud::{
    Aws,
    objects::{ObjectError, Objects},
};
use stepwes_core::{RunId, keys};
use stepwes_store::{RunStore, StoreError};
use thiserror::Error;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::{arn, s3::Expiration};

/// How many runs a look at old files asks the table for.
const ASKED_FOR: usize = 1000;

/// How long things are kept.
pub(crate) struct Retention {
    days: u32,
    /// The folder of the runs bucket.
    bucket: PathBuf,
    store: RunStore,
    objects: Objects,
    /// Where the next look goes on.
    after: Mutex<RunId>,
}

#[derive(Debug, Error)]
enum LeftoverError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

impl Retention {
    /// For the server's folder `dir`.
    pub(crate) fn new(days: u32, dir: &Path, aws: &Aws) -> Self {
        Self {
            days,
            bucket: dir.join("s3").join(arn::BUCKET),
            store: aws.store(arn::TABLE),
            objects: Objects::new(aws.s3(), arn::BUCKET),
            after: Mutex::new(RunId::MIN),
        }
    }

    /// The rules of the runs bucket. There is none for the files of runs: how old those are says
    /// nothing about whether the run has ended, as the server may have been away for months.
    pub(crate) fn rules(&self) -> Vec<Expiration> {
        vec![Expiration {
            bucket: arn::BUCKET.to_owned(),
            prefix: keys::REJECTED.to_owned(),
            after: Duration::from_secs(u64::from(self.days) * 24 * 3600),
        }]
    }

    /// Removes files of runs that are not in the table, if their ids are older than runs are kept.
    /// An engine that was told to stop may have written such while its run was removed.
    pub(crate) async fn remove_leftovers(&self, now: DateTime<Utc>) {
        let before = now - TimeDelta::days(i64::from(self.days));
        let bucket = self.bucket.clone();
        let Ok(found) = spawn_blocking(move || made_before(&bucket, before)).await else { return };
        let after = *self.after.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turn: Vec<_> = found.into_iter().filter(|run| *run > after).collect();
        let is_last = turn.len() <= ASKED_FOR;
        turn.truncate(ASKED_FOR);
        let reached = turn.last().copied().filter(|_| !is_last).unwrap_or(RunId::MIN);
        for run in turn {
            if let Err(error) = self.remove_if_unknown(run).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(run_id = %run, error, "files of a run that was removed stay for now");
            }
        }
        *self.after.lock().unwrap_or_else(PoisonError::into_inner) = reached;
    }

    async fn remove_if_unknown(&self, run: RunId) -> Result<(), LeftoverError> {
        if self.store.state(run).await?.is_some() {
            return Ok(());
        }
        for prefix in keys::of_run(run) {
            self.objects.delete_all(&prefix).await?;
        }
        tracing::info!(run_id = %run, "removed files of a run that was removed");
        Ok(())
    }
}

/// The runs made before then that have files in the bucket's folder, the oldest first.
fn made_before(bucket: &Path, before: DateTime<Utc>) -> BTreeSet<RunId> {
    let prefixes = keys::of_run(RunId::MIN);
    let classes = prefixes.iter().filter_map(|prefix| prefix.split('/').next());
    let names = classes
        .filter_map(|class| fs::read_dir(bucket.join(class)).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.file_name()));
    names
        .filter_map(|name| name.to_str()?.parse::<Uuid>().ok())
        .map(RunId::from_uuid)
        .filter(|run| run.created_at().is_some_and(|at| at < before))
        .collect()
}
