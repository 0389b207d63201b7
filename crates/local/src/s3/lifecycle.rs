//! What a bucket's lifecycle rules remove
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lifecycle-mgmt.html>): objects by
//! their age, and multipart uploads that nobody completes.

use super::S3Endpoint;
use super::error::StoreResult;
use super::landing::walk;
use super::names::prefix_folders;
use super::store::Store;
use std::time::{Duration, SystemTime};

/// How many objects a sweep removes by one rule; the next one goes on.
const MOST_REMOVED: usize = 1000;

/// A rule: objects below a prefix expire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiration {
    /// The bucket's name.
    pub bucket: String,
    /// What their keys begin with, down to a slash.
    pub prefix: String,
    /// How long after they were written. S3 waits for the next midnight besides.
    pub after: Duration,
}

impl S3Endpoint {
    /// Removes what has expired by these rules at `now`, and multipart uploads that nobody went on
    /// with for seven days. What cannot be removed is logged, and tried again by the next sweep.
    pub async fn sweep(&self, rules: &[Expiration], now: SystemTime) {
        let (store, uploads, rules) = (self.store.clone(), self.uploads.clone(), rules.to_vec());
        let swept = tokio::task::spawn_blocking(move || {
            let mut failed = uploads.sweep(now).err();
            for rule in &rules {
                failed = expire(&store, rule, now).err().or(failed);
            }
            failed
        })
        .await;
        let error: Box<dyn std::error::Error> = match swept {
            Ok(None) => return,
            Ok(Some(error)) => error.into(),
            Err(panicked) => panicked.into(),
        };
        tracing::warn!(error = &*error, "what has expired was not wholly removed");
    }
}

fn expire(store: &Store, rule: &Expiration, now: SystemTime) -> StoreResult<()> {
    let Some(before) = now.checked_sub(rule.after) else { return Ok(()) };
    let start = (rule.prefix.clone(), prefix_folders(&rule.prefix));
    let mut removed = 0;
    for present in walk(store, &rule.bucket, start, &[])? {
        if removed == MOST_REMOVED {
            break;
        }
        if store.expire(&rule.bucket, &present.key, before)? {
            removed += 1;
        }
    }
    if removed > 0 {
        tracing::info!(removed, bucket = rule.bucket, prefix = rule.prefix, "objects have expired");
    }
    Ok(())
}
