//! Taking a body in: to a file, in pieces, hashed on the way, and compared with what was announced.

use super::checksum::{Algorithm, Announced, StoredChecksum, content_md5};
use super::error::{IoContext as _, StoreError, StoreResult};
use super::store::Store;
use super::temp::TempFile;
use bytes::Bytes;
use futures::StreamExt as _;
use http::HeaderMap;
use md5::{Digest as _, Md5};
use s3s::checksum::ChecksumHasher;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, TrailingHeaders, s3_error};
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_blocking};

/// How much is gathered before it is written; twice this is held at most.
const PIECE: usize = 256 * 1024;

/// A body that was taken in whole and is what it was said to be.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) file: TempFile,
    /// MD5 in hex.
    pub(super) md5: String,
    pub(super) checksum: Option<StoredChecksum>,
}

/// A file being written, and the hashes of what was written.
pub(super) struct Writer {
    file: TempFile,
    md5: Md5,
    hasher: ChecksumHasher,
    size: u64,
}

impl Writer {
    pub(super) fn new(store: &Store, hasher: ChecksumHasher) -> StoreResult<Self> {
        Ok(Self { file: store.stage()?, md5: Md5::new(), hasher, size: 0 })
    }

    pub(super) fn write(&mut self, data: &[u8]) -> StoreResult<()> {
        self.file.write_all(data).context("write", self.file.path())?;
        self.md5.update(data);
        self.hasher.update(data);
        self.size += data.len() as u64;
        Ok(())
    }

    /// The file, its MD5, and its checksums.
    pub(super) fn finish(self) -> (TempFile, [u8; 16], s3s::dto::Checksum) {
        (self.file, self.md5.finalize().into(), self.hasher.finalize())
    }
}

/// What the headers of an upload say of its body.
#[derive(Debug)]
pub(super) struct Expectation {
    announced: Option<Announced>,
    md5: Option<[u8; 16]>,
    length: Option<u64>,
    trailers: Option<TrailingHeaders>,
}

impl Expectation {
    /// Reads them, before any of the body is.
    pub(super) fn read(
        headers: &HeaderMap,
        content_length: Option<i64>,
        content_md5_header: Option<&str>,
        trailers: Option<TrailingHeaders>,
    ) -> S3Result<Self> {
        if content_length.is_none() && headers.contains_key(http::header::TRANSFER_ENCODING) {
            return Err(s3_error!(
                MissingContentLength,
                "The body's length must be given in Content-Length; Transfer-Encoding is not supported."
            ));
        }
        Ok(Self {
            announced: Announced::read(headers)?,
            md5: content_md5_header.map(content_md5).transpose()?,
            length: content_length
                .map(u64::try_from)
                .transpose()
                .map_err(|_| s3_error!(InvalidRequest, "Content-Length is negative"))?,
            trailers,
        })
    }

    /// The algorithm of the checksum that was announced.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        self.announced.as_ref().map(|announced| announced.algorithm)
    }
}

/// Takes a body in. Memory stays within two pieces however long it is.
pub(super) async fn receive(
    store: &Arc<Store>,
    body: Option<StreamingBlob>,
    expectation: Expectation,
) -> S3Result<Received> {
    let hasher = expectation
        .announced
        .as_ref()
        .map(|announced| announced.algorithm.hasher())
        .unwrap_or_default();
    let mut writing: Option<JoinHandle<StoreResult<Writer>>> = None;
    let mut hasher = Some(hasher);
    let mut gathered: Vec<Bytes> = Vec::new();
    let mut size = 0;
    let mut body = body;
    loop {
        let next = match &mut body {
            Some(body) => body.next().await,
            None => None,
        };
        let last = next.is_none();
        if let Some(piece) = next {
            let piece = piece.map_err(|error| body_error(&error))?;
            size += piece.len();
            gathered.push(piece);
        }
        if size < PIECE && !last {
            continue;
        }
        size = 0;
        let pieces = std::mem::take(&mut gathered);
        let previous = match writing.take() {
            Some(task) => Some(task.await.map_err(StoreError::from)??),
            None => None,
        };
        let store = Arc::clone(store);
        let fresh = hasher.take();
        let task = spawn_blocking(move || {
            let mut writer = match previous {
                Some(writer) => writer,
                None => Writer::new(&store, fresh.unwrap_or_default())?,
            };
            for piece in pieces {
                writer.write(&piece)?;
            }
            Ok(writer)
        });
        if last {
            let writer = task.await.map_err(StoreError::from)??;
            return check(writer, expectation);
        }
        writing = Some(task);
    }
}

fn check(writer: Writer, expectation: Expectation) -> S3Result<Received> {
    if let Some(expected) = expectation.length
        && expected != writer.size
    {
        return Err(s3_error!(
            IncompleteBody,
            "Content-Length announces {expected} bytes, but {} came.",
            writer.size
        ));
    }
    let (file, md5, computed) = writer.finish();
    if expectation.md5.is_some_and(|expected| expected != md5) {
        return Err(s3_error!(
            BadDigest,
            "The Content-MD5 you specified did not match what we received."
        ));
    }
    let checksum = expectation
        .announced
        .map(|announced| announced.verify(computed, expectation.trailers.as_ref()))
        .transpose()?;
    Ok(Received { file, md5: hex::encode(md5), checksum })
}

/// Says why a body ended early. s3s keeps the types of these errors to itself, so their text tells.
fn body_error(error: &StdError) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        let mut error = S3Error::with_message(
            S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
            "The provided x-amz-content-sha256 header does not match what was computed.",
        );
        error.set_status_code(http::StatusCode::BAD_REQUEST);
        error
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "The signature of a chunk of the body does not match.")
    } else {
        s3_error!(
            IncompleteBody,
            "The body ended before all of it came, or is not framed as announced."
        )
    }
}
