//! A workflow from elsewhere: `http(s)://` with time-outs and a size limit, and `s3://`.

use std::{path::Path, time::Duration};

use percent_encoding::percent_decode_str;
use reqwest::{Client, StatusCode};
use stepwes_core::attachment::AttachmentName;
use tokio::io::AsyncWriteExt as _;
use tracing::warn;
use url::Url;

use crate::{
    bucket::{Bucket, Fault},
    config::Limits,
    error::{Failure, chain},
    http,
};

/// The name of a workflow whose URL names no file.
const UNNAMED: &str = "workflow";

/// The name that a workflow from `url` gets in the execution folder: its last path segment.
pub(crate) fn file_name(url: &Url) -> String {
    let last = url.path().rsplit('/').next().unwrap_or_default();
    let decoded = percent_decode_str(last).decode_utf8_lossy();
    match AttachmentName::parse(Some(&decoded), 1) {
        Ok(name) if !name.as_str().contains('/') => name.as_str().to_owned(),
        _ => UNNAMED.to_owned(),
    }
}

/// The URL as it may be shown: without a user's name and password, and without the query, which
/// may be a signature.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that have no room for them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if url.query().is_some() {
        url.set_query(Some("…"));
    }
    url.set_fragment(None);
    url.to_string()
}

/// Downloads the workflow at `url` into the file at `path`.
///
/// # Errors
/// [`Failure::Request`] naming the URL and what is wrong with it; [`Failure::Service`] when it
/// cannot be stored.
pub(crate) async fn fetch(
    url: &Url,
    path: &Path,
    bucket: &Bucket,
    limits: &Limits,
) -> Result<(), Failure> {
    match url.scheme() {
        "http" | "https" => in_time(url, path, limits).await,
        "s3" => s3(url, path, bucket, limits).await,
        other => Err(Failure::Request(format!(
            "workflow_url {}: the scheme {other:?} is not supported; supported: http, https, s3",
            shown(url)
        ))),
    }
}

async fn s3(url: &Url, path: &Path, bucket: &Bucket, limits: &Limits) -> Result<(), Failure> {
    let wrong = |what: &str| Failure::Request(format!("workflow_url {}: {what}", shown(url)));
    let (Some(name), Ok(key)) =
        (url.host_str(), percent_decode_str(url.path().trim_start_matches('/')).decode_utf8())
    else {
        return Err(wrong("it must be s3://bucket/key"));
    };
    if key.is_empty() {
        return Err(wrong("it names no object"));
    }
    match bucket.download(Some(name), &key, path, limits.fetch_bytes).await {
        Ok(_) => Ok(()),
        Err(Fault::Missing(text) | Fault::Refused(text)) => Err(wrong(&text)),
        Err(fault) => Err(fault.of_service("staging the workflow")),
    }
}

/// Why one try did not succeed.
enum Trouble {
    /// Trying again may help.
    Passing(String),
    /// It will not.
    Settled(Failure),
}

/// A server that sends a byte now and then must not keep a run waiting for days.
async fn in_time(url: &Url, path: &Path, limits: &Limits) -> Result<(), Failure> {
    let fetched = tokio::time::timeout(limits.fetch_total, over_http(url, path, limits));
    fetched.await.unwrap_or_else(|_| {
        Err(Failure::Request(format!(
            "workflow_url {} could not be fetched within {} s",
            shown(url),
            limits.fetch_total.as_secs()
        )))
    })
}

async fn over_http(url: &Url, path: &Path, limits: &Limits) -> Result<(), Failure> {
    let client = http::builder()
        .connect_timeout(limits.fetch_connect)
        .read_timeout(limits.fetch_idle)
        .build()
        .map_err(|error| {
            Failure::Service(format!("no HTTP client can be made: {}", chain(&error)))
        })?;
    let mut pause = Duration::from_secs(1);
    let mut tries = 1;
    loop {
        match try_http(&client, url, path, limits).await {
            Ok(()) => return Ok(()),
            Err(Trouble::Settled(failure)) => return Err(failure),
            Err(Trouble::Passing(text)) if tries >= limits.fetch_tries => {
                return Err(Failure::Request(format!(
                    "workflow_url {} could not be fetched in {tries} tries: {text}",
                    shown(url)
                )));
            }
            Err(Trouble::Passing(text)) => warn!("the workflow's server: {text}; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
        tries += 1;
    }
}

async fn try_http(client: &Client, url: &Url, path: &Path, limits: &Limits) -> Result<(), Trouble> {
    let settled = |text: String| {
        Trouble::Settled(Failure::Request(format!("workflow_url {}: {text}", shown(url))))
    };
    let full =
        |error: std::io::Error| Trouble::Settled(Failure::local("staging the workflow", &error));
    let network = |error: reqwest::Error| {
        let silent = error.is_timeout() && !error.is_connect();
        let text = chain(&error.without_url());
        Trouble::Passing(if silent {
            format!("the server said nothing for {} s", limits.fetch_idle.as_secs())
        } else {
            text
        })
    };
    let mut answer = client.get(url.clone()).send().await.map_err(network)?;
    let status = answer.status();
    if !status.is_success() {
        let text = format!("the server answered {status}");
        let passing = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        return Err(if passing { Trouble::Passing(text) } else { settled(text) });
    }
    let too_large = || settled(format!("it is larger than {} bytes", limits.fetch_bytes));
    if answer.content_length().is_some_and(|length| length > limits.fetch_bytes) {
        return Err(too_large());
    }
    let mut file = tokio::fs::File::create(path).await.map_err(full)?;
    let mut size = 0;
    while let Some(piece) = answer.chunk().await.map_err(network)? {
        size += piece.len() as u64;
        if size > limits.fetch_bytes {
            return Err(too_large());
        }
        file.write_all(&piece).await.map_err(full)?;
    }
    file.flush().await.map_err(full)
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode as Status, routing::get};
    use tokio::net::TcpListener;

    use super::*;

    fn limits() -> Limits {
        Limits {
            fetch_connect: Duration::from_millis(500),
            fetch_idle: Duration::from_millis(200),
            fetch_tries: 1,
            fetch_bytes: 1000,
            ..Limits::default()
        }
    }

    async fn serve(router: Router) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Url::parse(&format!("http://{address}/")).expect("a URL")
    }

    fn reason(result: Result<(), Failure>) -> String {
        match result {
            Err(Failure::Request(reason)) => reason,
            other => panic!("not the request's fault: {other:?}"),
        }
    }

    #[test]
    fn the_file_is_named_by_the_path() {
        for (url, name) in [
            ("https://example.org/a/b.cwl?raw=1#main", "b.cwl"),
            ("https://example.org/a/b%20c.cwl", "b c.cwl"),
            ("s3://bucket/x/main.cwl", "main.cwl"),
            ("https://example.org/", UNNAMED),
            ("https://example.org/%2e%2e%2fetc%2fpasswd", UNNAMED),
            ("https://example.org/..%2f", UNNAMED),
            ("https://example.org/wes_inputs.json", UNNAMED),
        ] {
            assert_eq!(file_name(&Url::parse(url).expect(url)), name, "{url}");
        }
    }

    #[test]
    fn secrets_in_a_url_are_not_shown() {
        let url = Url::parse("https://me:secret@example.org/a.cwl?token=secret#x").expect("a URL");
        assert_eq!(shown(&url), "https://example.org/a.cwl?%E2%80%A6");
    }

    #[tokio::test]
    async fn any_content_type_is_stored_as_it_comes() {
        let router = Router::new()
            .route("/a.zip", get(|| async { ([("content-type", "application/zip")], "PK\0") }));
        let url = serve(router).await.join("a.zip").expect("a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        over_http(&url, file.path(), &limits()).await.expect("fetched");
        assert_eq!(std::fs::read(file.path()).expect("read"), b"PK\0");
    }

    #[tokio::test]
    async fn a_missing_workflow_is_told_with_url_and_status() {
        let url = serve(Router::new()).await.join("gone.cwl").expect("a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let reason = reason(over_http(&url, file.path(), &limits()).await);
        assert!(reason.contains(url.as_str()) && reason.contains("404"), "{reason}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/a.cwl", listener.local_addr().expect("an address"));
        let file = tempfile::NamedTempFile::new().expect("a file");
        let result = over_http(&Url::parse(&url).expect("a URL"), file.path(), &limits()).await;
        assert!(reason(result).contains("the server said nothing"));
    }

    #[tokio::test]
    async fn a_server_that_drips_is_given_up_in_time() {
        let drip = || async {
            let drops = futures::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok::<_, std::io::Error>("x"), ()))
            });
            axum::body::Body::from_stream(drops)
        };
        let url = serve(Router::new().route("/a.cwl", get(drip))).await.join("a.cwl");
        let url = url.expect("a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let limits =
            Limits { fetch_total: Duration::from_secs(1), fetch_bytes: u64::MAX, ..limits() };
        let reason = reason(in_time(&url, file.path(), &limits).await);
        assert!(reason.contains(url.as_str()) && reason.contains("within 1 s"), "{reason}");
    }

    #[tokio::test]
    async fn a_server_that_stumbles_is_asked_again() {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = asked.clone();
        let router = Router::new().route(
            "/a.cwl",
            get(move || async move {
                match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                    0 => (Status::BAD_GATEWAY, "no"),
                    _ => (Status::OK, "yes"),
                }
            }),
        );
        let url = serve(router).await.join("a.cwl").expect("a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        over_http(&url, file.path(), &Limits { fetch_tries: 2, ..limits() })
            .await
            .expect("fetched");
        assert_eq!(std::fs::read(file.path()).expect("read"), b"yes");
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused() {
        let router = Router::new().route("/a.cwl", get(|| async { "x".repeat(1001) }));
        let url = serve(router).await.join("a.cwl").expect("a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let result = over_http(&url, file.path(), &limits()).await;
        assert!(reason(result).contains("larger than 1000 bytes"));
    }

    #[tokio::test]
    async fn a_full_disk_is_the_service_s_fault() {
        let router = Router::new().route("/a.cwl", get(|| async { "workflow" }));
        let url = serve(router).await.join("a.cwl").expect("a URL");
        let result = over_http(&url, Path::new("/dev/full"), &limits()).await;
        let Err(Failure::Service(reason)) = result else { panic!("{result:?}") };
        assert!(reason.contains("disk is full"), "{reason}");
    }
}
