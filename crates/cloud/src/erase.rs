//! Removes a run that has ended, with everything that was kept of it.

use stepwes_core::{keys, run::Run};
use stepwes_store::{RunStore, StoreError};
use thiserror::Error;

use crate::{
    objects::{ObjectError, Objects},
    step::StepFailure,
};

/// Why a run is not, or not wholly, gone: the same call removes the rest.
#[derive(Debug, Error)]
pub enum EraseError {
    /// The runs bucket.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// The run table.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<EraseError> for StepFailure {
    fn from(error: EraseError) -> Self {
        match error {
            EraseError::Objects(error) => error.into(),
            EraseError::Store(error) => error.into(),
        }
    }
}

/// Removes the files of an ended run, then its item with its history. The item goes last: as long
/// as it is there the run is known, so that whoever was cut off here can begin again. `false` when
/// somebody else has removed it meanwhile.
///
/// # Errors
/// [`EraseError`]; for a run that has not ended, before anything is removed.
pub async fn erase(store: &RunStore, objects: &Objects, run: &Run) -> Result<bool, EraseError> {
    store.removable(run)?;
    for prefix in keys::of_run(run.run_id) {
        objects.delete_all(&prefix).await?;
    }
    Ok(store.remove(run).await?)
}
