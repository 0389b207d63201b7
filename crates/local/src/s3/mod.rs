//! The embedded S3: buckets in a plain folder, behind the S3 protocol as [`s3s`] speaks it.
//!
//! A person finds the object `outputs/<id>/1/a.txt` of bucket `b` as the file
//! `<root>/b/outputs/<id>/1/a.txt`, and a file put there by hand is an object. Keys that cannot be
//! paths are escaped (`names`); what else S3 knows of an object lies apart (`meta`); nothing is ever
//! written or read outside of the root folder, nor through a symbolic link in it.
//!
//! Supported: objects (put, get with one range, head, delete, delete of many, copy; conditional
//! requests, MD5 and flexible checksums, presigned URLs), `ListObjects` and `ListObjectsV2`,
//! multipart uploads, `ListBuckets`, `HeadBucket`, `GetBucketLocation`. Other operations, and
//! parameters that would need them (versions, encryption, tags, ACLs, …), answer `NotImplemented`.
//!
//! One process at a time may have a root open.

mod access;
mod checksum;
mod copy;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod journal;
mod landing;
mod lifecycle;
mod listing;
mod meta;
mod multipart;
mod names;
mod object;
mod ops;
mod parts;
mod policy;
mod store;
mod stream;
mod temp;
mod upload;
mod walk;

pub use access::{CallHook, Credentials, TemporaryCredential};
pub use landing::{Present, place_of, present_below};
pub use lifecycle::Expiration;
pub use policy::{Policy, PolicyError};

use axum::body::Body;
use http::{Method, Request, Response, StatusCode, header};
use s3s::S3ErrorCode;
use s3s::service::{S3Service, S3ServiceBuilder};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Called after an object has been created or replaced.
pub type CreatedHook = Arc<dyn Fn(&ObjectCreated) + Send + Sync>;

/// An object that has been created or replaced, as S3's `Object Created` event tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectCreated {
    /// The bucket's name.
    pub bucket: String,
    /// The object's key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
}

/// What to tell others of.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Called with each operation's name (such as `PutObject`) once its signature is verified,
    /// before it is decided whether the caller may.
    pub on_call: Option<CallHook>,
    /// Called after an object has been created or replaced, by whichever operation.
    pub on_created: Option<CreatedHook>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks")
            .field("on_call", &self.on_call.is_some())
            .field("on_created", &self.on_created.is_some())
            .finish()
    }
}

/// Why the embedded S3 could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be created, read or written.
    #[error("cannot use the S3 folder {}: {source}; give this user read and write access to it", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the file system says.
        source: std::io::Error,
    },
    /// What a power cut left cannot be put right.
    #[error(
        "cannot read back what was written before the machine went down: {0}; free some space, and give this user read and write access to the S3 folder"
    )]
    Journal(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A bucket's folder is a symbolic link or a file.
    #[error("{} must be a folder, not a link or file; link or mount the folder around it instead", .0.display())]
    Link(PathBuf),
    /// Not a name that S3 allows.
    #[error("{0:?} is not a bucket name: use 3 to 63 lower-case letters, digits, dots and hyphens")]
    BucketName(String),
}

/// The embedded S3. Cheap to clone; all clones are the same one. It is also a [`tower::Service`],
/// so that a router can fall back to it.
///
/// It expects path-style requests (`/<bucket>/<key>`), with the path and query as they were signed.
/// A request with both an `Authorization` header and a presigned query is refused or misread, as by
/// S3: whoever puts another service in front strips the header.
#[derive(Debug, Clone)]
pub struct S3Endpoint {
    service: S3Service,
    store: Arc<store::Store>,
    uploads: Arc<multipart::Uploads>,
}

impl S3Endpoint {
    /// Opens the folder `root` with these buckets, created as needed; only they exist. Removes what
    /// an earlier process left half written. Blocks for a few system calls.
    ///
    /// # Errors
    /// [`OpenError`] when a folder cannot be used, or a bucket's name is not one.
    pub fn open(
        root: &Path,
        buckets: &[&str],
        credentials: Arc<Credentials>,
        hooks: Hooks,
    ) -> Result<Self, OpenError> {
        let store = Arc::new(store::Store::open(root, buckets)?);
        let uploads = Arc::new(multipart::Uploads::new(Arc::clone(&store)));
        let operations =
            ops::Operations::new(Arc::clone(&store), Arc::clone(&uploads), hooks.on_created);
        let mut builder = S3ServiceBuilder::new(operations);
        builder.set_auth(access::Auth(Arc::clone(&credentials)));
        builder.set_access(access::Access { credentials, on_call: hooks.on_call });
        Ok(Self { service: builder.build(), store, uploads })
    }

    /// Answers one S3 request.
    pub async fn call(&self, mut request: Request<Body>) -> Response<Body> {
        join_content_encodings(request.headers_mut());
        // s3s takes a form's file into memory before it asks whether the sender may.
        if request.method() == Method::POST && is_form(request.headers()) {
            return refuse_form();
        }
        let answer = self.service.call(request.map(s3s::Body::http_body_unsync));
        match answer.await {
            Ok(answer) if answer.status() == StatusCode::NOT_MODIFIED => {
                // It has no body, so it must not announce one.
                let (mut parts, _) = answer.into_parts();
                parts.headers.remove(header::CONTENT_LENGTH);
                parts.headers.remove(header::CONTENT_TYPE);
                Response::from_parts(parts, Body::empty())
            }
            Ok(answer) => answer.map(Body::new),
            Err(error) => {
                let source: Box<dyn std::error::Error + Send + Sync> = error.into();
                tracing::error!(%source, "the embedded S3 could not answer a request");
                plain_answer(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

impl tower::Service<Request<Body>> for S3Endpoint {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let endpoint = self.clone();
        Box::pin(async move { Ok(Self::call(&endpoint, request).await) })
    }
}

/// The SDK sends `aws-chunked` in a header of its own beside the object's encoding. s3s refuses
/// two; joined as the signature joins them, they mean the same.
fn join_content_encodings(headers: &mut http::HeaderMap) {
    let given: Vec<&[u8]> =
        headers.get_all(header::CONTENT_ENCODING).iter().map(http::HeaderValue::as_bytes).collect();
    if given.len() < 2 {
        return;
    }
    // Joining valid values gives a valid one.
    if let Ok(joined) = http::HeaderValue::from_bytes(&given.join(&b","[..])) {
        headers.insert(header::CONTENT_ENCODING, joined);
    }
}

fn is_form(headers: &http::HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.trim_start().to_ascii_lowercase().starts_with("multipart/form-data")
    })
}

fn refuse_form() -> Response<Body> {
    let error = s3s::S3Error::with_message(
        S3ErrorCode::NotImplemented,
        "Uploads by HTML form are not supported. Use PUT.",
    );
    match error.to_http_response() {
        Ok(answer) => answer.map(Body::new),
        Err(_) => plain_answer(StatusCode::NOT_IMPLEMENTED),
    }
}

fn plain_answer(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}
