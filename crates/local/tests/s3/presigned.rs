//! Presigned URLs, used by a client that knows nothing of AWS.

use crate::{BUCKET, Served, browser, get, put};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use std::time::{Duration, SystemTime};

fn soon() -> PresigningConfig {
    PresigningConfig::expires_in(Duration::from_secs(600)).expect("a time")
}

async fn send(request: &PresignedRequest, body: Option<&'static str>) -> reqwest::Response {
    let method = reqwest::Method::from_bytes(request.method().as_bytes()).expect("a method");
    let mut plain = browser().request(method, request.uri());
    for (name, value) in request.headers() {
        plain = plain.header(name, value);
    }
    if let Some(body) = body {
        plain = plain.body(body);
    }
    plain.send().await.expect("an answer")
}

#[tokio::test]
async fn a_presigned_get_honours_the_headers_signed_into_it() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "a b/ü+%.txt", "hello").await;
    let url = client
        .get_object()
        .bucket(BUCKET)
        .key("a b/ü+%.txt")
        .response_content_type("text/html")
        .response_content_disposition("attachment; filename=\"ü.txt\"")
        .response_cache_control("no-cache")
        .presigned(soon())
        .await
        .expect("a url");
    let answer = send(&url, None).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/html");
    assert_eq!(answer.headers()["cache-control"], "no-cache");
    let disposition = answer.headers()["content-disposition"].as_bytes();
    assert!(disposition.starts_with(b"attachment; filename="));
    assert_eq!(answer.text().await.expect("a body"), "hello");
    let range =
        browser().get(url.uri()).header("range", "bytes=1-2").send().await.expect("an answer");
    assert_eq!(range.status(), 206);
    assert_eq!(range.text().await.expect("a body"), "el");
    let changed = url.uri().replace("text%2Fhtml", "text%2Fplain");
    let refused = browser().get(changed).send().await.expect("an answer");
    assert_eq!(refused.status(), 403);
    assert!(refused.text().await.expect("xml").contains("SignatureDoesNotMatch"));
}

#[tokio::test]
async fn a_presigned_put_takes_a_body() {
    let served = Served::new().await;
    let client = served.client();
    let url = client
        .put_object()
        .bucket(BUCKET)
        .key("up/load")
        .content_type("text/x-up")
        .presigned(soon())
        .await
        .expect("a url");
    let answer = send(&url, Some("uploaded")).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    assert_eq!(get(&client, "up/load").await.as_deref(), Some(&b"uploaded"[..]));
    let head = client.head_object().bucket(BUCKET).key("up/load").send().await.expect("head");
    assert_eq!(head.content_type(), Some("text/x-up"));
}

#[tokio::test]
async fn a_presigned_put_cannot_be_turned_into_another_request() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "secret", "secret").await;
    let url =
        client.put_object().bucket(BUCKET).key("mine").presigned(soon()).await.expect("a url");
    for (name, value) in [("x-amz-copy-source", "stepwes-test/secret"), ("x-amz-meta-added", "1")] {
        let answer =
            browser().put(url.uri()).header(name, value).body("").send().await.expect("an answer");
        assert_eq!(answer.status(), 403);
        let text = answer.text().await.expect("xml");
        assert!(text.contains("not signed") && text.contains(name), "{text}");
    }
    let other_key = url.uri().replace("/mine", "/secret");
    let answer = browser().put(other_key).body("x").send().await.expect("an answer");
    assert_eq!(answer.status(), 403);
    assert_eq!(get(&client, "mine").await, None);
    assert_eq!(get(&client, "secret").await.as_deref(), Some(&b"secret"[..]));
}

#[tokio::test]
async fn a_presigned_url_expires() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "x", "x").await;
    let past = PresigningConfig::builder()
        .start_time(SystemTime::now() - Duration::from_secs(120))
        .expires_in(Duration::from_secs(60))
        .build()
        .expect("a time");
    let url = client.get_object().bucket(BUCKET).key("x").presigned(past).await.expect("a url");
    let answer = send(&url, None).await;
    assert_eq!(answer.status(), 403);
    assert!(answer.text().await.expect("xml").contains("expired"));
}

#[tokio::test]
async fn an_upload_of_unknown_length_is_refused() {
    let served = Served::new().await;
    let client = served.client();
    let url = client.put_object().bucket(BUCKET).key("x").presigned(soon()).await.expect("a url");
    let pieces = futures::stream::iter([Ok::<_, std::io::Error>("piece")]);
    let answer = browser()
        .put(url.uri())
        .body(reqwest::Body::wrap_stream(pieces))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 411);
    assert_eq!(get(&client, "x").await, None);
}
