//! Filling a table with runs that have ended, for measuring how the store does with many.

use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};
use stepwes_core::{run_state::RunEvent, token::AttemptToken};
use uuid::Uuid;

use crate::{
    RunStore,
    codec::{Item, encode_event, encode_run, key, number},
    error::StoreError,
    model::{Change, NewRun},
    rules::{Decision, decide},
    schema as at,
    write::{Cancelled, Tries},
};

const BATCH_WRITE: &str = "BatchWriteItem";
const UPDATE: &str = "UpdateItem";

/// The most items of one BatchWriteItem
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html>).
const MOST_ITEMS: usize = 25;

impl RunStore {
    /// Writes new runs as they are after `events`, with their history and counts: the items that
    /// [`RunStore::create`] and [`RunStore::transition`] would have written, many at a time and
    /// without conditions. For benchmarks and tests, on a table that nobody else writes to; a run's
    /// idempotency key is not kept.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when the state table does not allow the events; else as DynamoDB
    /// fails, and then some of the runs may be there.
    pub async fn seed(&self, new: &[NewRun], events: &[RunEvent]) -> Result<(), StoreError> {
        let mut items = Vec::with_capacity(new.len() * (events.len() + 2));
        let mut ended = None;
        for new in new {
            let mut run = self.queued(new);
            let change_id = Uuid::new_v4().to_string();
            items.push(encode_event(&run, None, at::ENQUEUE, String::new(), &change_id));
            for event in events {
                let token =
                    || AttemptToken::generate().map_err(|e| StoreError::Randomness(e.into()));
                let decided = decide(&run, *event, &Change::default(), self.clock.now(), token)?;
                let Decision::Write(change) = decided else {
                    let why = format!("a run in state {} does not take {event:?}", run.state);
                    return Err(StoreError::Rejected {
                        operation: BATCH_WRITE,
                        source: Cancelled(why).into(),
                    });
                };
                let (from, name) = (run.state, event.kind().as_str());
                run = change.run;
                items.push(encode_event(&run, Some(from), name, String::new(), &change_id));
            }
            ended = Some(run.state);
            items.push(encode_run(&run));
        }
        for some in items.chunks(MOST_ITEMS) {
            self.put_all(some.to_vec()).await?;
        }
        let Some(state) = ended else { return Ok(()) };
        self.client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(at::COUNTS_PK, at::counts_sk(0))))
            .update_expression("ADD #state :more")
            .expression_attribute_names("#state", state.as_str())
            .expression_attribute_values(":more", number(new.len()))
            .send()
            .await
            .map_err(|error| StoreError::from_sdk(UPDATE, error))?;
        Ok(())
    }

    async fn put_all(&self, items: Vec<Item>) -> Result<(), StoreError> {
        let mut tries = Tries::of(BATCH_WRITE);
        let mut writes = items
            .into_iter()
            .map(|item| {
                let put = PutRequest::builder().set_item(Some(item)).build()?;
                Ok(WriteRequest::builder().put_request(put).build())
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(StoreError::from_build(BATCH_WRITE))?;
        loop {
            let answer = self
                .client
                .batch_write_item()
                .request_items(&self.table, writes)
                .send()
                .await
                .map_err(|error| StoreError::from_sdk(BATCH_WRITE, error))?;
            writes = answer
                .unprocessed_items
                .unwrap_or_default()
                .remove(&self.table)
                .unwrap_or_default();
            if writes.is_empty() {
                return Ok(());
            }
            tries.contended().await?;
        }
    }
}
