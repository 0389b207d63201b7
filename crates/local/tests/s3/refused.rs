//! What is not supported says so.

use crate::{BUCKET, Served, browser, code, get, put, status};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{ObjectCannedAcl, ServerSideEncryption, StorageClass};
use std::sync::Arc;
use stepwes_local::s3::{Credentials, Hooks, OpenError, S3Endpoint};

#[tokio::test]
async fn other_operations_are_not_implemented() {
    let served = Served::new().await;
    let client = served.client();
    let tagging = client.get_bucket_tagging().bucket(BUCKET).send().await;
    let error = tagging.expect_err("refused");
    assert_eq!((code(&error).as_str(), status(&error)), ("NotImplemented", 501));
    let versions = client.list_object_versions().bucket(BUCKET).send().await;
    assert_eq!(code(&versions.expect_err("refused")), "NotImplemented");
    let bucket = client.create_bucket().bucket("another").send().await;
    assert_eq!(code(&bucket.expect_err("refused")), "NotImplemented");
}

#[tokio::test]
async fn parameters_that_would_be_ignored_are_refused_by_name() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "x", "x").await;
    let ask = || client.put_object().bucket(BUCKET).key("y");
    for (request, parameter) in [
        (ask().acl(ObjectCannedAcl::PublicRead), "acl"),
        (ask().tagging("a=b"), "tagging"),
        (ask().server_side_encryption(ServerSideEncryption::AwsKms), "server-side-encryption"),
        (ask().storage_class(StorageClass::Glacier), "storage-class"),
        (ask().expected_bucket_owner("111122223333"), "expected-bucket-owner"),
    ] {
        let error = request.send().await.expect_err("refused");
        assert_eq!(code(&error), "NotImplemented");
        assert!(error.message().is_some_and(|message| message.contains(parameter)));
    }
    assert_eq!(get(&client, "y").await, None);
    let version = client.get_object().bucket(BUCKET).key("x").version_id("1").send().await;
    assert_eq!(code(&version.expect_err("refused")), "NotImplemented");
    let metadata = ask().metadata("long", "x".repeat(2048)).send().await;
    assert_eq!(code(&metadata.expect_err("refused")), "MetadataTooLarge");
}

#[tokio::test]
async fn a_form_upload_is_refused_before_its_body_is_read() {
    let served = Served::new().await;
    let form = reqwest::multipart::Form::new().text("key", "x").text("file", "content");
    let answer = browser()
        .post(format!("{}/{BUCKET}", served.url))
        .multipart(form)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 501);
    assert!(answer.text().await.expect("xml").contains("NotImplemented"));
}

#[test]
fn a_root_that_cannot_be_used_is_refused_with_the_reason() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let open = |bucket: &str| {
        S3Endpoint::open(folder.path(), &[bucket], Arc::new(Credentials::new()), Hooks::default())
    };
    for name in ["..", ".meta", "a/b", "UPPER"] {
        assert!(matches!(open(name), Err(OpenError::BucketName(_))), "{name}");
    }
    std::os::unix::fs::symlink("/tmp", folder.path().join("linked")).expect("a link");
    assert!(matches!(open("linked"), Err(OpenError::Link(_))));
    std::fs::write(folder.path().join("file"), "").expect("a file");
    assert!(matches!(open("file"), Err(OpenError::Folder { .. })));
}
