//! Listing, against a model that holds all keys in order.

use crate::{BUCKET, Served, code, put};
use aws_sdk_s3::Client;
use aws_sdk_s3::types::EncodingType;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeSet;

/// What a listing gives: keys and common prefixes, each in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listed {
    keys: Vec<String>,
    prefixes: Vec<String>,
}

/// What a listing should give.
fn model(keys: &BTreeSet<String>, prefix: &str, delimiter: &str, after: &str) -> Listed {
    let mut listed = Listed::default();
    for key in keys.iter().filter(|key| key.starts_with(prefix) && key.as_str() > after) {
        let rest = &key[prefix.len()..];
        match rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
            Some(at) => {
                let common = &key[..prefix.len() + at + delimiter.len()];
                let known = listed.prefixes.last().is_some_and(|last| last == common);
                if !known && common != after {
                    listed.prefixes.push(common.to_owned());
                }
            }
            None => listed.keys.push(key.clone()),
        }
    }
    listed
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().expect("utf-8").into_owned()
}

/// Lists all pages; keys come encoded, for some of them cannot be in XML.
async fn list(client: &Client, prefix: &str, delimiter: &str, after: &str, size: i32) -> Listed {
    let mut listed = Listed::default();
    let mut token = None;
    loop {
        let page = client
            .list_objects_v2()
            .bucket(BUCKET)
            .prefix(prefix)
            .set_delimiter(Some(delimiter.to_owned()).filter(|d| !d.is_empty()))
            .set_start_after(Some(after.to_owned()).filter(|a| !a.is_empty()))
            .encoding_type(EncodingType::Url)
            .max_keys(size)
            .set_continuation_token(token)
            .send()
            .await
            .expect("a page");
        let count = page.contents().len() + page.common_prefixes().len();
        assert_eq!(usize::try_from(page.key_count().unwrap_or(-1)), Ok(count));
        assert!(count <= usize::try_from(size).expect("a size"));
        listed.keys.extend(page.contents().iter().filter_map(|o| o.key()).map(decoded));
        let prefixes = page.common_prefixes().iter().filter_map(|p| p.prefix());
        listed.prefixes.extend(prefixes.map(decoded));
        token = page.next_continuation_token().map(str::to_owned);
        assert_eq!(page.is_truncated(), Some(token.is_some()));
        if token.is_none() {
            return listed;
        }
        assert_eq!(count, usize::try_from(size).expect("a size"), "pages are full");
    }
}

fn any_key() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[ab]{0,2}",
        3 => "[ab.%+ -]{0,3}",
        1 => "[a\u{e9}]{130,260}",
        1 => "[\u{0}-\u{2f}a\u{ffff}\u{10000}]{1,3}",
    ];
    proptest::collection::vec(part, 1..5).prop_filter_map("a key", |parts| {
        let key = parts.join("/");
        // The SDK does not send a key of spaces alone.
        (!key.trim().is_empty() && key.len() <= 1024).then_some(key)
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

#[test]
fn every_listing_is_that_of_the_model() {
    let mut runner =
        TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let keys = proptest::collection::btree_set(any_key(), 1..40);
    let asked = proptest::collection::vec(
        (
            any::<prop::sample::Index>(),
            0..6_usize,
            any::<prop::sample::Index>(),
            0..4_usize,
            1..12_i32,
        ),
        6,
    );
    runner
        .run(&(keys, asked), |(keys, asked)| {
            block_on(async {
                let served = Served::new().await;
                let client = served.client();
                // In an order that is not theirs, so that files and folders meet either way.
                let (odd, even): (Vec<_>, Vec<_>) =
                    keys.iter().enumerate().partition(|(index, _)| index % 2 == 1);
                for (_, key) in odd.into_iter().chain(even.into_iter().rev()) {
                    put(&client, key, key.as_str()).await;
                }
                let all: Vec<&String> = keys.iter().collect();
                for (prefix_of, cut, after, delimiter, size) in asked {
                    let from = all[prefix_of.index(all.len())];
                    let prefix: String = from.chars().take(cut).collect();
                    let after = match after.index(3 * all.len()) {
                        index if index < all.len() => all[index].clone(),
                        index if index < 2 * all.len() => {
                            let key = all[index - all.len()];
                            key.split_inclusive('/').next().unwrap_or_default().to_owned()
                        }
                        _ => String::new(),
                    };
                    let delimiter = ["", "/", "/", "a"][delimiter];
                    let listed = list(&client, &prefix, delimiter, &after, size).await;
                    let expected = model(&keys, &prefix, delimiter, &after);
                    prop_assert_eq!(
                        listed,
                        expected,
                        "prefix {:?} delimiter {:?} after {:?}",
                        prefix,
                        delimiter,
                        after
                    );
                }
                Ok(())
            })
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn keys_are_in_the_order_of_their_bytes_and_not_of_folders() {
    let served = Served::new().await;
    let client = served.client();
    let mut keys =
        vec!["a", "a!", "a-b", "a.b", "a/", "a/b", "a//b", "a0", "b/c/d", "b/c.d", "é", "z"];
    for key in &keys {
        put(&client, key, *key).await;
    }
    keys.sort_unstable();
    assert_eq!(list(&client, "", "", "", 3).await.keys, keys);
    let grouped = list(&client, "", "/", "", 2).await;
    assert_eq!(grouped.keys, ["a", "a!", "a-b", "a.b", "a0", "z", "é"]);
    assert_eq!(grouped.prefixes, ["a/", "b/"]);
    let inside = list(&client, "a/", "/", "", 1000).await;
    assert_eq!(inside.keys, ["a/", "a/b"]);
    assert_eq!(inside.prefixes, ["a//"]);
}

#[tokio::test]
async fn a_listing_tells_size_time_and_etag() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "x", "hello").await;
    let head = client.head_object().bucket(BUCKET).key("x").send().await.expect("head");
    let listed = client.list_objects_v2().bucket(BUCKET).send().await.expect("listed");
    let object = &listed.contents()[0];
    assert_eq!(object.size(), Some(5));
    assert_eq!(object.e_tag(), head.e_tag());
    assert_eq!(object.last_modified(), head.last_modified());
    assert_eq!(listed.name(), Some(BUCKET));
    assert_eq!(listed.max_keys(), Some(1000));
}

#[tokio::test]
async fn the_first_version_of_the_protocol_pages_by_marker() {
    let served = Served::new().await;
    let client = served.client();
    for key in ["a/1", "a/2", "b", "c/1", "d"] {
        put(&client, key, "").await;
    }
    let mut seen = Vec::new();
    let mut marker = None;
    loop {
        let page = client
            .list_objects()
            .bucket(BUCKET)
            .delimiter("/")
            .max_keys(1)
            .set_marker(marker)
            .send()
            .await
            .expect("a page");
        seen.extend(page.contents().iter().filter_map(|o| o.key()).map(str::to_owned));
        let prefixes = page.common_prefixes().iter().filter_map(|p| p.prefix());
        seen.extend(prefixes.map(str::to_owned));
        marker = page.next_marker().map(str::to_owned);
        if marker.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a/", "b", "c/", "d"]);
}

#[tokio::test]
async fn a_listing_asked_for_wrongly_is_refused() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "x", "x").await;
    let none =
        client.list_objects_v2().bucket(BUCKET).max_keys(0).send().await.expect("an empty page");
    assert_eq!((none.contents().len(), none.is_truncated()), (0, Some(false)));
    let negative = client.list_objects_v2().bucket(BUCKET).max_keys(-1).send().await;
    assert_eq!(code(&negative.expect_err("refused")), "InvalidArgument");
    for token in ["!", "eA", "a"] {
        let wrong = client.list_objects_v2().bucket(BUCKET).continuation_token(token).send().await;
        assert_eq!(code(&wrong.expect_err("refused")), "InvalidArgument");
    }
}
