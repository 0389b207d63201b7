//! The run table in DynamoDB: one conditional transaction a state change.

pub mod error;
pub mod filter;
pub mod limits;
pub mod model;
pub mod rules;
pub mod schema;

mod claim;
mod codec;
mod create;
mod list;
mod queue;
mod read;
mod remove;
mod seed;
mod table;
mod tokens;
mod told;
mod transition;
mod write;

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use stepwes_core::Clock;

pub use error::StoreError;
pub use filter::RunFilter;
pub use model::{
    Change, Claim, Created, Holder, Idempotency, IdempotentRun, ListedRun, NewRun, RunEventItem,
    RunPage, StoredToken, Transition,
};
pub use queue::Admission;
pub use told::log_state_change;

/// The run table. Cheap to clone: the clones share their client.
#[derive(Clone)]
pub struct RunStore {
    client: Client,
    table: String,
    clock: Arc<dyn Clock>,
}

impl RunStore {
    /// The table named `table` at whatever `client` speaks to. Times come from `clock` and are
    /// kept in milliseconds.
    pub fn new(client: Client, table: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        Self { client, table: table.into(), clock }
    }
}
