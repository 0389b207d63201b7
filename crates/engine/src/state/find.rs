//! Which saved state an attempt goes on from.

use std::path::Path;

use stepwes_core::{
    engines, keys,
    request::StoredRequest,
    saved::{MAX_MANIFEST_BYTES, Manifest},
};
use tracing::{info, warn};

use crate::{
    bucket::{Bucket, Fault},
    config::Config,
    error::Failure,
};

/// A state to go on from.
#[derive(Debug)]
pub(crate) struct Before {
    /// What there is.
    pub(crate) manifest: Manifest,
    /// Whether the run was made to go on from it: then nothing else will do. What an earlier attempt
    /// of the same run has saved is done without when it cannot be had.
    pub(crate) is_asked_for: bool,
}

/// Looks for what an earlier attempt of the run has saved, the latest first, else for what the run
/// was made to go on from.
///
/// # Errors
/// [`Failure::Request`] when the latter is not there any more, or cannot be used here; else as the
/// store fails.
pub(crate) async fn find(
    bucket: &Bucket,
    config: &Config,
    request: &StoredRequest,
) -> Result<Option<Before>, Failure> {
    if !engines::resumes(&request.engine, &request.request.workflow_type) {
        return Ok(None);
    }
    // It may be made only now; what cannot be made is told when it is worked in.
    let here =
        std::fs::create_dir_all(&config.work_dir).and_then(|()| config.work_dir.canonicalize());
    let here = here.ok();
    let usable = |manifest: &Manifest| {
        manifest.engine == request.engine && Path::new(&manifest.root).parent() == here.as_deref()
    };
    for attempt in (1..config.attempt).rev() {
        let key = keys::state_manifest(config.run_id, attempt);
        match read(bucket, &key).await? {
            Some(manifest) if usable(&manifest) => {
                info!("going on from what attempt {attempt} has saved");
                return Ok(Some(Before { manifest, is_asked_for: false }));
            }
            Some(manifest) => {
                warn!("what attempt {attempt} has saved belongs to {}", manifest.root);
            }
            None => {}
        }
    }
    let Some(from) = request.resumed_from else { return Ok(None) };
    let run = from.run_id;
    match read(bucket, &keys::state_manifest(run, from.attempt)).await? {
        Some(manifest) if usable(&manifest) => {
            info!("going on from what run {run} has saved");
            Ok(Some(Before { manifest, is_asked_for: true }))
        }
        Some(manifest) => Err(Failure::Request(format!(
            "what run {run} has saved can only be used in the folder {}, and this task works in {}; submit the run again",
            Path::new(&manifest.root).parent().unwrap_or(Path::new("/")).display(),
            config.work_dir.display()
        ))),
        None => Err(Failure::Request(format!(
            "what run {run} had saved has been removed; submit the run again"
        ))),
    }
}

/// Reads a manifest; none when there is none that can be read. S3 answers 403 for what is not
/// there, since the task's right to list is one to list below prefixes.
async fn read(bucket: &Bucket, key: &str) -> Result<Option<Manifest>, Failure> {
    let body = match bucket.get(key).await {
        Ok(body) => body,
        Err(Fault::Missing(_)) => return Ok(None),
        Err(Fault::Refused(why)) => {
            info!("no saved state at {key}: {why}");
            return Ok(None);
        }
        Err(fault) => return Err(fault.of_service("looking for saved state")),
    };
    if body.len() as u64 > MAX_MANIFEST_BYTES {
        warn!("{key} is larger than {MAX_MANIFEST_BYTES} bytes");
        return Ok(None);
    }
    match serde_json::from_slice(&body) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) => {
            warn!("{key} cannot be read: {error}");
            Ok(None)
        }
    }
}
