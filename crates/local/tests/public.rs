//! The public port: the API, presigned URLs, and other sites' pages.

mod common;

use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use reqwest::{Method, StatusCode, header};
use stepwes_local::arn;

use common::{serve, serve_with, submit, until_state};

fn expiry() -> PresigningConfig {
    PresigningConfig::expires_in(Duration::from_secs(60)).expect("a time")
}

#[tokio::test]
async fn presigned_urls_work_on_the_public_port_and_nothing_else_of_s3_does() {
    let rig = serve("exit 0").await;
    let url = rig.server.url();
    let s3 = rig.server.aws().s3_presigner(Some(url));
    let put = s3.put_object().bucket(arn::BUCKET).key("work/a b").presigned(expiry()).await;
    let client = common::http();
    let put = put.expect("signed");
    assert!(put.uri().starts_with(url));
    let answer = client.put(put.uri()).body("hello").send().await.expect("answered");
    assert_eq!(answer.status(), StatusCode::OK);
    let get = s3.get_object().bucket(arn::BUCKET).key("work/a b").presigned(expiry()).await;
    let get = get.expect("signed");
    // A browser sends the credentials of the page along, and the caller may use another name.
    for uri in [get.uri().to_owned(), get.uri().replacen("127.0.0.1", "localhost", 1)] {
        let answer = client
            .get(uri)
            .header(header::AUTHORIZATION, "Basic eDp5")
            .send()
            .await
            .expect("answered");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.text().await.expect("text"), "hello");
    }
    let other = get.uri().replace("work/a%20b", "work/other");
    assert_eq!(client.get(other).send().await.expect("answered").status(), StatusCode::FORBIDDEN);
    let answer = client.put(get.uri()).body("x").send().await.expect("answered");
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    for path in [format!("/{}/work/a%20b", arn::BUCKET), format!("/{}", arn::BUCKET)] {
        let answer = client.get(format!("{url}{path}")).send().await.expect("answered");
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        let told: serde_json::Value = answer.json().await.expect("JSON");
        assert_eq!(told["status_code"], 404);
    }
    let answer = client
        .post(url)
        .header("x-amz-target", "DynamoDB_20120810.GetItem")
        .body("{}")
        .send()
        .await
        .expect("answered");
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
}

/// Not a test: the engine task of the next one.
#[tokio::test]
#[ignore = "is run by the server"]
async fn stub_engine() {
    common::stub::run().await;
}

#[tokio::test]
async fn a_redirect_to_a_file_goes_to_the_host_that_the_caller_used() {
    let rig = serve(&common::stub_engine(&[("STUB_OUTPUT", "an output")])).await;
    let run = submit(rig.server.url()).await;
    until_state(rig.server.url(), &run, "COMPLETE").await;
    let by_name = rig.server.url().replace("127.0.0.1", "localhost");
    let client = common::http_builder().redirect(reqwest::redirect::Policy::none()).build();
    let client = client.expect("a client");
    for base in [rig.server.url(), &by_name] {
        let path = format!("{base}/ga4gh/wes/v1/runs/{run}/outputs/{}", common::stub::OUTPUT);
        let answer = client.get(path).send().await.expect("answered");
        assert!(answer.status().is_redirection(), "{answer:?}");
        let location = answer.headers()[header::LOCATION].to_str().expect("text").to_owned();
        assert!(location.starts_with(base), "{location}");
        let file = client.get(location).send().await.expect("answered");
        assert_eq!(file.text().await.expect("text"), "an output");
    }
}

#[tokio::test]
async fn other_sites_are_refused() {
    let rig = serve_with("exit 0", |options| {
        options.public_url = Some("https://wes.example.org".to_owned());
    })
    .await;
    let runs = format!("{}/ga4gh/wes/v1/runs", rig.server.url());
    let ask = |method: Method, name: &'static str, value: &'static str| {
        common::http().request(method, &runs).header(name, value).send()
    };
    let get = ask(Method::GET, "host", "evil.example.com").await.expect("answered");
    assert_eq!(get.status(), StatusCode::FORBIDDEN);
    let told: serde_json::Value = get.json().await.expect("JSON");
    assert_eq!(told["status_code"], 403);
    assert!(told["msg"].as_str().is_some_and(|text| text.contains("evil.example.com")), "{told}");
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let post = ask(Method::POST, name, value).await.expect("answered");
        assert_eq!(post.status(), StatusCode::FORBIDDEN, "{name}");
        let get = ask(Method::GET, name, value).await.expect("answered");
        assert_eq!(get.status(), StatusCode::OK, "{name}");
    }
    for (name, value) in [("host", "wes.example.org"), ("origin", "https://wes.example.org")] {
        let post = ask(Method::POST, name, value).await.expect("answered");
        assert_ne!(post.status(), StatusCode::FORBIDDEN, "{name}");
    }
}
