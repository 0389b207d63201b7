//! Enqueuing a run, exactly once.

use aws_sdk_dynamodb::types::{Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use chrono::SubsecRound as _;
use stepwes_core::run::{Place, Run};
use uuid::Uuid;

use crate::{
    RunStore,
    codec::{Item, decode_idempotent, decode_run, encode_event, encode_run, key, number, text},
    error::StoreError,
    model::{Created, Idempotency, IdempotentRun, NewRun},
    rules, schema as at,
    told::log_state_change,
    write::{Cancelled, Outcome, Refused, TRANSACT, Tries},
};

/// Where the run item is in the transaction.
const RUN: usize = 0;
/// Where the idempotency item is in the transaction, when there is one.
const IDEMPOTENCY: usize = 3;

impl RunStore {
    /// Enqueues a run: the run item, its first event, the counts and the idempotency item in one
    /// transaction, or none of them.
    ///
    /// # Errors
    /// [`StoreError::RunIdTaken`] when the id belongs to another request; else as DynamoDB fails.
    pub async fn create(&self, new: NewRun) -> Result<Created, StoreError> {
        let change_id = Uuid::new_v4().to_string();
        let mut tries = Tries::of(TRANSACT);
        let mut unanswered = false;
        loop {
            let run = self.queued(&new);
            let mut items = vec![
                self.put_new(encode_run(&run))?,
                self.put_new(encode_event(&run, None, at::ENQUEUE, String::new(), &change_id))?,
                self.count(None, Some(run.state))?,
            ];
            if let Some(idempotency) = &new.idempotency {
                items.push(self.put_idempotency(&new, idempotency, run.created_at.timestamp())?);
            }
            match self.transact(items).await {
                Ok(Outcome::Done) => {
                    log_state_change(&run, None, at::ENQUEUE, "");
                    return Ok(Created::New(run));
                }
                Ok(Outcome::Refused(refused)) => {
                    let created = self.existing(&new, &refused, unanswered).await?;
                    if let Created::New(_) = &created {
                        log_state_change(&run, None, at::ENQUEUE, "");
                    }
                    return Ok(created);
                }
                Ok(Outcome::Contended) => tries.contended().await?,
                Err(error) => {
                    tries.failed(error).await?;
                    unanswered = true;
                }
            }
        }
    }

    /// What an owner's idempotency key was used for; `None` when it is free, or free again.
    ///
    /// # Errors
    /// As DynamoDB fails, or when the item cannot be read.
    pub async fn idempotent(
        &self,
        owner: &str,
        key: &str,
    ) -> Result<Option<IdempotentRun>, StoreError> {
        let Some(item) = self.item(at::idempotency_pk(owner, key), at::IDEMPOTENCY_SK).await?
        else {
            return Ok(None);
        };
        let (run, expires_at) = decode_idempotent(&item)?;
        // DynamoDB removes expired items within days, not at once.
        let now = self.clock.now().timestamp();
        Ok((!rules::key_is_free(Some(expires_at), now)).then_some(run))
    }

    pub(crate) fn queued(&self, new: &NewRun) -> Run {
        let now = self.clock.now().trunc_subsecs(3);
        Run {
            place: new.waits.then_some(Place::Waiting),
            summary: new.summary.clone(),
            resources: new.resources,
            destination: new.destination.clone(),
            trace: new.trace,
            ..Run::queued(new.run_id, new.owner.clone(), now)
        }
    }

    fn put_idempotency(
        &self,
        new: &NewRun,
        idempotency: &Idempotency,
        now: i64,
    ) -> Result<TransactWriteItem, StoreError> {
        let mut item: Item =
            key(at::idempotency_pk(&new.owner, &idempotency.key), at::IDEMPOTENCY_SK);
        item.extend([
            (at::RUN_ID.to_owned(), text(new.run_id.to_string())),
            (at::OWNER.to_owned(), text(&new.owner)),
            (at::IDEMPOTENCY_KEY.to_owned(), text(&idempotency.key)),
            (at::FINGERPRINT.to_owned(), text(&idempotency.fingerprint)),
            (at::EXPIRES_AT.to_owned(), number(idempotency.expires_at.timestamp())),
        ]);
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(#pk) OR #expires_at <= :now")
            .expression_attribute_names("#pk", at::PK)
            .expression_attribute_names("#expires_at", at::EXPIRES_AT)
            .expression_attribute_values(":now", number(now))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(StoreError::from_build(TRANSACT))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// What was there before, when a run could not be created. `unanswered` says that an earlier
    /// try of the same call may have been the one that created it.
    async fn existing(
        &self,
        new: &NewRun,
        refused: &[Refused],
        unanswered: bool,
    ) -> Result<Created, StoreError> {
        let run = self
            .winner(refused.get(RUN), at::run_pk(new.run_id), at::RUN_SK)
            .await?
            .map(|item| decode_run(&item))
            .transpose()?;
        let used = match &new.idempotency {
            None => None,
            Some(idempotency) => {
                let pk = at::idempotency_pk(&new.owner, &idempotency.key);
                let item = self.winner(refused.get(IDEMPOTENCY), pk, at::IDEMPOTENCY_SK).await?;
                item.as_ref().map(decode_idempotent).transpose()?
            }
        };
        let used = used.as_ref().map(|(used, _)| used);
        rules::existing(new, run, used, unanswered)?.ok_or_else(|| StoreError::Rejected {
            operation: TRANSACT,
            source: Cancelled("what was in the way is gone".to_owned()).into(),
        })
    }
}
