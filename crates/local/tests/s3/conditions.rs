//! Conditional requests.

use crate::{BUCKET, Served, code, get, put, status};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use std::sync::Arc;

const HELLO: &str = "\"5d41402abc4b2a76b9719d911017c592\"";

#[tokio::test]
async fn a_put_can_ask_that_nothing_is_there() {
    let served = Served::new().await;
    let client = served.client();
    let put_new = |body: &'static str| {
        client
            .put_object()
            .bucket(BUCKET)
            .key("once")
            .if_none_match("*")
            .body(ByteStream::from_static(body.as_bytes()))
            .send()
    };
    put_new("first").await.expect("nothing is there");
    let error = put_new("second").await.expect_err("something is there");
    assert_eq!((code(&error).as_str(), status(&error)), ("PreconditionFailed", 412));
    assert_eq!(get(&client, "once").await.as_deref(), Some(&b"first"[..]));
}

#[tokio::test]
async fn of_many_conditional_puts_one_wins() {
    let served = Served::new().await;
    let client = Arc::new(served.client());
    let mut puts = tokio::task::JoinSet::new();
    for index in 0..24 {
        let client = Arc::clone(&client);
        puts.spawn(async move {
            let done = client
                .put_object()
                .bucket(BUCKET)
                .key("race/x")
                .if_none_match("*")
                .body(ByteStream::from(format!("{index}").into_bytes()))
                .send()
                .await;
            done.is_ok().then_some(index)
        });
    }
    let winners: Vec<i32> = puts.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(get(&client, "race/x").await, Some(winners[0].to_string().into_bytes()));
}

#[tokio::test]
async fn a_put_or_delete_can_ask_for_what_it_replaces() {
    let served = Served::new().await;
    let client = served.client();
    let put_over = |etag: &'static str| {
        client
            .put_object()
            .bucket(BUCKET)
            .key("x")
            .if_match(etag)
            .body(ByteStream::from_static(b"new"))
            .send()
    };
    assert_eq!(code(&put_over(HELLO).await.expect_err("absent")), "NoSuchKey");
    put(&client, "x", "hello").await;
    let wrong = put_over("\"00000000000000000000000000000000\"").await;
    assert_eq!(code(&wrong.expect_err("another")), "PreconditionFailed");
    put_over(HELLO).await.expect("the same");
    let stale = client.delete_object().bucket(BUCKET).key("x").if_match(HELLO).send().await;
    assert_eq!(code(&stale.expect_err("another")), "PreconditionFailed");
    assert_eq!(get(&client, "x").await.as_deref(), Some(&b"new"[..]));
}

#[tokio::test]
async fn a_get_answers_not_modified_or_precondition_failed() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "x", "hello").await;
    let modified = client
        .head_object()
        .bucket(BUCKET)
        .key("x")
        .send()
        .await
        .expect("head")
        .last_modified()
        .copied()
        .expect("a date");
    let earlier = DateTime::from_secs(modified.secs() - 10);
    let later = DateTime::from_secs(modified.secs() + 10);
    let ask = || client.get_object().bucket(BUCKET).key("x");
    let other = "\"0\"";

    for answered in [
        ask().if_match(HELLO),
        ask().if_match("*"),
        ask().if_none_match(other),
        ask().if_modified_since(earlier),
        ask().if_unmodified_since(later),
        ask().if_unmodified_since(modified),
        // The tag decides when both are given (RFC 9110, section 13.2.2).
        ask().if_match(HELLO).if_unmodified_since(earlier),
        ask().if_none_match(other).if_modified_since(later),
    ] {
        answered.send().await.expect("it holds");
    }
    for unchanged in [
        ask().if_none_match(HELLO),
        ask().if_none_match("*"),
        ask().if_none_match(format!("W/{HELLO}")),
        ask().if_modified_since(modified),
        ask().if_modified_since(later),
    ] {
        let error = unchanged.send().await.expect_err("unchanged");
        assert_eq!(status(&error), 304);
        let response = error.raw_response().expect("a response");
        assert_eq!(response.headers().get("etag"), Some(HELLO));
        assert!(response.headers().get("last-modified").is_some());
    }
    for failed in [
        ask().if_match(other),
        ask().if_unmodified_since(earlier),
        ask().if_match(other).if_none_match(HELLO),
    ] {
        let error = failed.send().await.expect_err("it does not hold");
        assert_eq!((code(&error).as_str(), status(&error)), ("PreconditionFailed", 412));
    }
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("x")
        .if_none_match(HELLO)
        .send()
        .await
        .expect_err("unchanged");
    assert_eq!(status(&head), 304);
    let copy = client
        .copy_object()
        .bucket(BUCKET)
        .key("y")
        .copy_source(format!("{BUCKET}/x"))
        .copy_source_if_none_match(HELLO)
        .send()
        .await
        .expect_err("unchanged");
    assert_eq!(code(&copy), "PreconditionFailed");
}
