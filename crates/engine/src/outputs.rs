//! Uploads the engine's output files, some at a time.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _};
use stepwes_core::{destination::OutputsPlace, task::OutputFile};

use crate::{
    bucket::{Bucket, Fault, Uploaded},
    error::Failure,
    tree::Tree,
    upload::AT_ONCE,
};

/// The output directory as it is in S3.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// Size and hash of each file, by its path below the output directory.
    pub(crate) files: BTreeMap<String, Uploaded>,
    /// Folders, of which S3 knows nothing.
    pub(crate) folders: BTreeSet<String>,
}

impl Outputs {
    /// The files as the task's result lists them.
    pub(crate) fn list(&self) -> Vec<OutputFile> {
        self.files
            .iter()
            .map(|(path, file)| OutputFile {
                path: path.clone(),
                size: file.size,
                sha1: file.sha1.clone(),
            })
            .collect()
    }
}

/// What [`upload`] will give, but for sizes and hashes, which are those that take the most room.
pub(crate) fn foresee(tree: &Tree) -> Outputs {
    let file = Uploaded { size: u64::MAX, sha1: "0".repeat(40) };
    Outputs {
        files: tree.files.keys().map(|path| (path.clone(), file.clone())).collect(),
        folders: tree.folders.clone(),
    }
}

/// Uploads every file of the tree.
///
/// # Errors
/// [`Failure::Request`] for a file that cannot be read; otherwise the store's failure.
pub(crate) async fn upload(
    bucket: &Bucket,
    place: &OutputsPlace,
    tree: Tree,
) -> Result<Outputs, Failure> {
    let bucket = &bucket.holding(place);
    let files = futures::stream::iter(tree.files)
        .map(|(path, file)| async move {
            let key = place.key(&path);
            match bucket.upload(&key, &file, None).await {
                Ok(uploaded) => Ok((path, uploaded)),
                Err(Fault::Local(error)) => {
                    Err(Failure::Request(format!("the output {path:?} cannot be read: {error}")))
                }
                Err(fault) => Err(fault.of_service(&format!("uploading the output {path:?}"))),
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(Outputs { files, folders: tree.folders })
}
