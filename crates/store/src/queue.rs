//! The limit on how many runs are at work: which of them wait, and who has one of the slots.
//!
//! A run that is enqueued where there is a limit waits ([`Place::Waiting`]) until a slot is given to
//! it ([`Place::Slot`]); only then is its execution started. A slot is an item of its own, with the
//! run that has it. Both are written in one transaction, and the slot is freed in the very
//! transaction in which the run ends: however a function dies, no slot is lost and none is given
//! twice. Nothing looks at a run that waits, and it costs nothing while it does.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update},
};
use stepwes_core::{
    run::{Place, RunId},
    run_state::RunState,
};

use crate::{
    RunStore,
    codec::{decode_run, decode_run_pk, decode_slot, key, place_text, text},
    error::StoreError,
    schema as at,
    write::{Outcome, Refused, TRANSACT, Tries},
};

const QUERY: &str = "Query";
const UPDATE: &str = "UpdateItem";

/// How many that wait are read at once.
const READ: usize = 50;

/// What became of giving a run a slot.
enum Given {
    Yes,
    /// The run waits no longer.
    NotWaiting,
    /// Another run has the slot.
    SlotTaken,
}

impl RunStore {
    /// Gives the runs that wait a slot each, in the order in which they were enqueued, until `limit`
    /// runs have one (`None`: they all may start). Gives those whose executions are to be started
    /// now. `newest` has just been enqueued, and may not be in the index yet.
    ///
    /// # Errors
    /// As DynamoDB fails, or when an item cannot be read; not when it has given some of them a slot
    /// before.
    pub async fn admit(
        &self,
        limit: Option<u32>,
        newest: Option<RunId>,
    ) -> Result<Vec<RunId>, StoreError> {
        let mut admitted = Vec::new();
        match self.admit_into(limit, newest, &mut admitted).await {
            Err(error) if !admitted.is_empty() => {
                tracing::warn!(%error, "not every waiting run was given its slot; the next look does it");
            }
            done => done?,
        }
        Ok(admitted)
    }

    async fn admit_into(
        &self,
        limit: Option<u32>,
        newest: Option<RunId>,
        admitted: &mut Vec<RunId>,
    ) -> Result<(), StoreError> {
        let mut seen = BTreeSet::new();
        let mut tries = Tries::of(TRANSACT);
        loop {
            let slots = match limit {
                None => None,
                Some(limit) => {
                    let held = self.slots().await?;
                    let room = (limit as usize).saturating_sub(held.len());
                    if room == 0 {
                        return Ok(());
                    }
                    let free = (0..limit).filter(|slot| !held.contains_key(slot)).take(room);
                    Some(free.collect::<Vec<_>>())
                }
            };
            // The index may show those that were just given a slot for a moment.
            let mut waiting = self.waiting(READ + seen.len()).await?;
            waiting.extend(newest.filter(|newest| !waiting.contains(newest)));
            waiting.retain(|run_id| !seen.contains(run_id));
            if waiting.is_empty() {
                return Ok(());
            }
            let mut slots = slots.map(Vec::into_iter);
            for run_id in waiting {
                let slot = match &mut slots {
                    None => None,
                    Some(free) => match free.next() {
                        None => break,
                        slot => slot,
                    },
                };
                match self.give(run_id, slot).await? {
                    Given::Yes => admitted.push(run_id),
                    Given::NotWaiting => {}
                    Given::SlotTaken => {
                        // Somebody else gives them away: what is free is to be seen again.
                        tries.lost()?;
                        break;
                    }
                }
                seen.insert(run_id);
            }
        }
    }

    /// The runs that wait, at most `limit`, in the order in which they were enqueued. They come from
    /// an index that follows its table.
    ///
    /// # Errors
    /// As DynamoDB fails, or when a key cannot be read.
    pub async fn waiting(&self, limit: usize) -> Result<Vec<RunId>, StoreError> {
        let answer = self
            .query()
            .index_name(at::BY_STATE)
            .key_condition_expression("#phase = :phase")
            .expression_attribute_names("#phase", at::PHASE)
            .expression_attribute_values(":phase", text(at::WAITING))
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .send()
            .await
            .map_err(|error| StoreError::from_sdk(QUERY, error))?;
        answer.items.unwrap_or_default().iter().map(decode_run_pk).collect()
    }

    /// The slots that are taken, and by whom (strongly consistent).
    ///
    /// # Errors
    /// As DynamoDB fails, or when an item cannot be read.
    pub async fn slots(&self) -> Result<BTreeMap<u32, RunId>, StoreError> {
        let items = self.partition(at::SLOTS_PK).await?;
        let slots = items.iter().filter_map(|item| decode_slot(item).transpose());
        slots.collect()
    }

    /// Frees the slots of runs that do not have them: of a table that was written to by hand, or put
    /// together from two backups. Gives the runs.
    ///
    /// # Errors
    /// As DynamoDB fails, or when an item cannot be read.
    pub async fn free_lost_slots(&self) -> Result<Vec<RunId>, StoreError> {
        let mut freed = Vec::new();
        for (slot, run_id) in self.slots().await? {
            let run = self.get(run_id).await?;
            if run.is_some_and(|run| run.place == Some(Place::Slot(slot))) {
                continue;
            }
            let sent = self
                .client
                .update_item()
                .table_name(&self.table)
                .set_key(Some(key(at::SLOTS_PK, at::slot_sk(slot))))
                .update_expression("REMOVE #run_id")
                .condition_expression("#run_id = :run_id")
                .expression_attribute_names("#run_id", at::RUN_ID)
                .expression_attribute_values(":run_id", text(run_id.to_string()))
                .send()
                .await;
            match sent {
                Ok(_) => freed.push(run_id),
                Err(error)
                    if matches!(
                        error.as_service_error(),
                        Some(UpdateItemError::ConditionalCheckFailedException(_))
                    ) => {}
                Err(error) => return Err(StoreError::from_sdk(UPDATE, error)),
            }
        }
        Ok(freed)
    }

    async fn give(&self, run_id: RunId, slot: Option<u32>) -> Result<Given, StoreError> {
        let mut tries = Tries::of(TRANSACT);
        let mut unanswered = false;
        loop {
            let mut items = vec![self.end_wait(run_id, slot)?];
            if let Some(slot) = slot {
                items.push(self.take_slot(run_id, slot)?);
            }
            match self.transact(items).await {
                Ok(Outcome::Done) => return Ok(Given::Yes),
                Ok(Outcome::Refused(refused)) => {
                    let Some(Refused { condition: true, .. }) = refused.first() else {
                        return Ok(Given::SlotTaken);
                    };
                    // The try that was not answered may have been heard.
                    let heard = unanswered && self.has(run_id, slot, &refused).await?;
                    return Ok(if heard { Given::Yes } else { Given::NotWaiting });
                }
                Ok(Outcome::Contended) => tries.contended().await?,
                Err(error) => {
                    tries.failed(error).await?;
                    unanswered = true;
                }
            }
        }
    }

    /// Whether the run is as it would be had it been given the slot.
    async fn has(
        &self,
        run_id: RunId,
        slot: Option<u32>,
        refused: &[Refused],
    ) -> Result<bool, StoreError> {
        let item = self.winner(refused.first(), at::run_pk(run_id), at::RUN_SK).await?;
        let run = item.as_ref().map(decode_run).transpose()?;
        let place = slot.map(Place::Slot);
        Ok(run.is_some_and(|run| run.state == RunState::Queued && run.place == place))
    }

    /// That a run that waits does so no longer: the condition is [`crate::rules::waits`].
    fn end_wait(&self, run_id: RunId, slot: Option<u32>) -> Result<TransactWriteItem, StoreError> {
        let phase = at::phase(run_id, RunState::Queued, slot.map(Place::Slot));
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key(at::run_pk(run_id), at::RUN_SK)))
            .condition_expression("#place = :waiting")
            .expression_attribute_names("#place", at::PLACE)
            .expression_attribute_names("#phase", at::PHASE)
            .expression_attribute_values(":waiting", text(place_text(Place::Waiting)))
            .expression_attribute_values(":phase", text(phase))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let update = match slot {
            Some(slot) => update
                .update_expression("SET #place = :place, #phase = :phase")
                .expression_attribute_values(":place", text(place_text(Place::Slot(slot)))),
            None => update.update_expression("SET #phase = :phase REMOVE #place"),
        };
        let update = update.build().map_err(StoreError::from_build(TRANSACT))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    fn take_slot(&self, run_id: RunId, slot: u32) -> Result<TransactWriteItem, StoreError> {
        let update = self
            .slot(slot)
            .update_expression("SET #run_id = :run_id")
            .condition_expression("attribute_not_exists(#run_id)")
            .expression_attribute_values(":run_id", text(run_id.to_string()))
            .build()
            .map_err(StoreError::from_build(TRANSACT))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Frees the slot of a run that ends, without a condition: nothing may keep a run from ending.
    pub(crate) fn free_slot(&self, slot: u32) -> Result<TransactWriteItem, StoreError> {
        let update = self.slot(slot).update_expression("REMOVE #run_id");
        let update = update.build().map_err(StoreError::from_build(TRANSACT))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    fn slot(&self, slot: u32) -> aws_sdk_dynamodb::types::builders::UpdateBuilder {
        Update::builder()
            .table_name(&self.table)
            .set_key(Some(key(at::SLOTS_PK, at::slot_sk(slot))))
            .expression_attribute_names("#run_id", at::RUN_ID)
    }
}
