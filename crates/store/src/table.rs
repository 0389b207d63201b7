//! The table itself: what the deployment template declares in AWS, and what a local service and
//! the tests make for themselves.

use std::time::Duration;

use aws_sdk_dynamodb::{
    error::{BuildError, ProvideErrorMetadata as _},
    types::{
        AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType,
        Projection, ProjectionType, ScalarAttributeType, TableDescription, TableStatus,
        TimeToLiveSpecification, TimeToLiveStatus,
    },
};

use crate::{RunStore, error::StoreError, schema as at};

const CREATE: &str = "CreateTable";
const DESCRIBE: &str = "DescribeTable";
const DESCRIBE_TTL: &str = "DescribeTimeToLive";
const UPDATE_TTL: &str = "UpdateTimeToLive";

/// How long a new table may take to become active, and how often we look.
const ACTIVE_WITHIN: u32 = 120;
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl RunStore {
    /// Makes the table: on-demand billing, its two indexes, TTL on [`at::EXPIRES_AT`]. One that
    /// is there already is checked and left as it is. For the embedded AWS and tests; in AWS the
    /// deployment template does it.
    ///
    /// # Errors
    /// [`StoreError::OtherTable`] when there is a table of this name with other keys or indexes;
    /// else as DynamoDB fails.
    pub async fn create_table(&self) -> Result<(), StoreError> {
        let indexes = [by_owner(), by_state()]
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(StoreError::from_build(CREATE))?;
        let attributes = [at::PK, at::SK, at::OWNER_SHARD, at::RUN_ID, at::PHASE, at::UPDATED_AT]
            .into_iter()
            .map(|name| {
                AttributeDefinition::builder()
                    .attribute_name(name)
                    .attribute_type(ScalarAttributeType::S)
                    .build()
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(StoreError::from_build(CREATE))?;
        let created = self
            .client
            .create_table()
            .table_name(&self.table)
            .billing_mode(BillingMode::PayPerRequest)
            .set_key_schema(Some(keys(at::PK, at::SK).map_err(StoreError::from_build(CREATE))?))
            .set_attribute_definitions(Some(attributes))
            .set_global_secondary_indexes(Some(indexes))
            .send()
            .await;
        if let Err(error) = created
            && error.code() != Some("ResourceInUseException")
        {
            return Err(StoreError::from_sdk(CREATE, error));
        }
        self.check_layout(&self.active().await?)?;
        self.set_ttl().await
    }

    /// Waits until the table can be used.
    async fn active(&self) -> Result<TableDescription, StoreError> {
        for _ in 0..ACTIVE_WITHIN {
            let described = self
                .client
                .describe_table()
                .table_name(&self.table)
                .send()
                .await
                .map_err(|error| StoreError::from_sdk(DESCRIBE, error))?;
            if let Some(table) = described.table
                && table.table_status == Some(TableStatus::Active)
            {
                return Ok(table);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(StoreError::Unavailable {
            operation: DESCRIBE,
            source: "the table does not become active".into(),
        })
    }

    fn check_layout(&self, table: &TableDescription) -> Result<(), StoreError> {
        let other = |problem| StoreError::OtherTable { table: self.table.clone(), problem };
        let wanted = |pair: [&str; 2]| pair.map(str::to_owned).to_vec();
        let names = |keys: &[KeySchemaElement]| -> Vec<String> {
            keys.iter().map(|key| key.attribute_name().to_owned()).collect()
        };
        let found = names(table.key_schema());
        if found != wanted([at::PK, at::SK]) {
            return Err(other(format!("its keys are {found:?}")));
        }
        for (index, keys) in [
            (at::BY_OWNER, [at::OWNER_SHARD, at::RUN_ID]),
            (at::BY_STATE, [at::PHASE, at::UPDATED_AT]),
        ] {
            let found = table
                .global_secondary_indexes()
                .iter()
                .find(|found| found.index_name() == Some(index))
                .ok_or_else(|| other(format!("it has no index {index}")))?;
            let found = names(found.key_schema());
            if found != wanted(keys) {
                return Err(other(format!("the keys of its index {index} are {found:?}")));
            }
        }
        Ok(())
    }

    async fn set_ttl(&self) -> Result<(), StoreError> {
        let described = self
            .client
            .describe_time_to_live()
            .table_name(&self.table)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk(DESCRIBE_TTL, error))?;
        let status = described.time_to_live_description.and_then(|ttl| ttl.time_to_live_status);
        if let Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) = status {
            return Ok(());
        }
        let ttl = TimeToLiveSpecification::builder()
            .enabled(true)
            .attribute_name(at::EXPIRES_AT)
            .build()
            .map_err(StoreError::from_build(UPDATE_TTL))?;
        self.client
            .update_time_to_live()
            .table_name(&self.table)
            .time_to_live_specification(ttl)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk(UPDATE_TTL, error))?;
        Ok(())
    }
}

fn by_owner() -> Result<GlobalSecondaryIndex, BuildError> {
    let projection = Projection::builder()
        .projection_type(ProjectionType::Include)
        .set_non_key_attributes(Some(at::LISTED.map(str::to_owned).to_vec()))
        .build();
    GlobalSecondaryIndex::builder()
        .index_name(at::BY_OWNER)
        .set_key_schema(Some(keys(at::OWNER_SHARD, at::RUN_ID)?))
        .projection(projection)
        .build()
}

fn by_state() -> Result<GlobalSecondaryIndex, BuildError> {
    GlobalSecondaryIndex::builder()
        .index_name(at::BY_STATE)
        .set_key_schema(Some(keys(at::PHASE, at::UPDATED_AT)?))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .build()
}

fn keys(partition: &str, sort: &str) -> Result<Vec<KeySchemaElement>, BuildError> {
    [(partition, KeyType::Hash), (sort, KeyType::Range)]
        .into_iter()
        .map(|(name, kind)| KeySchemaElement::builder().attribute_name(name).key_type(kind).build())
        .collect()
}
