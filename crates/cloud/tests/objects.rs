//! The runs bucket and executions, with the SDK's real clients.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use stepwes_cloud::{
    executions,
    object_version::{ObjectVersion, Read},
    objects::{Download, Limited, Listed, ObjectError},
};
use stepwes_core::step::ExecutionInput;

use support::{Fault, MACHINE, World, run_id};

#[tokio::test]
async fn what_is_written_is_read_whole_in_part_and_not_when_it_is_too_large() {
    let world = World::new().await;
    let objects = &world.objects;
    let value = json!({"a": [1, 2]});
    objects.put_json("d/ü x", &value).await.expect("written");
    assert_eq!(objects.get_json::<Value>("d/ü x").await.expect("read"), Some(value.clone()));
    assert_eq!(objects.get_json::<Value>("other").await.expect("read"), None);
    let size = value.to_string().len() as u64;
    let limited = |max| objects.get_json_limited::<Value>("d/ü x", max);
    assert_eq!(limited(size).await.expect("read"), Limited::Found(value.clone()));
    assert_eq!(limited(size - 1).await.expect("read"), Limited::TooLarge { size });

    objects.put_bytes("b", "0123456789".into(), "text/plain").await.expect("written");
    assert_eq!(objects.head("b").await.expect("looked"), Some(10));
    assert_eq!(objects.head("c").await.expect("looked"), None);
    let part = objects.get_bytes("b", Some(2..=4)).await.expect("read");
    assert_eq!(part.as_deref(), Some(&b"234"[..]));
    assert_eq!(objects.get_bytes("c", None).await.expect("read"), None);
    assert_eq!(objects.url("b"), "s3://bucket/b");
}

#[tokio::test]
async fn listing_and_deleting_know_every_page_and_no_other_prefix() {
    let world = World::new().await;
    for n in 0..8 {
        world.put(&format!("a/{n}&<"), "xy");
    }
    world.put("ab", "x");
    let listed = world.objects.list("a/").await.expect("a listing");
    assert_eq!(listed.len(), 8);
    let etag = listed[0].etag.clone();
    assert_eq!(listed[7], Listed { key: "a/7&<".to_owned(), size: 2, etag });
    assert_eq!(world.objects.delete_prefix("a/").await.expect("deleted"), 8);
    assert_eq!(world.keys(), ["ab"]);
    assert_eq!(world.objects.delete_prefix("a/").await.expect("deleted"), 0);
}

#[tokio::test]
async fn an_object_is_read_with_its_version() {
    let world = World::new().await;
    world.put("k", "one");
    let objects = &world.objects;
    let one = objects.version("k").await.expect("looked").expect("an object");
    assert_eq!(one.version_id, None);
    let found = Read::Found { content: "one".into(), version: one.clone() };
    assert_eq!(objects.get_limited("k", 3).await.expect("read"), found);
    assert_eq!(objects.get_limited("k", 2).await.expect("read"), Read::TooLarge { size: 3 });
    // The same content, written again, is another version.
    world.put("k", "one");
    let again = objects.version("k").await.expect("looked").expect("an object");
    assert_eq!(again.etag, one.etag);
    assert_ne!(again.identity(), one.identity());
    world.put("k", "two");
    let two = objects.version("k").await.expect("looked").expect("an object");
    assert_ne!(two.etag, one.etag);
    assert_eq!(objects.get_limited("none", 3).await.expect("read"), Read::Missing);
    assert_eq!(objects.version("none").await.expect("looked"), None);
    assert_eq!(objects.in_bucket("other").version("k").await.expect("looked"), None);
    let versioned = ObjectVersion { version_id: Some("v1".to_owned()), ..one };
    assert_eq!(versioned.identity(), "v1");
}

#[tokio::test]
async fn what_is_not_json_names_its_object() {
    let world = World::new().await;
    world.put("k", "{");
    let error = world.objects.get_json::<Value>("k").await.expect_err("no JSON");
    assert!(matches!(&error, ObjectError::Codec { key, .. } if key == "k"), "{error:?}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn passing_and_lasting_failures_are_told_apart() {
    let world = World::new().await;
    for (fault, retryable) in [(Fault::Denied, false), (Fault::Busy, true)] {
        for operation in
            ["PutObject", "GetObject", "ListObjectsV2", "DeleteObject", "StartExecution"]
        {
            world.fail(operation, fault);
        }
        let objects = &world.objects;
        let errors = [
            objects.put_json("k", &1).await.err(),
            objects.get_json::<Value>("k").await.err(),
            objects.list("k").await.err(),
            objects.delete("k").await.err(),
        ];
        for error in errors {
            let error = error.expect("a failure");
            assert_eq!(error.is_retryable(), retryable, "{error}");
        }
        let started = executions::start(&world.executions, MACHINE, run_id(1)).await;
        assert_eq!(started.expect_err("a failure").is_retryable(), retryable);
    }
}

#[tokio::test]
async fn an_execution_is_named_by_its_run_and_knows_nothing_else() {
    let world = World::new().await;
    let id = run_id(1);
    for _ in 0..2 {
        executions::start(&world.executions, MACHINE, id).await.expect("started");
    }
    let (name, input) = world.starts().remove(0);
    assert_eq!((name, input.clone()), (id.to_string(), json!({"run_id": id.to_string()})));
    let read: ExecutionInput = serde_json::from_value(input).expect("the input");
    assert_eq!(read, ExecutionInput { run_id: id });
    world.end_execution(id);
    executions::start(&world.executions, MACHINE, id).await.expect("it has run before");
}

#[tokio::test]
async fn a_presigned_url_is_short_lived_whatever_is_asked_for() {
    let world = World::new().await;
    let download = Download {
        content_type: Some("text/plain".to_owned()),
        disposition: Some("attachment".to_owned()),
    };
    let day = Duration::from_secs(86_400);
    let url = world.objects.presign_get("a b/ü", day, download).await.expect("a URL");
    assert!(url.contains("/bucket/a%20b/%C3%BC?"), "{url}");
    for part in [
        "X-Amz-Expires=900",
        "X-Amz-Signature=",
        "response-content-type=text%2Fplain",
        "response-content-disposition=attachment",
    ] {
        assert!(url.contains(part), "{part} in {url}");
    }
}
