//! Callers' tokens.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use stepwes_core::{
    Clock as _,
    caller_token::{CallerToken, SecretDigest, TokenName},
};
use stepwes_store::{StoreError, StoredToken};

use crate::support::{TABLE, World, wire::Fault};

fn name(text: &str) -> TokenName {
    text.parse().expect("a name")
}

/// A token of `ada`, for an hour.
fn token(world: &World, name: &str) -> (CallerToken, StoredToken) {
    let token = CallerToken::generate(self::name(name)).expect("randomness");
    let stored = StoredToken {
        name: token.name().clone(),
        owner: "ada".to_owned(),
        groups: vec!["lab".to_owned(), "admins".to_owned()],
        digest: SecretDigest::of(&token).expect("randomness"),
        created_at: world.clock.now(),
        expires_at: Some(world.clock.now() + TimeDelta::hours(1)),
        description: Some("for the laptop".to_owned()),
    };
    (token, stored)
}

#[tokio::test]
async fn a_token_is_found_by_its_name_as_it_was_kept() {
    let world = World::new().await;
    let (secret, stored) = token(&world, "ada-laptop");
    let bare = StoredToken {
        name: name("ada-ci"),
        groups: Vec::new(),
        expires_at: None,
        description: None,
        ..stored.clone()
    };
    for token in [&stored, &bare] {
        assert!(world.store.create_token(token).await.expect("kept"));
        let found = world.store.token(&token.name).await.expect("read");
        assert_eq!(found.as_ref(), Some(token));
    }
    assert!(stored.digest.is_of(&secret));
    assert_eq!(world.store.token(&name("ada")).await.expect("read"), None);
    assert_eq!(world.store.tokens().await.expect("listed"), [bare, stored]);
}

#[tokio::test]
async fn a_name_is_given_once_and_again_when_its_token_has_expired() {
    let world = World::new().await;
    let (_, first) = token(&world, "ada");
    let (_, second) = token(&world, "ada");
    assert!(world.store.create_token(&first).await.expect("kept"));
    assert!(!world.store.create_token(&second).await.expect("answered"));
    assert_eq!(world.store.tokens().await.expect("listed"), std::slice::from_ref(&first));
    world.clock.advance(TimeDelta::hours(1) - TimeDelta::seconds(1));
    assert!(!first.has_expired(world.clock.now()));
    assert!(!world.store.create_token(&second).await.expect("answered"));
    world.clock.advance(TimeDelta::seconds(1));
    assert!(first.has_expired(world.clock.now()));
    let renewed = StoredToken { expires_at: None, ..second };
    assert!(world.store.create_token(&renewed).await.expect("kept"));
    assert_eq!(world.store.tokens().await.expect("listed"), std::slice::from_ref(&renewed));
    assert!(!renewed.has_expired(world.clock.now() + TimeDelta::days(10_000)));
}

#[tokio::test]
async fn a_revoked_token_is_gone_and_its_name_free() {
    let world = World::new().await;
    let (_, stored) = token(&world, "ada");
    world.store.create_token(&stored).await.expect("kept");
    assert!(world.store.revoke_token(&stored.name).await.expect("revoked"));
    assert_eq!(world.store.token(&stored.name).await.expect("read"), None);
    assert!(!world.store.revoke_token(&stored.name).await.expect("answered"));
    assert!(world.store.create_token(&stored).await.expect("kept"));
}

#[tokio::test]
async fn what_was_written_before_its_answer_was_lost_counts() {
    for sdk_retries in [false, true] {
        let world = if sdk_retries { World::retrying().await } else { World::new().await };
        let (_, stored) = token(&world, "ada");
        world.wire.next("PutItem", Fault::LostAnswer);
        assert!(world.store.create_token(&stored).await.expect("kept"));
        world.wire.next("DeleteItem", Fault::LostAnswer);
        assert!(world.store.revoke_token(&stored.name).await.expect("revoked"));
        assert_eq!(world.wire.unmet(), 0);
        assert_eq!(world.store.tokens().await.expect("listed"), []);
    }
}

#[tokio::test]
async fn each_call_is_one_request_and_removal_two() {
    let world = World::new().await;
    let (_, stored) = token(&world, "ada");
    let one = |operation: &str| BTreeMap::from([(operation.to_owned(), 1)]);
    world.wire.sent();
    world.store.create_token(&stored).await.expect("kept");
    assert_eq!(world.wire.sent(), one("PutItem"));
    world.store.token(&stored.name).await.expect("read");
    assert_eq!(world.wire.sent(), one("GetItem"));
    world.store.tokens().await.expect("listed");
    assert_eq!(world.wire.sent(), one("Query"));
    world.store.revoke_token(&stored.name).await.expect("revoked");
    let both = [one("DeleteItem"), one("GetItem")].into_iter().flatten().collect();
    assert_eq!(world.wire.sent(), both);
}

#[tokio::test]
async fn an_item_that_cannot_be_read_is_named_with_its_field() {
    let world = World::new().await;
    let (_, stored) = token(&world, "ada");
    world.store.create_token(&stored).await.expect("kept");
    world
        .client
        .update_item()
        .table_name(TABLE)
        .key("PK", AttributeValue::S("TOKENS".into()))
        .key("SK", AttributeValue::S("ada".into()))
        .update_expression("SET expires_at = :value")
        .expression_attribute_values(":value", AttributeValue::N(i64::MAX.to_string()))
        .send()
        .await
        .expect("written");
    let error = world.store.token(&stored.name).await.expect_err("no time");
    assert!(
        matches!(&error, StoreError::Codec { item, field: "expires_at", .. } if item == "TOKENS/ada"),
        "{error:?}"
    );
}
