//! Binding an attempt to the one task that may speak for it.

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use stepwes_core::{run::RunId, task::RefusedReason, token::AttemptToken};

use crate::{
    RunStore,
    codec::{decode_run, key, number, text},
    error::StoreError,
    model::Claim,
    rules::{ClaimDecision, Free, decide_claim},
    schema as at,
    write::Tries,
};

const UPDATE: &str = "UpdateItem";

impl RunStore {
    /// Binds an attempt to the first task that shows its token; that task may claim it again. The
    /// state and version stay as they are.
    ///
    /// The tokens of earlier attempts are not kept, so an earlier attempt is
    /// [`RefusedReason::Over`] whatever the token.
    ///
    /// # Errors
    /// As DynamoDB fails, or when the item cannot be read.
    pub async fn claim(
        &self,
        run_id: RunId,
        attempt: u32,
        token: &AttemptToken,
        task_arn: &str,
    ) -> Result<Claim, StoreError> {
        let mut read = self.get(run_id).await?;
        let mut tries = Tries::of(UPDATE);
        loop {
            let Some(run) = read else {
                return Ok(Claim::Refused(RefusedReason::Unknown));
            };
            let free = match decide_claim(&run, attempt, token, task_arn) {
                ClaimDecision::Refuse(reason) => return Ok(Claim::Refused(reason)),
                ClaimDecision::Bound => return Ok(Claim::Claimed(run)),
                ClaimDecision::Bind(free) => free,
            };
            let [initializing, running] = Free::STATES;
            let sent = self
                .client
                .update_item()
                .table_name(&self.table)
                .set_key(Some(key(at::run_pk(run_id), at::RUN_SK)))
                .update_expression("SET #task_arn = :task_arn")
                .condition_expression(
                    "#attempt = :attempt AND #state IN (:initializing, :running) \
                     AND (attribute_not_exists(#task_arn) OR #task_arn = :task_arn)",
                )
                .expression_attribute_names("#task_arn", at::TASK_ARN)
                .expression_attribute_names("#attempt", at::ATTEMPT)
                .expression_attribute_names("#state", at::STATE)
                .expression_attribute_values(":task_arn", text(&free.task_arn))
                .expression_attribute_values(":attempt", number(free.attempt))
                .expression_attribute_values(":initializing", text(initializing.as_str()))
                .expression_attribute_values(":running", text(running.as_str()))
                .return_values(ReturnValue::AllNew)
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                )
                .send()
                .await;
            let error = match sent {
                Ok(answer) => {
                    let item = answer.attributes.unwrap_or_default();
                    return Ok(Claim::Claimed(decode_run(&item)?));
                }
                Err(error) => error,
            };
            match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    tries.lost()?;
                    read = match failed.item() {
                        Some(item) => Some(decode_run(item)?),
                        None => self.get(run_id).await?,
                    };
                }
                Some(UpdateItemError::TransactionConflictException(_)) => {
                    tries.contended().await?;
                    read = self.get(run_id).await?;
                }
                _ => {
                    // An unanswered claim may have been heard; made again, it is the same claim.
                    tries.failed(StoreError::from_sdk(UPDATE, error)).await?;
                    read = self.get(run_id).await?;
                }
            }
        }
    }
}
