//! Removing a run that has ended, for good.

use aws_sdk_dynamodb::types::{Delete, TransactWriteItem};
use stepwes_core::run::Run;

use crate::{
    RunStore,
    codec::{key, number},
    error::StoreError,
    schema as at,
    write::{Cancelled, Outcome, TRANSACT, Tries},
};

/// The most items of one transaction
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>).
const MOST_ITEMS: usize = 100;

impl RunStore {
    /// Removes an ended run and its history, and takes it out of the counts, in one transaction.
    /// `false` when there is no such run any more. Its idempotency key ends by its own time.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] for a run that has not ended, or that has more history than one
    /// transaction removes; else as DynamoDB fails. After a retryable error it may be gone.
    pub async fn remove(&self, run: &Run) -> Result<bool, StoreError> {
        self.removable(run)?;
        let mut tries = Tries::of(TRANSACT);
        loop {
            let mut items = vec![self.delete_run(run)?, self.count(Some(run.state), None)?];
            for version in 1..=run.version {
                items.push(self.delete(at::event_sk(version), run)?);
            }
            match self.transact(items).await {
                Ok(Outcome::Done) => return Ok(true),
                // A terminal state never changes: what is not as it was read is gone.
                Ok(Outcome::Refused(_)) => return Ok(false),
                Ok(Outcome::Contended) => tries.contended().await?,
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    /// Whether [`RunStore::remove`] would take the run.
    ///
    /// # Errors
    /// [`StoreError::Rejected`], as it would say.
    pub fn removable(&self, run: &Run) -> Result<(), StoreError> {
        let refused = |why: &str| StoreError::Rejected {
            operation: TRANSACT,
            source: Cancelled(format!("run {}: {why}", run.run_id)).into(),
        };
        if !run.state.is_terminal() {
            return Err(refused("it has not ended"));
        }
        let events = usize::try_from(run.version).unwrap_or(usize::MAX);
        if events > MOST_ITEMS - 2 {
            return Err(refused("its history is too long to be removed at once"));
        }
        Ok(())
    }

    fn delete_run(&self, run: &Run) -> Result<TransactWriteItem, StoreError> {
        let delete = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(key(at::run_pk(run.run_id), at::RUN_SK)))
            .condition_expression("#version = :version")
            .expression_attribute_names("#version", at::VERSION)
            .expression_attribute_values(":version", number(run.version))
            .build()
            .map_err(StoreError::from_build(TRANSACT))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    fn delete(&self, sk: String, run: &Run) -> Result<TransactWriteItem, StoreError> {
        let delete = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(key(at::run_pk(run.run_id), sk)))
            .build()
            .map_err(StoreError::from_build(TRANSACT))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }
}
