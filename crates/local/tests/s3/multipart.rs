//! Multipart uploads.

use crate::{BUCKET, Served, code, files_under, get, noise, put};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, Part,
};
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const MIB: usize = 1024 * 1024;

async fn create(client: &Client, key: &str) -> String {
    let created = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key(key)
        .content_type("text/x-test")
        .metadata("m", "1")
        .send()
        .await
        .expect("created");
    created.upload_id().expect("an id").to_owned()
}

async fn upload(client: &Client, key: &str, id: &str, number: i32, body: Vec<u8>) -> CompletedPart {
    let part = client
        .upload_part()
        .bucket(BUCKET)
        .key(key)
        .upload_id(id)
        .part_number(number)
        .body(ByteStream::from(body))
        .send()
        .await
        .expect("a part");
    CompletedPart::builder()
        .part_number(number)
        .e_tag(part.e_tag().expect("an etag"))
        .set_checksum_crc32(part.checksum_crc32().map(str::to_owned))
        .build()
}

fn complete(
    client: &Client,
    key: &str,
    id: &str,
    parts: &[CompletedPart],
) -> aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder
{
    client.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(id).multipart_upload(
        CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build(),
    )
}

#[tokio::test]
async fn parts_become_one_object() {
    let served = Served::new().await;
    let client = served.client();
    let data = noise(5 * MIB + 123);
    let id = create(&client, "big/x").await;
    let second = upload(&client, "big/x", &id, 7, data[5 * MIB..].to_vec()).await;
    upload(&client, "big/x", &id, 2, b"sent again below".to_vec()).await;
    let first = upload(&client, "big/x", &id, 2, data[..5 * MIB].to_vec()).await;
    assert_eq!(get(&client, "big/x").await, None, "not before it is completed");
    let listed =
        client.list_parts().bucket(BUCKET).key("big/x").upload_id(&id).send().await.expect("parts");
    let seen: Vec<_> = listed
        .parts()
        .iter()
        .map(|p| (p.part_number().unwrap_or(0), p.size().unwrap_or(0)))
        .collect();
    assert_eq!(seen, [(2, 5 * 1024 * 1024), (7, 123)]);
    let done = complete(&client, "big/x", &id, &[first.clone(), second.clone()])
        .send()
        .await
        .expect("completed");
    let etag = done.e_tag().expect("an etag").to_owned();
    assert!(etag.ends_with("-2\""), "{etag}");
    assert!(std::fs::read(served.file("big/x")).expect("the file") == data);
    let head = client.head_object().bucket(BUCKET).key("big/x").send().await.expect("head");
    assert_eq!(head.e_tag(), Some(etag.as_str()));
    assert_eq!(head.content_type(), Some("text/x-test"));
    assert_eq!(head.metadata().and_then(|m| m.get("m")).map(String::as_str), Some("1"));
    assert_eq!(files_under(&served.root().join(".tmp")), Vec::<String>::new());
    let again = complete(&client, "big/x", &id, &[first, second])
        .send()
        .await
        .expect("the answer may have been lost, so it is given again");
    assert_eq!(again.e_tag(), Some(etag.as_str()));
    let created = served.created.lock().expect("objects");
    assert_eq!(created[0].size, data.len() as u64);
    assert_eq!(format!("\"{}\"", created[0].etag), etag);
}

#[tokio::test]
async fn parts_can_be_listed_in_pages() {
    let served = Served::new().await;
    let client = served.client();
    let id = create(&client, "x").await;
    for number in [1, 3, 5] {
        upload(&client, "x", &id, number, vec![0; 10]).await;
    }
    let page = |marker: Option<String>| {
        client
            .list_parts()
            .bucket(BUCKET)
            .key("x")
            .upload_id(&id)
            .max_parts(2)
            .set_part_number_marker(marker)
            .send()
    };
    let first = page(None).await.expect("a page");
    assert_eq!(first.is_truncated(), Some(true));
    let second = page(first.next_part_number_marker().map(str::to_owned)).await.expect("a page");
    assert_eq!(second.is_truncated(), Some(false));
    let numbers: Vec<_> =
        [first.parts(), second.parts()].concat().iter().filter_map(Part::part_number).collect();
    assert_eq!(numbers, [1, 3, 5]);
}

#[tokio::test]
async fn a_wrong_list_of_parts_is_refused() {
    let served = Served::new().await;
    let client = served.client();
    let id = create(&client, "x").await;
    let one = upload(&client, "x", &id, 1, vec![1; 10]).await;
    let two = upload(&client, "x", &id, 2, vec![2; 10]).await;
    let refused = async |parts: &[CompletedPart]| {
        let answer = complete(&client, "x", &id, parts).send().await;
        code(&answer.expect_err("refused"))
    };
    assert_eq!(refused(&[]).await, "MalformedXML");
    assert_eq!(refused(&[two.clone(), one.clone()]).await, "InvalidPartOrder");
    assert_eq!(refused(&[one.clone(), one.clone()]).await, "InvalidPartOrder");
    assert_eq!(refused(&[one.clone(), two.clone()]).await, "EntityTooSmall");
    let part =
        |number, etag: &str| CompletedPart::builder().part_number(number).e_tag(etag).build();
    let two_as_one = part(1, two.e_tag().expect("an etag"));
    assert_eq!(refused(&[two_as_one]).await, "InvalidPart");
    assert_eq!(refused(&[part(9, two.e_tag().unwrap_or_default())]).await, "InvalidPart");
    assert_eq!(refused(&[part(1, "../../upload.json")]).await, "InvalidPart");
    let wrong_sum = CompletedPart::builder()
        .part_number(1)
        .e_tag(one.e_tag().expect("an etag"))
        .checksum_crc32("AAAAAA==")
        .build();
    assert_eq!(refused(&[wrong_sum]).await, "InvalidPart");
    let wrong_size =
        complete(&client, "x", &id, std::slice::from_ref(&one)).mpu_object_size(11).send().await;
    assert_eq!(code(&wrong_size.expect_err("refused")), "InvalidRequest");
    complete(&client, "x", &id, &[one])
        .mpu_object_size(10)
        .send()
        .await
        .expect("nothing of that ended the upload");
}

#[tokio::test]
async fn an_upload_that_nobody_goes_on_with_is_removed_after_seven_days() {
    let served = Served::new().await;
    let client = served.client();
    let (old, new) = (create(&client, "old").await, create(&client, "new").await);
    upload(&client, "old", &old, 1, noise(10)).await;
    let part = upload(&client, "new", &new, 1, noise(10)).await;
    let folder = File::open(served.root().join(".tmp/uploads").join(&old)).expect("there");
    let eight_days_ago = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
    folder.set_modified(eight_days_ago).expect("set");
    served.endpoint.sweep(&[], SystemTime::now()).await;
    let error = client.list_parts().bucket(BUCKET).key("old").upload_id(&old).send().await;
    assert_eq!(code(&error.expect_err("gone")), "NoSuchUpload");
    complete(&client, "new", &new, &[part]).send().await.expect("completed");
    assert!(files_under(&served.root().join(".tmp")).is_empty());
}

#[tokio::test]
async fn of_two_uploads_of_one_part_at_once_one_stays_whole() {
    let served = Served::new().await;
    let client = served.client();
    for round in 0..50 {
        let id = create(&client, "x").await;
        let (one, other) = (noise(10 + round), noise(100 + round));
        tokio::join!(
            upload(&client, "x", &id, 1, one.clone()),
            upload(&client, "x", &id, 1, other.clone()),
        );
        let listed = client.list_parts().bucket(BUCKET).key("x").upload_id(&id).send().await;
        let listed = listed.expect("listed");
        let [part] = listed.parts() else { panic!("one part: {listed:?}") };
        let part = CompletedPart::builder()
            .part_number(1)
            .set_e_tag(part.e_tag().map(str::to_owned))
            .build();
        complete(&client, "x", &id, &[part]).send().await.expect("completed");
        let content = get(&client, "x").await.expect("there");
        assert!(content == one || content == other);
    }
}

#[tokio::test]
async fn an_aborted_or_unknown_upload_takes_nothing_more() {
    let served = Served::new().await;
    let client = served.client();
    let id = create(&client, "x").await;
    let part = upload(&client, "x", &id, 1, vec![1; 10]).await;
    let abort = |key: &'static str, id: &str| {
        client.abort_multipart_upload().bucket(BUCKET).key(key).upload_id(id).send()
    };
    let other_key = abort("y", &id).await.expect_err("of another key");
    assert_eq!(code(&other_key), "NoSuchUpload");
    abort("x", &id).await.expect("aborted");
    assert_eq!(files_under(served.root()), Vec::<String>::new());
    for id in [id.as_str(), "../put", "0123"] {
        assert_eq!(code(&abort("x", id).await.expect_err("gone")), "NoSuchUpload");
        let late = client
            .upload_part()
            .bucket(BUCKET)
            .key("x")
            .upload_id(id)
            .part_number(1)
            .body(ByteStream::from_static(b"late"))
            .send()
            .await;
        assert_eq!(code(&late.expect_err("gone")), "NoSuchUpload");
        let late = complete(&client, "x", id, std::slice::from_ref(&part)).send().await;
        assert_eq!(code(&late.expect_err("gone")), "NoSuchUpload");
    }
    let number = client
        .upload_part()
        .bucket(BUCKET)
        .key("x")
        .upload_id(create(&client, "x").await)
        .part_number(10_001)
        .send()
        .await;
    assert_eq!(code(&number.expect_err("too great")), "InvalidArgument");
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart_and_can_ask_that_nothing_is_there() {
    let served = Served::new().await;
    let client = served.client();
    let id = create(&client, "x").await;
    let part = upload(&client, "x", &id, 1, b"kept".to_vec()).await;
    let folder = Arc::clone(&served.folder);
    drop(served);
    let served = Served::over(folder).await;
    let client = served.client();
    put(&client, "x", "in the way").await;
    let parts = [part];
    let refused = complete(&client, "x", &id, &parts)
        .if_none_match("*")
        .send()
        .await
        .expect_err("something is there");
    assert_eq!(code(&refused), "PreconditionFailed");
    complete(&client, "x", &id, &parts).send().await.expect("completed");
    assert_eq!(get(&client, "x").await.as_deref(), Some(&b"kept"[..]));
}

#[tokio::test]
async fn checksums_of_parts_make_a_composite_one_or_one_of_the_whole() {
    let served = Served::new().await;
    let client = served.client();
    let cases = [
        (ChecksumAlgorithm::Sha256, None, ChecksumType::Composite),
        (ChecksumAlgorithm::Crc64Nvme, None, ChecksumType::FullObject),
        (ChecksumAlgorithm::Crc32, Some(ChecksumType::FullObject), ChecksumType::FullObject),
    ];
    for (index, (algorithm, asked, expected)) in cases.into_iter().enumerate() {
        let key = format!("sum/{index}");
        let created = client
            .create_multipart_upload()
            .bucket(BUCKET)
            .key(&key)
            .checksum_algorithm(algorithm.clone())
            .set_checksum_type(asked)
            .send()
            .await
            .expect("created");
        assert_eq!(created.checksum_type(), Some(&expected));
        let id = created.upload_id().expect("an id");
        let upload = async |number, body: Vec<u8>| {
            let part = client
                .upload_part()
                .bucket(BUCKET)
                .key(&key)
                .upload_id(id)
                .part_number(number)
                .checksum_algorithm(algorithm.clone())
                .body(ByteStream::from(body))
                .send()
                .await
                .expect("a part");
            CompletedPart::builder()
                .part_number(number)
                .e_tag(part.e_tag().expect("an etag"))
                .set_checksum_crc32(part.checksum_crc32().map(str::to_owned))
                .set_checksum_sha256(part.checksum_sha256().map(str::to_owned))
                .set_checksum_crc64_nvme(part.checksum_crc64_nvme().map(str::to_owned))
                .build()
        };
        let parts = [upload(1, noise(5 * MIB)).await, upload(2, b"end".to_vec()).await];
        complete(&client, &key, id, &parts).send().await.expect("completed");
        // The SDK compares a checksum of the whole with the body, and leaves a composite one alone.
        let got = client
            .get_object()
            .bucket(BUCKET)
            .key(&key)
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .expect("get");
        assert_eq!(got.checksum_type(), Some(&expected));
        let composite = got.checksum_sha256().map(|value| value.ends_with("-2"));
        assert_eq!(composite, (expected == ChecksumType::Composite).then_some(true));
        assert_eq!(got.body.collect().await.expect("body").to_vec().len(), 5 * MIB + 3);
        let copied = client
            .copy_object()
            .bucket(BUCKET)
            .key(format!("copy/{index}"))
            .copy_source(format!("{BUCKET}/{key}"))
            .send()
            .await
            .expect("copy");
        let etag = copied
            .copy_object_result()
            .and_then(|result| result.e_tag())
            .map(str::to_owned)
            .expect("an etag");
        assert!(!etag.contains('-'), "a copy is one piece");
    }
    let created = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key("other")
        .checksum_algorithm(ChecksumAlgorithm::Sha256)
        .send()
        .await
        .expect("created");
    let another = client
        .upload_part()
        .bucket(BUCKET)
        .key("other")
        .upload_id(created.upload_id().expect("an id"))
        .part_number(1)
        .checksum_algorithm(ChecksumAlgorithm::Sha1)
        .body(ByteStream::from_static(b"x"))
        .send()
        .await;
    assert_eq!(code(&another.expect_err("another algorithm")), "InvalidRequest");
}

#[tokio::test]
async fn completing_at_the_same_time_answers_the_same() {
    let served = Served::new().await;
    let client = Arc::new(served.client());
    let id = Arc::new(create(&client, "x").await);
    let part = upload(&client, "x", &id, 1, noise(MIB)).await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, id, part) = (Arc::clone(&client), Arc::clone(&id), part.clone());
        requests.spawn(async move {
            let done = complete(&client, "x", &id, &[part]).send().await;
            done.expect("completed").e_tag().map(str::to_owned)
        });
    }
    let answers = requests.join_all().await;
    assert!(answers.iter().all(|etag| etag == &answers[0]), "{answers:?}");
    assert_eq!(get(&client, "x").await, Some(noise(MIB)));
}
