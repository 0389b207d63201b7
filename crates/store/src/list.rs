//! Lists of an owner's runs that a filter holds of.
//!
//! What a page costs has a bound, whatever the filter and however many runs there are:
//!
//! - times of creation are ranges of ids, and so of the index's keys: nothing outside is read;
//! - states that are not terminal have partitions of their own in the index of states. A partition
//!   that is small is read whole, and what it names is fetched. One that is large is not: its runs
//!   are no rarity among an owner's newest;
//! - for everything else one query looks at a bounded number of runs of each of the owner's
//!   partitions. The page then ends where they were looked at, with fewer runs than asked for or
//!   none, and its token goes on from there.

use std::cmp::Reverse;

use futures::future::try_join_all;
use stepwes_core::{run::RunId, run_state::RunState};

use crate::{
    RunStore,
    codec::{Item, decode_listed, decode_listed_run, decode_run_pk, key, text},
    error::StoreError,
    filter::{Ids, RunFilter},
    model::{ListedRun, RunPage},
    read::MAX_PAGE_SIZE,
    schema as at,
    write::Tries,
};

const QUERY: &str = "Query";
const BATCH_GET: &str = "BatchGetItem";

/// How many runs that have not ended are looked up one by one for a page.
const FEW: usize = 1000;
/// How many of each of an owner's partitions are looked at for a page, if it is not larger itself.
const LOOKED_AT: usize = 250;
/// The most items of one BatchGetItem
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>).
const MOST_KEYS: usize = 100;

impl RunStore {
    /// One page of an owner's runs that `filter` holds of, newest first. As [`RunStore::list`], but
    /// a page may have fewer runs than asked for, or none, before the end: what it looks at has a
    /// bound. `after` is [`RunPage::next`] of the page before, under the same filter.
    ///
    /// # Errors
    /// As DynamoDB fails, or when an item cannot be read.
    pub async fn list_where(
        &self,
        owner: &str,
        filter: &RunFilter,
        page_size: u32,
        after: Option<RunId>,
    ) -> Result<RunPage, StoreError> {
        let page_size = page_size.clamp(1, MAX_PAGE_SIZE) as usize;
        let Some(ids) = filter.ids(after) else { return Ok(RunPage::default()) };
        if let Some(states) = filter.unfinished()
            && let Some(few) = self.few(&states, ids).await?
        {
            let found = self.fetched(owner, filter, &few, page_size + 1).await?;
            return Ok(page(found, page_size, None));
        }
        let (looked_at, until) = self.looked_at(owner, ids, page_size).await?;
        let listed = looked_at.into_iter().filter(|run| filter.holds_of_listed(run));
        let found = if filter.looks_at_request() {
            let listed: Vec<_> = listed.map(|run| run.run_id).collect();
            self.fetched(owner, filter, &listed, page_size + 1).await?
        } else {
            listed.collect()
        };
        Ok(page(found, page_size, until))
    }

    /// The runs in these states, of all owners, newest first; `None` when they are many.
    async fn few(&self, states: &[RunState], ids: Ids) -> Result<Option<Vec<RunId>>, StoreError> {
        let limit = i32::try_from(FEW + 1).unwrap_or(i32::MAX);
        let waiting = states.contains(&RunState::Queued).then_some(at::WAITING);
        let phases = states.iter().map(|state| state.as_str()).chain(waiting).map(|phase| {
            self.query()
                .index_name(at::BY_STATE)
                .key_condition_expression("#phase = :phase")
                .expression_attribute_names("#phase", at::PHASE)
                .expression_attribute_values(":phase", text(phase))
                .scan_index_forward(false)
                .limit(limit)
                .send()
        });
        let answers =
            try_join_all(phases).await.map_err(|error| StoreError::from_sdk(QUERY, error))?;
        let mut few = Vec::new();
        for answer in answers {
            // A thousand keys are far from the 1 MB at which an answer ends.
            if answer.last_evaluated_key.is_some() {
                return Ok(None);
            }
            for item in answer.items.unwrap_or_default() {
                few.push(decode_run_pk(&item)?);
            }
        }
        if few.len() > FEW {
            return Ok(None);
        }
        few.retain(|run_id| ids.contains(*run_id));
        few.sort_unstable_by_key(|run_id| Reverse(*run_id));
        // A run that is changing state may be in two partitions for a moment.
        few.dedup();
        Ok(Some(few))
    }

    /// The runs of an owner that a page looks at, newest first, and, where there are more, down to
    /// which it has looked.
    async fn looked_at(
        &self,
        owner: &str,
        ids: Ids,
        page_size: usize,
    ) -> Result<(Vec<ListedRun>, Option<RunId>), StoreError> {
        let limit = i32::try_from(LOOKED_AT.max(page_size + 1)).unwrap_or(i32::MAX);
        let shards = (0..at::OWNER_SHARDS).map(|shard| {
            self.query()
                .index_name(at::BY_OWNER)
                .key_condition_expression(
                    "#owner_shard = :owner_shard AND #run_id BETWEEN :first AND :last",
                )
                .expression_attribute_names("#owner_shard", at::OWNER_SHARD)
                .expression_attribute_names("#run_id", at::RUN_ID)
                .expression_attribute_values(":owner_shard", text(at::owner_shard(owner, shard)))
                .expression_attribute_values(":first", text(ids.first.to_string()))
                .expression_attribute_values(":last", text(ids.last.to_string()))
                .scan_index_forward(false)
                .limit(limit)
                .send()
        });
        let answers =
            try_join_all(shards).await.map_err(|error| StoreError::from_sdk(QUERY, error))?;
        let mut runs = Vec::new();
        let mut until = None;
        for answer in answers {
            if let Some(last) = &answer.last_evaluated_key {
                until = until.max(Some(decode_run_pk(last)?));
            }
            for item in answer.items.unwrap_or_default() {
                runs.push(decode_listed(&item)?);
            }
        }
        // Below it, not every partition has been looked at.
        runs.retain(|run| until.is_none_or(|until| run.run_id >= until));
        runs.sort_unstable_by_key(|run| Reverse(run.run_id));
        Ok((runs, until))
    }

    /// The first `limit` of these runs that are `owner`'s and that `filter` holds of.
    async fn fetched(
        &self,
        owner: &str,
        filter: &RunFilter,
        run_ids: &[RunId],
        limit: usize,
    ) -> Result<Vec<ListedRun>, StoreError> {
        let mut found = Vec::new();
        for some in run_ids.chunks(MOST_KEYS) {
            let mut runs = Vec::new();
            for item in self.batch(some).await? {
                let (of, run, request) = decode_listed_run(&item)?;
                if of == owner && filter.holds_of_listed(&run) && filter.holds_of_request(&request)
                {
                    runs.push(run);
                }
            }
            runs.sort_unstable_by_key(|run| Reverse(run.run_id));
            found.extend(runs);
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// What lists show of these runs, at most [`MOST_KEYS`], and what filters look at; those that
    /// are gone are left out.
    async fn batch(&self, run_ids: &[RunId]) -> Result<Vec<Item>, StoreError> {
        use aws_sdk_dynamodb::types::KeysAndAttributes;
        const READ: [&str; 8] = [
            at::RUN_ID,
            at::OWNER,
            at::STATE,
            at::START_TIME,
            at::END_TIME,
            at::TAGS,
            at::WORKFLOW_TYPE,
            at::WORKFLOW_ENGINE,
        ];
        let mut keys: Vec<_> =
            run_ids.iter().map(|run_id| key(at::run_pk(*run_id), at::RUN_SK)).collect();
        let mut items = Vec::new();
        let mut tries = Tries::of(BATCH_GET);
        while !keys.is_empty() {
            let projection: Vec<_> = READ.iter().map(|name| format!("#{name}")).collect();
            let names = READ.iter().map(|name| (format!("#{name}"), (*name).to_owned())).collect();
            let wanted = KeysAndAttributes::builder()
                .set_keys(Some(keys))
                .projection_expression(projection.join(", "))
                .set_expression_attribute_names(Some(names))
                .build()
                .map_err(StoreError::from_build(BATCH_GET))?;
            let answer = self
                .client
                .batch_get_item()
                .request_items(&self.table, wanted)
                .send()
                .await
                .map_err(|error| StoreError::from_sdk(BATCH_GET, error))?;
            items.extend(
                answer.responses.unwrap_or_default().remove(&self.table).unwrap_or_default(),
            );
            // What did not fit the answer, or was throttled.
            let left = answer.unprocessed_keys.unwrap_or_default().remove(&self.table);
            keys = left.map(|left| left.keys).unwrap_or_default();
            if !keys.is_empty() {
                tries.contended().await?;
            }
        }
        Ok(items)
    }
}

/// A page of what was found, of which there may be one more than fits; `until` is where looking
/// ended.
fn page(mut found: Vec<ListedRun>, page_size: usize, until: Option<RunId>) -> RunPage {
    let more = found.len() > page_size;
    found.truncate(page_size);
    let next = if more { found.last().map(|run| run.run_id) } else { until };
    RunPage { runs: found, next }
}
