//! The limit on how many runs are at work: which of them wait, and who has one of the slots.
//!
//! A run that is enqueued where there is a limit waits ([`Place::Waiting`]) until a slot is given to
//! it ([`Place::Slot`]); only then is its execution started. A slot is an item of its own, with the
//! run that has it. Both are written in one transaction, and the slot is freed in the very
//! transaction in which the run ends: however a function dies, no slot is lost and none is given
//! twice. Nothing looks at a run that waits, and it costs nothing while it does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
    codec::{Item, decode_run, decode_run_pk, decode_slot, key, place_text, text},
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

/// One look at the runs that wait, which gives them a slot each, one after the other.
pub struct Admission<'a> {
    store: &'a RunStore,
    limit: Option<u32>,
    newest: Option<RunId>,
    /// Those that were given a slot, or wait no longer: the index may show them for a moment.
    seen: BTreeSet<RunId>,
    /// Who waits, and which slots are free, as of the last reading.
    waiting: VecDeque<RunId>,
    free: VecDeque<u32>,
    tries: Tries,
}

impl Admission<'_> {
    /// The next run that has been given a slot, whose execution is to be started now, before the next
    /// one is given: whoever dies in between leaves one run for reconcile to start. `None` when no
    /// more wait, or no slot is free.
    ///
    /// # Errors
    /// As DynamoDB fails, or when an item cannot be read.
    pub async fn next(&mut self) -> Result<Option<RunId>, StoreError> {
        loop {
            while let Some(run_id) = self.waiting.pop_front() {
                let slot = self.free.front().copied();
                if self.limit.is_some() && slot.is_none() {
                    break;
                }
                match self.store.give(run_id, slot).await? {
                    Given::Yes => {
                        self.free.pop_front();
                        self.seen.insert(run_id);
                        self.tries = Tries::of(TRANSACT);
                        return Ok(Some(run_id));
                    }
                    Given::NotWaiting => {
                        self.seen.insert(run_id);
                    }
                    Given::SlotTaken => {
                        // Somebody else gives them away: what is free is to be seen again.
                        self.tries.lost()?;
                        break;
                    }
                }
            }
            if !self.look().await? {
                return Ok(None);
            }
        }
    }

    /// Reads which slots are free and who waits; gives whether there is anything to give.
    async fn look(&mut self) -> Result<bool, StoreError> {
        if let Some(limit) = self.limit {
            let held = self.store.slots().await?;
            let room = (limit as usize).saturating_sub(held.len());
            self.free = (0..limit).filter(|slot| !held.contains_key(slot)).take(room).collect();
            if self.free.is_empty() {
                return Ok(false);
            }
        }
        let mut after = None;
        loop {
            let (mut runs, next) = self.store.waiting_after(after, READ).await?;
            after = next;
            if after.is_none() {
                // Behind all others.
                runs.extend(self.newest.filter(|newest| !runs.contains(newest)));
            }
            runs.retain(|run_id| !self.seen.contains(run_id));
            self.waiting = runs.into();
            if !self.waiting.is_empty() || after.is_none() {
                return Ok(!self.waiting.is_empty());
            }
        }
    }
}

impl RunStore {
    /// Gives the runs that wait a slot each, in the order in which they were enqueued, until `limit`
    /// runs have one (`None`: they all may start). `newest` has just been enqueued, and may not be in
    /// the index yet.
    #[must_use]
    pub fn admission(&self, limit: Option<u32>, newest: Option<RunId>) -> Admission<'_> {
        Admission {
            store: self,
            limit,
            newest,
            seen: BTreeSet::new(),
            waiting: VecDeque::new(),
            free: VecDeque::new(),
            tries: Tries::of(TRANSACT),
        }
    }

    /// The runs that wait, at most `limit`, in the order in which they were enqueued. They come from
    /// an index that follows its table.
    ///
    /// # Errors
    /// As DynamoDB fails, or when a key cannot be read.
    pub async fn waiting(&self, limit: usize) -> Result<Vec<RunId>, StoreError> {
        Ok(self.waiting_after(None, limit).await?.0)
    }

    /// A page of them behind a key of the index, and the key of its last when there may be more.
    async fn waiting_after(
        &self,
        after: Option<Item>,
        limit: usize,
    ) -> Result<(Vec<RunId>, Option<Item>), StoreError> {
        let answer = self
            .query()
            .index_name(at::BY_STATE)
            .key_condition_expression("#phase = :phase")
            .expression_attribute_names("#phase", at::PHASE)
            .expression_attribute_values(":phase", text(at::WAITING))
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .set_exclusive_start_key(after)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk(QUERY, error))?;
        let runs: Result<_, _> =
            answer.items.unwrap_or_default().iter().map(decode_run_pk).collect();
        Ok((runs?, answer.last_evaluated_key))
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
