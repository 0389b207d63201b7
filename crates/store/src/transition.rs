//! The one way in which a run's state changes.

use aws_sdk_dynamodb::types::{ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update};
use stepwes_core::{
    run::{Place, Run, RunId},
    run_state::RunEvent,
    token::AttemptToken,
};
use uuid::Uuid;

use crate::{
    RunStore,
    codec::{decode_run, encode_event, encode_run, key, number, place_text, text},
    error::StoreError,
    limits::{MAX_TEXT_BYTES, cut},
    model::{Change, Transition},
    rules::{Decision, Unchanged, decide},
    schema as at,
    told::log_state_change,
    write::{Cancelled, Difference, Outcome, TRANSACT, Tries},
};

impl RunStore {
    /// Tells a run of an event. When the state table allows it, the run, its event item and the
    /// counts change in one transaction, on the condition that the run is as it was read; when
    /// somebody else was faster, the event is held against what they made of the run.
    ///
    /// A new attempt gets a new token in the same write, and forgets what the lost one left but
    /// `system_logs`. The event that begins an attempt can be repeated: the answer has the same
    /// token as long as the attempt lives.
    ///
    /// # Errors
    /// As DynamoDB fails, or when the item cannot be read. After a retryable error the event may
    /// have had its effect: the same call again answers [`Transition::Repeated`] then.
    pub async fn transition(
        &self,
        run_id: RunId,
        event: RunEvent,
        change: Change,
    ) -> Result<Transition, StoreError> {
        let Some(mut run) = self.get(run_id).await? else {
            return Ok(Transition::NotFound);
        };
        let change_id = Uuid::new_v4().to_string();
        let mut tries = Tries::of(TRANSACT);
        // What an unanswered try of ours would have made of which run.
        let mut unanswered: Option<(Run, Run)> = None;
        let name = event.kind().as_str();
        let cause = cut(change.cause.clone(), MAX_TEXT_BYTES);
        loop {
            let token = || AttemptToken::generate().map_err(|e| StoreError::Randomness(e.into()));
            let planned = match decide(&run, event, &change, self.clock.now(), token)? {
                Decision::Write(planned) => planned,
                decided => {
                    if let Some((before, made)) = &unanswered
                        && self.wrote(run_id, made.version, &change_id).await?
                    {
                        log_state_change(made, Some(before), name, &cause);
                        return Ok(Transition::Moved(run));
                    }
                    return Ok(match decided {
                        Decision::Refused(refusal) => Transition::Refused { run, refusal },
                        _ => Transition::Repeated(run),
                    });
                }
            };
            let moved = planned.run;
            let mut items = vec![
                self.update_run(&run, &moved, planned.condition)?,
                self.put_new(encode_event(
                    &moved,
                    Some(run.state),
                    name,
                    cause.clone(),
                    &change_id,
                ))?,
            ];
            if let Some((from, to)) = planned.counts {
                items.push(self.count(Some(from), Some(to))?);
            }
            if let (Some(Place::Slot(slot)), None) = (run.place, moved.place) {
                items.push(self.free_slot(slot)?);
            }
            match self.transact(items).await {
                Ok(Outcome::Done) => {
                    log_state_change(&moved, Some(&run), name, &cause);
                    return Ok(Transition::Moved(moved));
                }
                Ok(Outcome::Refused(refused)) => {
                    tries.lost()?;
                    let refused = refused.first();
                    if !refused.is_some_and(|refused| refused.condition) {
                        return Err(history_is_ahead(&moved));
                    }
                    match self.winner(refused, at::run_pk(run_id), at::RUN_SK).await? {
                        Some(item) => run = decode_run(&item)?,
                        None => return Ok(Transition::NotFound),
                    }
                }
                Ok(Outcome::Contended) => tries.contended().await?,
                Err(error) => {
                    tries.failed(error).await?;
                    let read = self.get(run_id).await?;
                    match read {
                        Some(read) => unanswered = Some((std::mem::replace(&mut run, read), moved)),
                        None => return Ok(Transition::NotFound),
                    }
                }
            }
        }
    }

    /// Whether the call `change_id` wrote the run's `version`.
    async fn wrote(
        &self,
        run_id: RunId,
        version: u64,
        change_id: &str,
    ) -> Result<bool, StoreError> {
        let event = self.item(at::run_pk(run_id), at::event_sk(version)).await?;
        Ok(event.is_some_and(|item| item.get(at::CHANGE_ID) == Some(&text(change_id))))
    }

    /// Writes what differs between `old` and `new`, if the run is still `old`.
    fn update_run(
        &self,
        old: &Run,
        new: &Run,
        unchanged: Unchanged,
    ) -> Result<TransactWriteItem, StoreError> {
        let Difference { expression, mut names, mut values } =
            Difference::between(&encode_run(old), &encode_run(new));
        names.insert("#version".to_owned(), at::VERSION.to_owned());
        names.insert("#task_arn".to_owned(), at::TASK_ARN.to_owned());
        values.insert(":old_version".to_owned(), number(unchanged.version));
        names.insert("#place".to_owned(), at::PLACE.to_owned());
        let mut condition = "#version = :old_version".to_owned();
        for (name, old) in
            [(at::TASK_ARN, unchanged.task_arn), (at::PLACE, unchanged.place.map(place_text))]
        {
            match old {
                Some(old) => {
                    values.insert(format!(":old_{name}"), text(old));
                    condition.push_str(&format!(" AND #{name} = :old_{name}"));
                }
                None => condition.push_str(&format!(" AND attribute_not_exists(#{name})")),
            }
        }
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key(at::run_pk(old.run_id), at::RUN_SK)))
            .update_expression(expression)
            .condition_expression(condition)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(StoreError::from_build(TRANSACT))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

fn history_is_ahead(run: &Run) -> StoreError {
    let what = format!("run {} has an event for version {} already", run.run_id, run.version);
    StoreError::Rejected { operation: TRANSACT, source: Cancelled(what).into() }
}
