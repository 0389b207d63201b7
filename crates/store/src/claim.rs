//! Binding an attempt to the one task that may speak for it.

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use stepwes_core::{
    run::{Run, RunId},
    run_state::RunState,
    task::RefusedReason,
    token::AttemptToken,
};

use crate::{
    RunStore,
    codec::{decode_run, key, number, text},
    error::StoreError,
    model::Claim,
    schema as at,
    write::Tries,
};

const UPDATE: &str = "UpdateItem";

/// What a claim comes to, by the run as it was read.
enum Decision {
    /// The attempt is free.
    Bind,
    /// The attempt is this task's already.
    Bound,
    /// It cannot be had.
    Refuse(RefusedReason),
}

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
            match decide(&run, attempt, token, task_arn) {
                Decision::Refuse(reason) => return Ok(Claim::Refused(reason)),
                Decision::Bound => return Ok(Claim::Claimed(run)),
                Decision::Bind => {}
            }
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
                .expression_attribute_values(":task_arn", text(task_arn))
                .expression_attribute_values(":attempt", number(attempt))
                .expression_attribute_values(":initializing", text(RunState::Initializing.as_str()))
                .expression_attribute_values(":running", text(RunState::Running.as_str()))
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

/// Whether a task may have an attempt. That the token is wrong is found out before anything else
/// is said, and in constant time ([`AttemptToken`]'s `eq`).
fn decide(run: &Run, attempt: u32, token: &AttemptToken, task_arn: &str) -> Decision {
    if attempt == 0 || attempt > run.attempt {
        return Decision::Refuse(RefusedReason::Unknown);
    }
    if attempt < run.attempt {
        return Decision::Refuse(RefusedReason::Over);
    }
    if run.token.as_ref() != Some(token) {
        return Decision::Refuse(RefusedReason::Unknown);
    }
    match run.state {
        RunState::Initializing | RunState::Running => match run.task_arn.as_deref() {
            None => Decision::Bind,
            Some(bound) if bound == task_arn => Decision::Bound,
            Some(_) => Decision::Refuse(RefusedReason::Twin),
        },
        // Who holds the attempt has logs to upload when it is stopped.
        RunState::Canceling if run.task_arn.as_deref() == Some(task_arn) => Decision::Bound,
        RunState::Canceling | RunState::Canceled => Decision::Refuse(RefusedReason::Canceling),
        RunState::Complete
        | RunState::ExecutorError
        | RunState::SystemError
        | RunState::Preempted => Decision::Refuse(RefusedReason::Over),
        RunState::Queued => Decision::Refuse(RefusedReason::Unknown),
    }
}
