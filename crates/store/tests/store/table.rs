//! The table itself, and items that are not as they should be.

use aws_sdk_dynamodb::{
    config::retry::RetryConfig,
    types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
        ScalarAttributeType, TimeToLiveStatus,
    },
};
use stepwes_core::{Clock as _, run_state::RunState};
use stepwes_store::StoreError;

use crate::support::{TABLE, World};

#[tokio::test]
async fn making_the_table_again_keeps_what_is_in_it() {
    let world = World::new().await;
    let run = world.queued().await;
    world.store.create_table().await.expect("nothing to do");
    assert_eq!(world.read(run.run_id).await, run);

    let ttl =
        world.client.describe_time_to_live().table_name(TABLE).send().await.expect("an answer");
    let ttl = ttl.time_to_live_description.expect("described");
    assert_eq!(ttl.time_to_live_status, Some(TimeToLiveStatus::Enabled));
    assert_eq!(ttl.attribute_name.as_deref(), Some("expires_at"));
    let table = world.client.describe_table().table_name(TABLE).send().await.expect("an answer");
    let billing = table.table.and_then(|table| table.billing_mode_summary);
    assert_eq!(billing.and_then(|billing| billing.billing_mode), Some(BillingMode::PayPerRequest));
}

#[tokio::test]
async fn a_table_of_that_name_with_other_keys_is_refused() {
    let world = World::without_table(RetryConfig::disabled()).await;
    let key = KeySchemaElement::builder().attribute_name("PK").key_type(KeyType::Hash).build();
    let attribute = AttributeDefinition::builder()
        .attribute_name("PK")
        .attribute_type(ScalarAttributeType::S)
        .build();
    world
        .client
        .create_table()
        .table_name(TABLE)
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key.expect("complete"))
        .attribute_definitions(attribute.expect("complete"))
        .send()
        .await
        .expect("made");
    let error = world.store.create_table().await.expect_err("another table");
    assert!(matches!(error, StoreError::OtherTable { .. }), "{error:?}");
    assert!(error.to_string().contains(r#"its keys are ["PK"]"#), "{error}");
}

#[tokio::test]
async fn a_missing_table_is_told_and_not_tried_again() {
    let world = World::without_table(RetryConfig::disabled()).await;
    let error = world.store.get(world.id()).await.expect_err("no table");
    assert!(matches!(error, StoreError::Rejected { operation: "GetItem", .. }));
    let source = std::error::Error::source(&error).and_then(std::error::Error::source);
    assert!(source.is_some_and(|cause| format!("{cause:?}").contains("ResourceNotFound")));
}

#[tokio::test]
async fn an_item_that_cannot_be_read_is_told_with_its_field() {
    let world = World::new().await;
    let text = |text: &str| AttributeValue::S(text.into());
    for (field, value, problem) in [
        ("state", text("SLEEPING"), "it is not a state"),
        ("state", AttributeValue::N("1".into()), "it is not a string"),
        ("version", AttributeValue::N("1.5".into()), "invalid digit found in string"),
        ("version", text("1"), "it is not a number"),
        ("updated_at", text("yesterday"), "input contains invalid characters"),
        ("cmd", text("cwltool"), "it is not a list"),
        (
            "system_logs",
            AttributeValue::L(vec![AttributeValue::Bool(true)]),
            "it holds what is not a string",
        ),
        ("has_outputs", text("yes"), "it is not a boolean"),
        ("run_id", text("1"), "not a run id"),
        ("tags", text("[]"), "invalid type: sequence, expected a map at line 1 column 0"),
    ] {
        let run = world.queued().await;
        world.spoil(run.run_id, field, value).await;
        let error = world.store.get(run.run_id).await.expect_err(field);
        assert_eq!(
            error.to_string(),
            format!("item RUN#{}/RUN, field {field}: {problem}", run.run_id)
        );
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn a_missing_field_is_told_by_name_and_no_error_shows_a_token() {
    let world = World::new().await;
    let run = world.initializing().await;
    let token = run.token.expect("a token");
    world
        .client
        .update_item()
        .table_name(TABLE)
        .key("PK", AttributeValue::S(format!("RUN#{}", run.run_id)))
        .key("SK", AttributeValue::S("RUN".into()))
        .update_expression("REMOVE created_at")
        .send()
        .await
        .expect("written");
    let error = world.store.get(run.run_id).await.expect_err("incomplete");
    assert_eq!(
        error.to_string(),
        format!("item RUN#{}/RUN, field created_at: it is missing", run.run_id)
    );
    assert!(!format!("{error:?}").contains(token.secret()));
}

#[tokio::test]
async fn run_items_are_in_the_index_of_the_unfinished_only_until_they_end() {
    let world = World::new().await;
    let run = world.queued().await;
    let item = async || {
        let answer = world
            .client
            .get_item()
            .table_name(TABLE)
            .key("PK", AttributeValue::S(format!("RUN#{}", run.run_id)))
            .key("SK", AttributeValue::S("RUN".into()))
            .send()
            .await
            .expect("an answer");
        answer.item.expect("an item")
    };
    assert_eq!(item().await.get("phase"), Some(&AttributeValue::S("QUEUED".into())));
    world.step(run.run_id, stepwes_core::RunEvent::SystemError { attempt: 0 }).await;
    let phase = item().await.remove("phase");
    assert!(matches!(phase, Some(AttributeValue::S(phase)) if phase.starts_with("ENDED#")));
    let left = world.store.unfinished(RunState::Queued, world.clock.now(), 10).await;
    assert_eq!(left.expect("an answer"), []);
}
