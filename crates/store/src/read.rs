//! What is read: one run, an owner's runs, the counts, the unfinished, a run's history.

use std::{cmp::Reverse, collections::BTreeMap};

use aws_sdk_dynamodb::operation::{
    get_item::builders::GetItemFluentBuilder, query::builders::QueryFluentBuilder,
};
use chrono::{DateTime, Utc};
use futures::future::try_join_all;
use stepwes_core::{
    run::{Run, RunId},
    run_state::RunState,
};

use crate::{
    RunStore,
    codec::{
        Item, decode_counts, decode_event, decode_listed, decode_run, decode_run_pk, decode_state,
        instant, key, text,
    },
    error::StoreError,
    model::{ListedRun, RunEventItem, RunPage},
    schema as at,
};

const GET: &str = "GetItem";
const QUERY: &str = "Query";

/// The largest page (WES 1.1 leaves it to the service; the API refuses more).
pub(crate) const MAX_PAGE_SIZE: u32 = 1000;

impl RunStore {
    /// A run as it is (strongly consistent); `None` when there is none with this id.
    ///
    /// # Errors
    /// As DynamoDB fails, or when the item cannot be read.
    pub async fn get(&self, run_id: RunId) -> Result<Option<Run>, StoreError> {
        let item = self.item(at::run_pk(run_id), at::RUN_SK).await?;
        item.as_ref().map(decode_run).transpose()
    }

    /// A run's owner and state (strongly consistent); `None` when there is none with this id. For
    /// those who ask again and again: it carries none of the rest.
    ///
    /// # Errors
    /// As [`RunStore::get`].
    pub async fn state(&self, run_id: RunId) -> Result<Option<(String, RunState)>, StoreError> {
        let answer = self
            .get_item(at::run_pk(run_id), at::RUN_SK)
            .projection_expression("#owner, #state")
            .expression_attribute_names("#owner", at::OWNER)
            .expression_attribute_names("#state", at::STATE)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk(GET, error))?;
        answer.item.as_ref().map(decode_state).transpose()
    }

    /// One page of an owner's runs, newest first ([`RunStore::list_where`] has filters). `page_size` is from 1 to 1000, else the nearest;
    /// `after` is [`RunPage::next`] of the page before, so that runs that arrive meanwhile do not
    /// shift a page. A run shows up within moments of its creation (an index follows its table).
    ///
    /// # Errors
    /// As DynamoDB fails, or when an item cannot be read.
    pub async fn list(
        &self,
        owner: &str,
        page_size: u32,
        after: Option<RunId>,
    ) -> Result<RunPage, StoreError> {
        let page_size = page_size.clamp(1, MAX_PAGE_SIZE) as usize;
        let shards = (0..at::OWNER_SHARDS).map(|shard| {
            let mut query = self
                .query()
                .index_name(at::BY_OWNER)
                .scan_index_forward(false)
                .expression_attribute_names("#owner_shard", at::OWNER_SHARD)
                .expression_attribute_values(":owner_shard", text(at::owner_shard(owner, shard)));
            query = match after {
                None => query.key_condition_expression("#owner_shard = :owner_shard"),
                Some(after) => query
                    .key_condition_expression("#owner_shard = :owner_shard AND #run_id < :after")
                    .expression_attribute_names("#run_id", at::RUN_ID)
                    .expression_attribute_values(":after", text(after.to_string())),
            };
            first(query, page_size + 1)
        });
        let mut runs: Vec<ListedRun> = try_join_all(shards)
            .await?
            .iter()
            .flatten()
            .map(decode_listed)
            .collect::<Result<_, _>>()?;
        runs.sort_unstable_by_key(|run| Reverse(run.run_id));
        let more = runs.len() > page_size;
        runs.truncate(page_size);
        let next = runs.last().filter(|_| more).map(|run| run.run_id);
        Ok(RunPage { runs, next })
    }

    /// How many runs are in each state, exactly (strongly consistent). Every state is named.
    ///
    /// # Errors
    /// As DynamoDB fails, or when an item cannot be read.
    pub async fn counts(&self) -> Result<BTreeMap<RunState, i64>, StoreError> {
        let mut counts: BTreeMap<_, _> =
            RunState::ALL.into_iter().map(|state| (state, 0)).collect();
        for shard in self.partition(at::COUNTS_PK).await? {
            for (state, count) in decode_counts(&shard)? {
                *counts.entry(state).or_default() += count;
            }
        }
        Ok(counts)
    }

    /// At most `limit` runs in `state` whose last change was before `before`, oldest first; none
    /// for a terminal state, nor those that wait for a slot ([`RunStore::waiting`]). They come from an index that follows its table: read each again with
    /// [`RunStore::get`] before acting.
    ///
    /// # Errors
    /// As DynamoDB fails, or when a key cannot be read.
    pub async fn unfinished(
        &self,
        state: RunState,
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<RunId>, StoreError> {
        if state.is_terminal() {
            return Ok(Vec::new());
        }
        self.in_phase(state.as_str().to_owned(), before, limit).await
    }

    /// At most `limit` runs from each partition of those that ended before `before`, the longest
    /// ended first. They come from an index: read each again before acting.
    ///
    /// # Errors
    /// As DynamoDB fails, or when a key cannot be read.
    pub async fn ended(&self, before: DateTime<Utc>, limit: u32) -> Result<Vec<RunId>, StoreError> {
        let shards =
            (0..at::OWNER_SHARDS).map(|shard| self.in_phase(at::ended(shard), before, limit));
        Ok(try_join_all(shards).await?.concat())
    }

    async fn in_phase(
        &self,
        phase: String,
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<RunId>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let query = self
            .query()
            .index_name(at::BY_STATE)
            .key_condition_expression("#phase = :phase AND #updated_at < :before")
            .expression_attribute_names("#phase", at::PHASE)
            .expression_attribute_names("#updated_at", at::UPDATED_AT)
            .expression_attribute_values(":phase", text(phase))
            .expression_attribute_values(":before", text(instant(before)));
        first(query, limit as usize).await?.iter().map(decode_run_pk).collect()
    }

    /// A run's history, oldest first (strongly consistent); empty when there is no such run.
    ///
    /// # Errors
    /// As DynamoDB fails, or when an item cannot be read.
    pub async fn events(&self, run_id: RunId) -> Result<Vec<RunEventItem>, StoreError> {
        let query = self
            .query()
            .consistent_read(true)
            .key_condition_expression("#pk = :pk AND begins_with(#sk, :event)")
            .expression_attribute_names("#pk", at::PK)
            .expression_attribute_names("#sk", at::SK)
            .expression_attribute_values(":pk", text(at::run_pk(run_id)))
            .expression_attribute_values(":event", text(at::EVENT_PREFIX));
        all(query).await?.iter().map(decode_event).collect()
    }

    /// The event that made a run's `version` (strongly consistent); `None` when there is none.
    ///
    /// # Errors
    /// As DynamoDB fails, or when the item cannot be read.
    pub async fn event(
        &self,
        run_id: RunId,
        version: u64,
    ) -> Result<Option<RunEventItem>, StoreError> {
        let item = self.item(at::run_pk(run_id), at::event_sk(version)).await?;
        item.as_ref().map(decode_event).transpose()
    }

    /// One item (strongly consistent).
    pub(crate) async fn item(
        &self,
        pk: String,
        sk: impl Into<String>,
    ) -> Result<Option<Item>, StoreError> {
        let answer =
            self.get_item(pk, sk).send().await.map_err(|error| StoreError::from_sdk(GET, error))?;
        Ok(answer.item)
    }

    /// Every item of a partition (strongly consistent).
    pub(crate) async fn partition(&self, pk: &str) -> Result<Vec<Item>, StoreError> {
        let query = self
            .query()
            .consistent_read(true)
            .key_condition_expression("#pk = :pk")
            .expression_attribute_names("#pk", at::PK)
            .expression_attribute_values(":pk", text(pk));
        all(query).await
    }

    fn get_item(&self, pk: String, sk: impl Into<String>) -> GetItemFluentBuilder {
        self.client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key(pk, sk)))
            .consistent_read(true)
    }

    pub(crate) fn query(&self) -> QueryFluentBuilder {
        self.client.query().table_name(&self.table)
    }
}

/// The first `limit` items. DynamoDB ends an answer at 1 MB, so that it may take several.
async fn first(query: QueryFluentBuilder, limit: usize) -> Result<Vec<Item>, StoreError> {
    let mut items = Vec::new();
    let mut from = None;
    loop {
        let wanted = i32::try_from(limit - items.len()).unwrap_or(i32::MAX);
        let answer = query
            .clone()
            .limit(wanted)
            .set_exclusive_start_key(from)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk(QUERY, error))?;
        items.extend(answer.items.unwrap_or_default());
        from = answer.last_evaluated_key;
        if from.is_none() || items.len() >= limit {
            return Ok(items);
        }
    }
}

/// Every item.
async fn all(query: QueryFluentBuilder) -> Result<Vec<Item>, StoreError> {
    let mut pages = query.into_paginator().items().send();
    let mut items = Vec::new();
    while let Some(item) = pages.next().await {
        items.push(item.map_err(|error| StoreError::from_sdk(QUERY, error))?);
    }
    Ok(items)
}
