//! Putting, getting, deleting and copying objects.

use crate::{BUCKET, OTHER, Served, browser, code, delete, files_under, get, noise, put, status};
use aws_sdk_s3::operation::head_bucket::HeadBucketError;
use aws_sdk_s3::operation::head_object::HeadObjectError;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    BucketLocationConstraint, ChecksumAlgorithm, ChecksumMode, ChecksumType, Delete,
    MetadataDirective, ObjectIdentifier,
};
use bytes::Bytes;
use std::time::Duration;

#[tokio::test]
async fn an_object_is_a_plain_file_and_comes_back_with_its_headers() {
    let served = Served::new().await;
    let client = served.client();
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("outputs/0197/1/a/b.txt")
        .body(ByteStream::from_static(b"hello"))
        .content_type("text/plain")
        .cache_control("no-store")
        .content_disposition("attachment; filename=b.txt")
        .content_encoding("identity")
        .content_language("en")
        .expires(DateTime::from_secs(1_900_000_000))
        .metadata("run", "0197")
        .metadata("note", "ünïcode")
        .send()
        .await
        .expect("put");
    assert_eq!(put.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    let file = served.file("outputs/0197/1/a/b.txt");
    assert_eq!(std::fs::read(file).expect("the file"), b"hello");
    let got =
        client.get_object().bucket(BUCKET).key("outputs/0197/1/a/b.txt").send().await.expect("get");
    assert_eq!(got.content_type(), Some("text/plain"));
    assert_eq!(got.cache_control(), Some("no-store"));
    assert_eq!(got.content_disposition(), Some("attachment; filename=b.txt"));
    assert_eq!(got.content_encoding(), Some("identity"));
    assert_eq!(got.content_language(), Some("en"));
    assert_eq!(got.expires_string(), Some("Sun, 17 Mar 2030 17:46:40 GMT"));
    assert_eq!(got.metadata().and_then(|m| m.get("run")).map(String::as_str), Some("0197"));
    assert_eq!(got.content_length(), Some(5));
    assert_eq!(got.e_tag(), put.e_tag());
    let modified = got.last_modified().copied();
    assert_eq!(&got.body.collect().await.expect("body").to_vec(), b"hello");
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("outputs/0197/1/a/b.txt")
        .send()
        .await
        .expect("head");
    assert_eq!(head.content_type(), Some("text/plain"));
    assert_eq!(head.content_length(), Some(5));
    assert_eq!(head.e_tag(), put.e_tag());
    assert_eq!(head.last_modified().copied(), modified);
    assert_eq!(head.metadata().map(std::collections::HashMap::len), Some(2));
}

#[tokio::test]
async fn an_object_without_a_type_has_the_one_that_s3_gives() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "x", "").await;
    let got = client.get_object().bucket(BUCKET).key("x").send().await.expect("get");
    // The SDK sends this type by itself.
    assert_eq!(got.content_type(), Some("application/octet-stream"));
    assert_eq!(got.content_length(), Some(0));
    assert_eq!(got.e_tag(), Some("\"d41d8cd98f00b204e9800998ecf8427e\""));
}

#[tokio::test]
async fn replacing_and_deleting_leave_nothing_behind() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "a/b/c", "one").await;
    put(&client, "a/b/c", "two!").await;
    assert_eq!(get(&client, "a/b/c").await.as_deref(), Some(&b"two!"[..]));
    delete(&client, "a/b/c").await;
    delete(&client, "a/b/c").await;
    assert_eq!(get(&client, "a/b/c").await, None);
    assert!(!served.file("a").exists(), "empty folders are removed");
    assert!(served.file("").exists(), "the bucket's folder is not");
    assert_eq!(files_under(served.root()), Vec::<String>::new());
}

#[tokio::test]
async fn a_missing_object_or_bucket_is_not_found() {
    let served = Served::new().await;
    let client = served.client();
    let error = client.head_object().bucket(BUCKET).key("none").send().await.expect_err("missing");
    assert!(error.as_service_error().is_some_and(HeadObjectError::is_not_found));
    let error =
        client.get_object().bucket("no-such-bucket").key("x").send().await.expect_err("missing");
    assert_eq!(code(&error), "NoSuchBucket");
    let error =
        client.put_object().bucket("no-such-bucket").key("x").send().await.expect_err("missing");
    assert_eq!(code(&error), "NoSuchBucket");
}

#[tokio::test]
async fn a_range_is_the_bytes_asked_for_in_each_of_its_forms() {
    let served = Served::new().await;
    let client = served.client();
    let data = noise(300_000);
    put(&client, "r", data.clone()).await;
    let cases = [
        ("bytes=0-0", 0..1),
        ("bytes=10-19", 10..20),
        ("bytes=299990-", 299_990..300_000),
        ("bytes=100-999999", 100..300_000),
        ("bytes=-7", 299_993..300_000),
        ("bytes=-999999", 0..300_000),
    ];
    for (range, expected) in cases {
        let got =
            client.get_object().bucket(BUCKET).key("r").range(range).send().await.expect("get");
        assert_eq!(
            got.content_range().map(str::to_owned),
            Some(format!("bytes {}-{}/300000", expected.start, expected.end - 1))
        );
        assert_eq!(got.checksum_crc32(), None, "not the checksum of a part");
        let body = got.body.collect().await.expect("body").to_vec();
        assert_eq!(body, data[expected], "{range}");
    }
    let head =
        client.head_object().bucket(BUCKET).key("r").range("bytes=-5").send().await.expect("head");
    assert_eq!(head.content_length(), Some(5));
    put(&client, "empty", "").await;
    for (key, range) in
        [("r", "bytes=300000-"), ("r", "bytes=-0"), ("empty", "bytes=0-"), ("empty", "bytes=-1")]
    {
        let error = client
            .get_object()
            .bucket(BUCKET)
            .key(key)
            .range(range)
            .send()
            .await
            .expect_err("not satisfiable");
        assert_eq!((code(&error).as_str(), status(&error)), ("InvalidRange", 416));
        let whole = error
            .raw_response()
            .and_then(|r| r.headers().get("content-range"))
            .unwrap_or_default()
            .to_owned();
        assert!(whole.starts_with("bytes */"), "{whole}");
    }
}

#[tokio::test]
async fn every_checksum_of_the_sdk_is_verified_kept_and_given_back() {
    let served = Served::new().await;
    let client = served.client();
    for (index, algorithm) in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("sum/{index}");
        client
            .put_object()
            .bucket(BUCKET)
            .key(&key)
            .checksum_algorithm(algorithm.clone())
            .body(ByteStream::from_static(b"123456789"))
            .send()
            .await
            .expect("put");
        // The SDK verifies what it gets with the checksum that comes with it.
        let got = client
            .get_object()
            .bucket(BUCKET)
            .key(&key)
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .expect("get");
        assert_eq!(got.checksum_type(), Some(&ChecksumType::FullObject));
        let value = match algorithm {
            ChecksumAlgorithm::Crc32 => got.checksum_crc32(),
            ChecksumAlgorithm::Crc32C => got.checksum_crc32_c(),
            ChecksumAlgorithm::Crc64Nvme => got.checksum_crc64_nvme(),
            ChecksumAlgorithm::Sha1 => got.checksum_sha1(),
            _ => got.checksum_sha256(),
        };
        assert!(value.is_some(), "{algorithm:?}");
        assert_eq!(got.body.collect().await.expect("body").to_vec(), b"123456789");
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_was_announced_is_refused_and_leaves_the_object_as_it_was() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "x", "before").await;
    let wrong_md5 = client
        .put_object()
        .bucket(BUCKET)
        .key("x")
        .content_md5("1B2M2Y8AsgTpgAmY7PhCfg==")
        .body(ByteStream::from_static(b"after"))
        .send()
        .await
        .expect_err("refused");
    assert_eq!(code(&wrong_md5), "BadDigest");
    let wrong_sum = client
        .put_object()
        .bucket(BUCKET)
        .key("x")
        .checksum_sha256("FeKw08M4keuw8e9gnsQZQgwg47gOlMZu+6+xEPLSMiU=")
        .body(ByteStream::from_static(b"after"))
        .send()
        .await
        .expect_err("refused");
    assert_eq!(code(&wrong_sum), "BadDigest");
    let broken_md5 = client
        .put_object()
        .bucket(BUCKET)
        .key("x")
        .content_md5("not base64")
        .body(ByteStream::from_static(b"after"))
        .send()
        .await
        .expect_err("refused");
    assert_eq!(code(&broken_md5), "InvalidDigest");
    assert_eq!(get(&client, "x").await.as_deref(), Some(&b"before"[..]));
    let left: Vec<String> = files_under(&served.root().join(".tmp"));
    assert_eq!(left, Vec::<String>::new(), "no temporary file stays");
}

#[tokio::test]
async fn a_copy_keeps_or_replaces_what_is_known_of_the_object() {
    let served = Served::new().await;
    let client = served.client();
    client
        .put_object()
        .bucket(BUCKET)
        .key("from/ä b+c%.txt")
        .content_type("text/plain")
        .metadata("a", "1")
        .body(ByteStream::from_static(b"copied"))
        .send()
        .await
        .expect("put");
    let source = format!("{BUCKET}/from/%C3%A4%20b%2Bc%25.txt");
    let copied = client
        .copy_object()
        .bucket(OTHER)
        .key("to/kept")
        .copy_source(&source)
        .send()
        .await
        .expect("copy");
    let etag = copied.copy_object_result().and_then(|result| result.e_tag()).map(str::to_owned);
    let head = client.head_object().bucket(OTHER).key("to/kept").send().await.expect("head");
    assert_eq!(head.e_tag().map(str::to_owned), etag);
    assert_eq!(head.content_type(), Some("text/plain"));
    assert_eq!(head.metadata().and_then(|m| m.get("a")).map(String::as_str), Some("1"));
    client
        .copy_object()
        .bucket(OTHER)
        .key("to/replaced")
        .copy_source(&source)
        .metadata_directive(MetadataDirective::Replace)
        .content_type("application/json")
        .checksum_algorithm(ChecksumAlgorithm::Sha256)
        .send()
        .await
        .expect("copy");
    let replaced = client
        .get_object()
        .bucket(OTHER)
        .key("to/replaced")
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .expect("get");
    assert_eq!(replaced.content_type(), Some("application/json"));
    assert!(replaced.metadata().is_none_or(std::collections::HashMap::is_empty));
    assert!(replaced.checksum_sha256().is_some());
    assert_eq!(replaced.body.collect().await.expect("body").to_vec(), b"copied");
    let onto_itself = client
        .copy_object()
        .bucket(BUCKET)
        .key("from/ä b+c%.txt")
        .copy_source(&source)
        .send()
        .await
        .expect_err("refused");
    assert_eq!(code(&onto_itself), "InvalidRequest");
    let missing = client
        .copy_object()
        .bucket(BUCKET)
        .key("y")
        .copy_source(format!("{BUCKET}/none"))
        .send()
        .await
        .expect_err("refused");
    assert_eq!(code(&missing), "NoSuchKey");
}

#[tokio::test]
async fn many_keys_are_deleted_at_once() {
    let served = Served::new().await;
    let client = served.client();
    for key in ["a/1", "a/2", "b"] {
        put(&client, key, key).await;
    }
    let delete = |keys: &[&str], quiet| {
        let objects = keys
            .iter()
            .map(|key| ObjectIdentifier::builder().key(*key).build().expect("a key"))
            .collect::<Vec<_>>();
        client
            .delete_objects()
            .bucket(BUCKET)
            .delete(
                Delete::builder().set_objects(Some(objects)).quiet(quiet).build().expect("keys"),
            )
            .send()
    };
    let done = delete(&["a/1", "never-there"], false).await.expect("deleted");
    let keys: Vec<_> = done.deleted().iter().filter_map(|d| d.key()).collect();
    assert_eq!(keys, ["a/1", "never-there"]);
    assert!(done.errors().is_empty());
    let quiet = delete(&["a/2"], true).await.expect("deleted");
    assert!(quiet.deleted().is_empty());
    assert_eq!(files_under(&served.root().join(BUCKET)), ["b"]);
}

#[tokio::test]
async fn a_file_streams_in_framed_and_signed_by_the_sdk() {
    let served = Served::new().await;
    let client = served.client();
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("file");
    let data = noise(3 * 1024 * 1024 + 17);
    std::fs::write(&path, &data).expect("written");
    client
        .put_object()
        .bucket(BUCKET)
        .key("file")
        .content_encoding("gzip")
        .body(ByteStream::from_path(&path).await.expect("a body"))
        .send()
        .await
        .expect("put");
    let got = client.get_object().bucket(BUCKET).key("file").send().await.expect("get");
    assert_eq!(got.content_encoding(), Some("gzip"), "without aws-chunked");
    assert!(got.checksum_crc32().is_some(), "which came behind the body");
    assert!(got.body.collect().await.expect("body").to_vec() == data);
}

#[tokio::test]
async fn a_hundred_mebibytes_stream_in_and_out() {
    const PIECES: usize = 100;
    let served = Served::new().await;
    let client = served.client();
    let presigned = |time| PresigningConfig::expires_in(time).expect("a time");
    let hour = Duration::from_secs(3600);
    let object = client.put_object().bucket(BUCKET).key("big");
    let put = object.presigned(presigned(hour)).await.expect("a url");
    let object = client.get_object().bucket(BUCKET).key("big");
    let get = object.presigned(presigned(hour)).await.expect("a url");
    let noise = Bytes::from(noise(1024 * 1024));
    // Each piece is turned a little further, so that none is like another.
    let piece = move |index: usize| [noise.slice(index..), noise.slice(..index)].concat();
    let pieces = piece.clone();
    let body = futures::stream::iter(
        (0..PIECES).map(move |index| Ok::<_, std::io::Error>(Bytes::from(pieces(index)))),
    );
    let answer = browser()
        .put(put.uri())
        .header("content-length", PIECES * 1024 * 1024)
        .body(reqwest::Body::wrap_stream(body))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    let length = std::fs::metadata(served.file("big")).expect("the file").len();
    assert_eq!(length, 100 * 1024 * 1024);
    let mut answer = browser().get(get.uri()).send().await.expect("an answer");
    assert_eq!(answer.content_length(), Some(length));
    let mut waiting = Vec::new();
    let mut index = 0;
    while let Some(chunk) = answer.chunk().await.expect("a chunk") {
        waiting.extend_from_slice(&chunk);
        while waiting.len() >= 1024 * 1024 {
            let rest = waiting.split_off(1024 * 1024);
            assert!(waiting == piece(index), "piece {index}");
            waiting = rest;
            index += 1;
        }
    }
    assert_eq!((index, waiting.len()), (PIECES, 0));
}

#[tokio::test]
async fn whoever_wants_to_know_hears_of_calls_and_of_new_objects() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "k", "four").await;
    get(&client, "k").await;
    client
        .copy_object()
        .bucket(BUCKET)
        .key("k2")
        .copy_source(format!("{BUCKET}/k"))
        .send()
        .await
        .expect("copy");
    delete(&client, "k").await;
    let calls = served.calls.lock().expect("calls").clone();
    assert_eq!(calls, ["PutObject", "GetObject", "CopyObject", "DeleteObject"]);
    let created = served.created.lock().expect("objects").clone();
    let seen: Vec<_> = created
        .iter()
        .map(|o| (o.bucket.as_str(), o.key.as_str(), o.size, o.etag.as_str()))
        .collect();
    let etag = "8cbad96aced40b3838dd9f07f6ef5772";
    assert_eq!(seen, [(BUCKET, "k", 4, etag), (BUCKET, "k2", 4, etag)]);
}

#[tokio::test]
async fn the_buckets_are_those_that_were_opened() {
    let served = Served::new().await;
    let client = served.client();
    let all = client.list_buckets().send().await.expect("buckets");
    let names: Vec<_> = all.buckets().iter().filter_map(|b| b.name()).collect();
    assert_eq!(names, [OTHER, BUCKET]);
    client.head_bucket().bucket(BUCKET).send().await.expect("the bucket");
    let location = client.get_bucket_location().bucket(BUCKET).send().await.expect("its location");
    assert_eq!(
        location.location_constraint().map(BucketLocationConstraint::as_str),
        Some("eu-central-1")
    );
    let missing = client.head_bucket().bucket("no-such-bucket").send().await.expect_err("missing");
    assert!(missing.as_service_error().is_some_and(HeadBucketError::is_not_found));
}
