//! S3 as far as the API functions use it, on a map.

use std::hash::{Hash as _, Hasher as _};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderName, Method, StatusCode, Uri, header, request::Parts};
use percent_encoding::percent_decode_str;

use super::{BUCKET, Inner};

/// How many keys a page of a listing has: few, so that tests see more than one.
const PAGE: usize = 3;

const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");

/// The operation that a request is.
pub(super) fn operation(method: &Method, uri: &Uri) -> &'static str {
    let in_bucket = uri.path().trim_start_matches('/').contains('/');
    match (method, in_bucket && !uri.path().ends_with(&format!("{BUCKET}/"))) {
        (&Method::PUT, true) => "PutObject",
        (&Method::GET, true) => "GetObject",
        (&Method::GET, false) => "ListObjectsV2",
        (&Method::HEAD, true) => "HeadObject",
        (&Method::DELETE, true) => "DeleteObject",
        (&Method::POST, false) if uri.query() == Some("delete") => "DeleteObjects",
        other => panic!("S3 is not asked for {other:?} {uri}"),
    }
}

pub(super) fn serve(inner: &mut Inner, operation: &str, parts: &Parts, body: Bytes) -> Response {
    let path = percent_decode_str(parts.uri.path()).decode_utf8().expect("a UTF-8 key");
    let key = path.strip_prefix(&format!("/{BUCKET}/")).map_or_else(
        // Of another bucket.
        || path.to_string(),
        str::to_owned,
    );
    assert!(key.len() <= stepwes_core::keys::MAX_KEY_BYTES, "S3 has no such keys: {key}");
    let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    match operation {
        "PutObject" if header(COPY_SOURCE).is_some() => {
            let source = header(COPY_SOURCE).expect("just seen");
            let source = percent_decode_str(source).decode_utf8().expect("a UTF-8 key");
            let source = source.strip_prefix(&format!("{BUCKET}/")).expect("of the runs bucket");
            match inner.objects.get(source).cloned() {
                None => no_such_key(),
                Some((content, content_type)) => {
                    inner.put(&key, content, content_type);
                    "<CopyObjectResult><ETag>x</ETag></CopyObjectResult>".into_response()
                }
            }
        }
        "DeleteObjects" => {
            let body = String::from_utf8(body.to_vec()).expect("XML");
            for part in body.split("<Key>").skip(1) {
                let key = part.split("</Key>").next().expect("closed").replace("&amp;", "&");
                inner.objects.remove(&key);
            }
            "<DeleteResult></DeleteResult>".into_response()
        }
        "PutObject" => {
            let content_type = header(header::CONTENT_TYPE).unwrap_or_default().to_owned();
            inner.put(&key, body, content_type);
            StatusCode::OK.into_response()
        }
        "DeleteObject" => {
            inner.objects.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        "ListObjectsV2" => list(inner, parts.uri.query().unwrap_or_default()),
        _ => match inner.objects.get(&key) {
            None => no_such_key(),
            Some((content, content_type)) => {
                let etag = etag(content);
                let version = inner.versions.get(&key).copied().unwrap_or_default();
                let modified = format!("Mon, 01 Jan 2026 00:00:{version:02} GMT");
                let told = [(header::ETAG, etag), (header::LAST_MODIFIED, modified)];
                let range = header(header::RANGE).map(|range| parse(range, content.len()));
                let content = range.clone().map_or(content.clone(), |range| content.slice(range));
                let status =
                    if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
                let length = [(header::CONTENT_LENGTH, content.len().to_string())];
                let content_type = [(header::CONTENT_TYPE, content_type.clone())];
                (status, told, length, content_type, Body::from(content)).into_response()
            }
        },
    }
}

fn no_such_key() -> Response {
    let body = "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>";
    (StatusCode::NOT_FOUND, body).into_response()
}

/// An ETag with its quotes: another one for another content.
fn etag(content: &Bytes) -> String {
    let mut hash = std::hash::DefaultHasher::new();
    content.hash(&mut hash);
    format!("\"{:016x}\"", hash.finish())
}

fn parse(range: &str, len: usize) -> std::ops::Range<usize> {
    let (first, last) =
        range.strip_prefix("bytes=").and_then(|r| r.split_once('-')).expect("a range");
    let last: usize = last.parse().expect("a number");
    first.parse().expect("a number")..(last + 1).min(len)
}

fn list(inner: &mut Inner, query: &str) -> Response {
    let parameter = |name: &str| {
        query.split('&').find_map(|pair| {
            let value = pair.strip_prefix(name)?.strip_prefix('=')?;
            Some(percent_decode_str(value).decode_utf8().expect("UTF-8").into_owned())
        })
    };
    let prefix = parameter("prefix").unwrap_or_default();
    let after = parameter("continuation-token").unwrap_or_default();
    let mut found = inner
        .objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix) && **key > after)
        .peekable();
    let escaped = |key: &str| key.replace('&', "&amp;").replace('<', "&lt;");
    let mut last = String::new();
    let mut contents = String::new();
    for (key, (content, _)) in found.by_ref().take(PAGE) {
        last = escaped(key);
        contents.push_str(&format!(
            "<Contents><Key>{last}</Key><Size>{}</Size><ETag>{}</ETag></Contents>",
            content.len(),
            etag(content).replace('"', "&quot;")
        ));
    }
    let more = if found.peek().is_some() {
        format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
        )
    } else {
        "<IsTruncated>false</IsTruncated>".to_owned()
    };
    for key in std::mem::take(&mut inner.vanishing) {
        if let Some(object) = inner.objects.remove(&key)
            && let Some((whole, _)) = key.split_once(".segments/")
        {
            inner.objects.insert(whole.to_owned(), object);
        }
    }
    let namespace = "http://s3.amazonaws.com/doc/2006-03-01/";
    format!("<ListBucketResult xmlns=\"{namespace}\">{contents}{more}</ListBucketResult>")
        .into_response()
}
