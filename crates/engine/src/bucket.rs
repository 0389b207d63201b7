//! The runs bucket: small objects, downloads to disk and uploads from disk, with patience for a
//! store that is away for a while.

use std::{path::Path, sync::Arc, time::Duration};

use aws_config::SdkConfig;
use aws_sdk_s3::{
    Client,
    config::IdentityCache,
    error::{ProvideErrorMetadata, SdkError},
    primitives::ByteStream,
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;
use sha1::{Digest as _, Sha1};
use tokio::io::AsyncWriteExt as _;

use crate::{
    body,
    config::Config,
    error::{Failure, chain},
    report::{ScopedCredentials, with_patience},
};

/// Files above this size, in bytes, go up in parts of it.
const PART: u64 = 16 * 1024 * 1024;

/// Files up to this size, in bytes, are written to the disk in one go: handing each step to another
/// thread takes longer than the step.
const SMALL: u64 = 256 * 1024;

/// The most parts that S3 takes.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const MAX_PARTS: u64 = 10_000;

/// The runs bucket, with the run's scoped credentials.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    client: Client,
    name: String,
    patience: Duration,
}

/// A file as it was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uploaded {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Its SHA-1 in hexadecimal.
    pub(crate) sha1: String,
}

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The store is out of reach or has a bad day.
    #[error("{0}")]
    Passing(String),
    /// There is no such object or bucket.
    #[error("{0}")]
    Missing(String),
    /// The store refuses.
    #[error("{0}")]
    Refused(String),
    /// Our own disk.
    #[error("{0}")]
    Local(std::io::Error),
}

impl Fault {
    /// The failure of an attempt that was `doing` something with what is the service's own.
    pub(crate) fn of_service(self, doing: &str) -> Failure {
        match self {
            Self::Passing(text) => Failure::Passing(format!("{doing}: {text}")),
            Self::Missing(text) | Self::Refused(text) => {
                Failure::Service(format!("{doing}: {text}"))
            }
            Self::Local(error) => Failure::local(doing, &error),
        }
    }
}

/// Sorts an SDK error.
fn classify<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> Fault {
    let text = error.code().map_or_else(
        || chain(error),
        |code| format!("S3 says {code}: {}", error.message().unwrap_or_default()),
    );
    let SdkError::ServiceError(context) = error else {
        return if matches!(error, SdkError::ConstructionFailure(_)) {
            Fault::Refused(text)
        } else {
            Fault::Passing(text)
        };
    };
    match (context.raw().status().as_u16(), context.err().code()) {
        // The next try comes with new credentials.
        (_, Some("ExpiredToken" | "InvalidToken" | "RequestTimeTooSkewed" | "RequestTimeout"))
        | (429 | 500.., _) => Fault::Passing(text),
        (404, _) => Fault::Missing(text),
        _ => Fault::Refused(text),
    }
}

impl Bucket {
    /// The bucket that `config` names.
    pub(crate) fn new(aws: &SdkConfig, config: &Config, credentials: ScopedCredentials) -> Self {
        let settings = aws_sdk_s3::config::Builder::from(aws)
            .credentials_provider(credentials)
            // Renewing waits for the report function, which may be away for that long.
            .identity_cache(IdentityCache::lazy().load_timeout(config.limits.patience * 2).build())
            .force_path_style(config.s3_path_style)
            .build();
        Self {
            client: Client::from_conf(settings),
            name: config.bucket.clone(),
            patience: config.limits.patience,
        }
    }

    /// Repeats `attempt` while the store is out of reach.
    async fn patiently<T, F>(&self, what: &str, attempt: impl Fn() -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        with_patience(self.patience, what, || async {
            match attempt().await {
                Err(fault @ Fault::Passing(_)) => Err(fault),
                settled => Ok(settled),
            }
        })
        .await
    }

    /// Reads a small object.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) async fn get(&self, key: &str) -> Result<Bytes, Fault> {
        self.patiently(key, || async {
            let object = self
                .client
                .get_object()
                .bucket(&self.name)
                .key(key)
                .send()
                .await
                .map_err(|error| classify(&error))?;
            let body = object.body.collect().await;
            Ok(body.map_err(|error| Fault::Passing(chain(&error)))?.into_bytes())
        })
        .await
    }

    /// Downloads an object of this bucket, or of `bucket`, into the file at `path`, and gives its
    /// size in bytes. `most` is the largest that is taken.
    ///
    /// # Errors
    /// [`Fault`]; an object that is too large is refused.
    pub(crate) async fn download(
        &self,
        bucket: Option<&str>,
        key: &str,
        path: &Path,
        most: u64,
    ) -> Result<u64, Fault> {
        self.patiently(key, || async {
            let mut object = self
                .client
                .get_object()
                .bucket(bucket.unwrap_or(&self.name))
                .key(key)
                .send()
                .await
                .map_err(|error| classify(&error))?;
            if let Some(length) = object.content_length()
                && u64::try_from(length).is_ok_and(|length| length <= SMALL.min(most))
            {
                let body = object.body.collect().await;
                let body = body.map_err(|error| Fault::Passing(chain(&error)))?.into_bytes();
                std::fs::write(path, &body).map_err(Fault::Local)?;
                return Ok(body.len() as u64);
            }
            let mut file = tokio::fs::File::create(path).await.map_err(Fault::Local)?;
            let mut size = 0;
            while let Some(piece) = object.body.next().await {
                let piece = piece.map_err(|error| Fault::Passing(chain(&error)))?;
                size += piece.len() as u64;
                if size > most {
                    return Err(Fault::Refused(format!("it is larger than {most} bytes")));
                }
                file.write_all(&piece).await.map_err(Fault::Local)?;
            }
            file.flush().await.map_err(Fault::Local)?;
            Ok(size)
        })
        .await
    }

    /// Writes a small object, with patience.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) async fn put(
        &self,
        key: &str,
        content: Bytes,
        content_type: &str,
    ) -> Result<(), Fault> {
        self.patiently(key, || self.put_once(key, content.clone(), content_type)).await
    }

    /// Writes a small object; the caller tries again when it likes.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) async fn put_once(
        &self,
        key: &str,
        content: Bytes,
        content_type: &str,
    ) -> Result<(), Fault> {
        self.client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .content_type(content_type)
            .body(ByteStream::from(content))
            .send()
            .await
            .map_err(|error| classify(&error))?;
        Ok(())
    }

    /// Uploads the file at `path`, reading it once: its hash is that of the bytes sent.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) async fn upload(
        &self,
        key: &str,
        path: &Path,
        content_type: Option<&str>,
    ) -> Result<Uploaded, Fault> {
        let size = tokio::fs::metadata(path).await.map_err(Fault::Local)?.len();
        let hash = if size > PART {
            self.upload_parts(key, path, size, content_type).await?
        } else {
            self.patiently(key, || async {
                let (body, outcome) = body::part(path.to_owned(), 0, size, Sha1::new());
                // An empty body is not asked for its bytes.
                let body = if size == 0 { ByteStream::from_static(b"") } else { body };
                let sent = self
                    .client
                    .put_object()
                    .bucket(&self.name)
                    .key(key)
                    .set_content_type(content_type.map(str::to_owned))
                    .body(body)
                    .send()
                    .await;
                settle(sent, &outcome, size).map(|(_, hash)| hash)
            })
            .await?
        };
        Ok(Uploaded { size, sha1: hex::encode(hash.finalize()) })
    }

    async fn upload_parts(
        &self,
        key: &str,
        path: &Path,
        size: u64,
        content_type: Option<&str>,
    ) -> Result<Sha1, Fault> {
        let begun = self
            .patiently(key, || async {
                self.client
                    .create_multipart_upload()
                    .bucket(&self.name)
                    .key(key)
                    .set_content_type(content_type.map(str::to_owned))
                    // What the SDK sends with each part: S3 refuses parts with another.
                    .checksum_algorithm(ChecksumAlgorithm::Crc32)
                    .send()
                    .await
                    .map_err(|error| classify(&error))
            })
            .await?;
        let upload = Arc::<str>::from(begun.upload_id().unwrap_or_default());
        let sent = self.send_parts(key, path, size, &upload).await;
        if sent.is_err() {
            // Should this fail too, the bucket's lifecycle rule clears the parts away.
            let abort = self.client.abort_multipart_upload().bucket(&self.name).key(key);
            if let Err(error) = abort.upload_id(&*upload).send().await {
                tracing::warn!("{key}: the parts of a failed upload stay: {}", chain(&error));
            }
        }
        sent
    }

    async fn send_parts(
        &self,
        key: &str,
        path: &Path,
        size: u64,
        upload: &str,
    ) -> Result<Sha1, Fault> {
        let length = part_size(size);
        let mut hash = Sha1::new();
        let mut parts = Vec::new();
        let mut offset = 0;
        let mut number = 1;
        while offset < size {
            let length = length.min(size - offset);
            let (part, after) = self
                .patiently(key, || async {
                    let (body, outcome) = body::part(path.to_owned(), offset, length, hash.clone());
                    let sent = self
                        .client
                        .upload_part()
                        .bucket(&self.name)
                        .key(key)
                        .upload_id(upload)
                        .part_number(number)
                        .body(body)
                        .send()
                        .await;
                    settle(sent, &outcome, length)
                })
                .await?;
            parts.push(
                CompletedPart::builder()
                    .part_number(number)
                    .set_e_tag(part.e_tag)
                    .set_checksum_crc32(part.checksum_crc32)
                    .build(),
            );
            hash = after;
            offset += length;
            number += 1;
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        self.patiently(key, || async {
            self.client
                .complete_multipart_upload()
                .bucket(&self.name)
                .key(key)
                .upload_id(upload)
                .multipart_upload(parts.clone())
                .send()
                .await
                .map_err(|error| classify(&error))
        })
        .await?;
        Ok(hash)
    }
}

/// The size of the parts of a file of `size` bytes.
fn part_size(size: u64) -> u64 {
    PART.max(size.div_ceil(MAX_PARTS))
}

/// Joins what S3 said with what became of the reading.
fn settle<T, E: ProvideErrorMetadata + std::error::Error + 'static>(
    sent: Result<T, SdkError<E>>,
    outcome: &body::Outcome,
    length: u64,
) -> Result<(T, Sha1), Fault> {
    match (sent, outcome.take()) {
        (_, Some(Err(error))) => Err(Fault::Local(error)),
        (Ok(answer), Some(Ok(hash))) => Ok((answer, hash)),
        (Ok(answer), None) if length == 0 => Ok((answer, Sha1::new())),
        (Ok(_), None) => Err(Fault::Passing("S3 answered before it had the whole file".to_owned())),
        (Err(error), _) => Err(classify(&error)),
    }
}

#[cfg(test)]
impl Bucket {
    /// A bucket at that endpoint.
    pub(crate) fn at(endpoint: &str) -> Self {
        let settings = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(aws_sdk_s3::config::Region::new("us-east-1"))
            .credentials_provider(aws_sdk_s3::config::Credentials::new(
                "KEY", "secret", None, None, "test",
            ))
            .endpoint_url(endpoint)
            .force_path_style(true)
            .build();
        Self {
            client: Client::from_conf(settings),
            name: "runs".to_owned(),
            patience: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_16_mib_until_there_would_be_too_many() {
        assert_eq!(part_size(PART + 1), PART);
        let huge = 5 << 40;
        assert!(part_size(huge) * MAX_PARTS >= huge);
        assert!(part_size(huge) * (MAX_PARTS - 1) < huge);
    }
}
