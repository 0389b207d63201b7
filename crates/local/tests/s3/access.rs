//! Credentials and session policies.

use crate::{ACCESS_KEY, BUCKET, OTHER, SECRET_KEY, Served, browser, code, get, put, status};
use aws_credential_types::Credentials as SdkCredentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use std::time::{Duration, SystemTime};
use stepwes_local::s3::{Policy, TemporaryCredential};

const ASIA: &str = "ASIATEMPORARY";
const ASIA_SECRET: &str = "a-temporary-secret";
const TOKEN: &str = "a-session-token";

fn sdk(access_key: &str, secret_key: &str, token: Option<&str>) -> SdkCredentials {
    SdkCredentials::new(access_key, secret_key, token.map(str::to_owned), None, "test")
}

/// Issues a temporary credential with these statements, for an hour from `from`.
fn issue(served: &Served, statements: &str, from: SystemTime) -> Client {
    let policy = format!(r#"{{"Version": "2012-10-17", "Statement": [{statements}]}}"#);
    served.credentials.add_temporary(TemporaryCredential {
        access_key: ASIA.to_owned(),
        secret_key: ASIA_SECRET.to_owned(),
        session_token: TOKEN.to_owned(),
        expires: from + Duration::from_secs(3600),
        policy: Policy::parse(&policy).expect("a policy"),
    });
    served.client_with(sdk(ASIA, ASIA_SECRET, Some(TOKEN)))
}

#[tokio::test]
async fn who_is_unknown_or_signs_wrongly_is_refused() {
    let served = Served::new().await;
    let everything = r#"{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}"#;
    issue(&served, everything, SystemTime::now());
    let cases = [
        (sdk("AKIANOBODY", "x", None), "InvalidAccessKeyId", 403),
        (sdk(ACCESS_KEY, "wrong", None), "SignatureDoesNotMatch", 403),
        (sdk(ACCESS_KEY, SECRET_KEY, Some("t")), "InvalidToken", 400),
        (sdk(ASIA, "wrong", Some(TOKEN)), "SignatureDoesNotMatch", 403),
        (sdk(ASIA, ASIA_SECRET, None), "InvalidToken", 400),
        (sdk(ASIA, ASIA_SECRET, Some("wrong")), "InvalidToken", 400),
    ];
    for (credentials, expected, expected_status) in cases {
        let client = served.client_with(credentials);
        let error = client
            .put_object()
            .bucket(BUCKET)
            .key("x")
            .body(ByteStream::from_static(b"x"))
            .send()
            .await
            .expect_err("refused");
        assert_eq!((code(&error).as_str(), status(&error)), (expected, expected_status));
        let error = client.list_objects_v2().bucket(BUCKET).send().await.expect_err("refused");
        assert_eq!(code(&error), expected);
    }
    assert_eq!(get(&served.client(), "x").await, None);
}

#[tokio::test]
async fn anonymous_requests_are_refused() {
    let served = Served::new().await;
    put(&served.client(), "x", "x").await;
    let http = browser();
    for path in ["", "/", "/stepwes-test", "/stepwes-test/x"] {
        let answer = http.get(format!("{}{path}", served.url)).send().await.expect("an answer");
        assert_eq!(answer.status(), 403, "{path}");
        assert!(answer.text().await.expect("xml").contains("AccessDenied"));
    }
    let answer = http
        .put(format!("{}/stepwes-test/x", served.url))
        .body("y")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 403);
    let old = http
        .get(format!("{}/stepwes-test/x", served.url))
        .header("authorization", format!("AWS {ACCESS_KEY}:c2lnbmF0dXJl"))
        .header("date", "Tue, 27 Mar 2007 19:36:42 +0000")
        .send()
        .await
        .expect("an answer");
    assert!(old.status().is_client_error(), "version 2 is not accepted");
}

#[tokio::test]
async fn expired_credentials_are_told_so_and_their_presigned_urls_die_with_them() {
    let served = Served::new().await;
    put(&served.client(), "x", "x").await;
    let everything = r#"{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}"#;
    let client = issue(&served, everything, SystemTime::now());
    assert!(get(&client, "x").await.is_some());
    let url = client
        .get_object()
        .bucket(BUCKET)
        .key("x")
        .presigned(PresigningConfig::expires_in(Duration::from_secs(600)).expect("a time"))
        .await
        .expect("a url");
    let http = browser();
    let before = http.get(url.uri()).send().await.expect("an answer");
    assert_eq!(before.status(), 200);

    let two_hours_ago = SystemTime::now() - Duration::from_secs(7200);
    issue(&served, everything, two_hours_ago);
    let error = client.get_object().bucket(BUCKET).key("x").send().await.expect_err("expired");
    assert_eq!(code(&error), "ExpiredToken");
    let after = http.get(url.uri()).send().await.expect("an answer");
    assert_eq!(after.status(), 400);
    assert!(after.text().await.expect("xml").contains("ExpiredToken"));
}

#[tokio::test]
async fn a_session_policy_bounds_what_may_be_read_and_written() {
    let served = Served::new().await;
    let owner = served.client();
    for key in ["in/a", "out/1/old", "out/2/x"] {
        put(&owner, key, key).await;
    }
    let client = issue(
        &served,
        r#"{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::stepwes-test/in/*"},
           {"Effect": "Allow", "Action": ["s3:PutObject", "s3:AbortMultipartUpload"], "Resource": "arn:aws:s3:::stepwes-test/out/1/*"},
           {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::stepwes-test",
            "Condition": {"StringLike": {"s3:prefix": "out/1/*"}}}"#,
        SystemTime::now(),
    );
    assert!(get(&client, "in/a").await.is_some());
    client
        .head_object()
        .bucket(BUCKET)
        .key("in/a")
        .send()
        .await
        .expect("HEAD needs what GET needs");
    put(&client, "out/1/new", "new").await;
    let listed =
        client.list_objects_v2().bucket(BUCKET).prefix("out/1/").send().await.expect("listed");
    assert_eq!(listed.contents().len(), 2);
    let upload = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key("out/1/big")
        .send()
        .await
        .expect("created");
    client
        .abort_multipart_upload()
        .bucket(BUCKET)
        .key("out/1/big")
        .upload_id(upload.upload_id().expect("an id"))
        .send()
        .await
        .expect("aborted");
    client
        .copy_object()
        .bucket(BUCKET)
        .key("out/1/copy")
        .copy_source(format!("{BUCKET}/in/a"))
        .send()
        .await
        .expect("copied");

    let get_of = async |key: &str| {
        let answer = client.get_object().bucket(BUCKET).key(key).send().await;
        code(&answer.expect_err("refused"))
    };
    assert_eq!(get_of("out/1/new").await, "AccessDenied");
    assert_eq!(get_of("out/2/x").await, "AccessDenied");
    assert_eq!(get_of("in/none").await, "AccessDenied", "who may not list learns nothing");
    let put_to = async |bucket: &str, key: &str| {
        let answer = client.put_object().bucket(bucket).key(key).send().await;
        code(&answer.expect_err("refused"))
    };
    assert_eq!(put_to(BUCKET, "in/a").await, "AccessDenied");
    assert_eq!(put_to(BUCKET, "out/2/x").await, "AccessDenied");
    assert_eq!(put_to(OTHER, "out/1/x").await, "AccessDenied");
    for prefix in [None, Some(""), Some("out/"), Some("out/2/")] {
        let answer = client
            .list_objects_v2()
            .bucket(BUCKET)
            .set_prefix(prefix.map(str::to_owned))
            .send()
            .await;
        assert_eq!(code(&answer.expect_err("refused")), "AccessDenied");
    }
    let copy = async |from: &str, to: &str| {
        let answer = client
            .copy_object()
            .bucket(BUCKET)
            .key(to)
            .copy_source(format!("{BUCKET}/{from}"))
            .send()
            .await;
        code(&answer.expect_err("refused"))
    };
    assert_eq!(copy("out/2/x", "out/1/y").await, "AccessDenied", "the source counts");
    assert_eq!(copy("in/a", "out/2/y").await, "AccessDenied", "and so does the target");
    let deleted = client.delete_object().bucket(BUCKET).key("out/1/old").send().await;
    assert_eq!(code(&deleted.expect_err("refused")), "AccessDenied");
    assert_eq!(code(&client.list_buckets().send().await.expect_err("refused")), "AccessDenied");
}

#[tokio::test]
async fn deleting_many_asks_for_each_key() {
    let served = Served::new().await;
    let owner = served.client();
    for key in ["mine/1", "yours/1"] {
        put(&owner, key, key).await;
    }
    let client = issue(
        &served,
        r#"{"Effect": "Allow", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::stepwes-test/mine/*"}"#,
        SystemTime::now(),
    );
    let objects = ["mine/1", "yours/1"]
        .map(|key| ObjectIdentifier::builder().key(key).build().expect("a key"));
    let done = client
        .delete_objects()
        .bucket(BUCKET)
        .delete(Delete::builder().set_objects(Some(objects.to_vec())).build().expect("keys"))
        .send()
        .await
        .expect("answered");
    let deleted: Vec<_> = done.deleted().iter().filter_map(|d| d.key()).collect();
    assert_eq!(deleted, ["mine/1"]);
    let errors: Vec<_> = done
        .errors()
        .iter()
        .map(|e| (e.key().unwrap_or_default(), e.code().unwrap_or_default()))
        .collect();
    assert_eq!(errors, [("yours/1", "AccessDenied")]);
    assert!(get(&owner, "yours/1").await.is_some());
}

#[tokio::test]
async fn who_may_list_learns_that_an_object_is_missing() {
    let served = Served::new().await;
    let client = issue(
        &served,
        r#"{"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}"#,
        SystemTime::now(),
    );
    assert_eq!(get(&client, "none").await, None);
}
