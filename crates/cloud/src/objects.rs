//! JSON, bytes and listings in the runs bucket, and presigned URLs into it.

use std::{ops::RangeInclusive, time::Duration};

use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{get_object::GetObjectError, head_object::HeadObjectError},
    presigning::PresigningConfig,
    primitives::ByteStream,
    types::{Delete, ObjectIdentifier},
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use stepwes_core::destination::OutputsPlace;
use thiserror::Error;

use crate::{
    OnUse,
    object_version::Read,
    sdk::{BoxError, passes},
};

/// How long a presigned URL lives at most. One signed by a Lambda dies with its role's session
/// anyhow, so they are handed out short-lived and fresh.
pub const MAX_EXPIRY: Duration = Duration::from_secs(15 * 60);

/// How many deletions are under way at once.
const DELETES_AT_ONCE: usize = 16;

/// How many pages of a listing are deleted at once.
const BATCHES_AT_ONCE: usize = 4;

/// What is escaped in the source of a copy.
const SOURCE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A failed call. The message is for logs: it names the operation and the key.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// S3 did not answer, or answered with a passing error.
    #[error("{operation} of {key:?}: S3 does not answer at present; try again")]
    Unavailable {
        /// The operation, as S3 names it.
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// What the SDK said.
        source: BoxError,
    },
    /// S3 refused for a reason that stays: access, a missing bucket.
    #[error("{operation} of {key:?}: S3 refused; check the bucket's name and our rights")]
    Rejected {
        /// The operation, as S3 names it.
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// What the SDK said.
        source: BoxError,
    },
    /// An object is not the JSON that it should be, or cannot be written as JSON.
    #[error("the object {key:?} is not of the form that we write")]
    Codec {
        /// The key.
        key: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl ObjectError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Rejected { .. } | Self::Codec { .. } => false,
        }
    }

    pub(crate) fn from_sdk<E>(
        operation: &'static str,
        key: &str,
        error: SdkError<E, HttpResponse>,
    ) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let key = key.to_owned();
        if passes(&error) {
            Self::Unavailable { operation, key, source: error.into() }
        } else {
            Self::Rejected { operation, key, source: error.into() }
        }
    }
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its ETag, without quotes.
    pub etag: String,
}

/// What a JSON object turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Limited<T> {
    /// There is none.
    Missing,
    /// It is larger than asked for; it was not read.
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// The object.
    Found(T),
}

/// How a presigned download presents itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Download {
    /// The answer's `Content-Type`, when not the object's own.
    pub content_type: Option<String>,
    /// The answer's `Content-Disposition`.
    pub disposition: Option<String>,
}

/// The runs bucket.
#[derive(Clone, Debug)]
pub struct Objects {
    pub(crate) client: OnUse<Client>,
    presigner: OnUse<Client>,
    pub(crate) bucket: String,
}

impl Objects {
    /// The bucket, by `client`, which also signs URLs, for the endpoint that it uses itself.
    #[must_use]
    pub fn new(client: impl Into<OnUse<Client>>, bucket: impl Into<String>) -> Self {
        let client = client.into();
        Self { presigner: client.clone(), client, bucket: bucket.into() }
    }

    /// The same, with URLs signed by `presigner`: for the endpoint under which callers reach S3.
    #[must_use]
    pub fn presigned_by(self, presigner: OnUse<Client>) -> Self {
        Self { presigner, ..self }
    }

    /// Another bucket, by the same clients.
    #[must_use]
    pub fn in_bucket(&self, bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), ..self.clone() }
    }

    /// The bucket that a run's outputs are in.
    #[must_use]
    pub fn at(&self, place: &OutputsPlace) -> Self {
        place.bucket.as_ref().map_or_else(|| self.clone(), |bucket| self.in_bucket(bucket))
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The `s3://` URL of a key.
    #[must_use]
    pub fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    /// Writes an object.
    ///
    /// # Errors
    /// [`ObjectError`]; the object may have been written when S3 did not answer.
    pub async fn put_bytes(
        &self,
        key: &str,
        content: Bytes,
        content_type: &str,
    ) -> Result<(), ObjectError> {
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(content_type)
            .body(ByteStream::from(content))
            .send()
            .await
            .map_err(|error| ObjectError::from_sdk("PutObject", key, error))?;
        Ok(())
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn put_json<T: Serialize + Sync>(
        &self,
        key: &str,
        value: &T,
    ) -> Result<(), ObjectError> {
        let text = serde_json::to_vec(value)
            .map_err(|source| ObjectError::Codec { key: key.to_owned(), source })?;
        self.put_bytes(key, text.into(), "application/json").await
    }

    /// Reads an object, or the part of it in `range` (offsets of the first and last byte); `None`
    /// when there is no such object.
    ///
    /// # Errors
    /// [`ObjectError`]; a range that begins beyond the end is one.
    pub async fn get_bytes(
        &self,
        key: &str,
        range: Option<RangeInclusive<u64>>,
    ) -> Result<Option<Bytes>, ObjectError> {
        let answer = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .set_range(range.map(|range| format!("bytes={}-{}", range.start(), range.end())))
            .send()
            .await;
        match answer {
            Ok(object) => read(key, object.body).await.map(Some),
            Err(SdkError::ServiceError(answer))
                if matches!(answer.err(), GetObjectError::NoSuchKey(_)) =>
            {
                Ok(None)
            }
            Err(error) => Err(ObjectError::from_sdk("GetObject", key, error)),
        }
    }

    /// Reads a JSON object; `None` when there is none.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ObjectError> {
        match self.get_json_limited(key, u64::MAX).await? {
            Limited::Found(value) => Ok(Some(value)),
            Limited::Missing | Limited::TooLarge { .. } => Ok(None),
        }
    }

    /// Reads a JSON object unless it has more than `max` bytes.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn get_json_limited<T: DeserializeOwned>(
        &self,
        key: &str,
        max: u64,
    ) -> Result<Limited<T>, ObjectError> {
        let content = match self.get_limited(key, max).await? {
            Read::Missing => return Ok(Limited::Missing),
            Read::TooLarge { size } => return Ok(Limited::TooLarge { size }),
            Read::Found { content, .. } => content,
        };
        serde_json::from_slice(&content)
            .map(Limited::Found)
            .map_err(|source| ObjectError::Codec { key: key.to_owned(), source })
    }

    /// An object's size in bytes; `None` when there is no such object.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn head(&self, key: &str) -> Result<Option<u64>, ObjectError> {
        let answer = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        match answer {
            Ok(head) => {
                Ok(Some(head.content_length().and_then(|size| size.try_into().ok()).unwrap_or(0)))
            }
            Err(SdkError::ServiceError(answer))
                if matches!(answer.err(), HeadObjectError::NotFound(_)) =>
            {
                Ok(None)
            }
            Err(error) => Err(ObjectError::from_sdk("HeadObject", key, error)),
        }
    }

    /// Every object below `prefix`, in the order of their keys' bytes.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        self.pages(prefix).try_concat().await
    }

    /// The same, page by page.
    fn pages(&self, prefix: &str) -> impl Stream<Item = Result<Vec<Listed>, ObjectError>> + use<> {
        let prefix = prefix.to_owned();
        let pages = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(&prefix)
            .into_paginator()
            .send();
        stream::unfold((pages, prefix), async |(mut pages, prefix)| {
            let page = match pages.next().await? {
                Ok(page) => page.contents.unwrap_or_default(),
                Err(error) => {
                    let error = ObjectError::from_sdk("ListObjectsV2", &prefix, error);
                    return Some((Err(error), (pages, prefix)));
                }
            };
            let listed = page.into_iter().filter_map(|object| {
                let size = object.size.and_then(|size| size.try_into().ok()).unwrap_or(0);
                let etag = object.e_tag.as_deref().map(unquoted).unwrap_or_default();
                Some(Listed { key: object.key?, size, etag })
            });
            Some((Ok(listed.collect()), (pages, prefix)))
        })
    }

    /// Deletes an object, if there is one.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.client
            .delete_object()
            .bucket(&self.bucket)
            .key(key)
            .send()
            .await
            .map_err(|error| ObjectError::from_sdk("DeleteObject", key, error))?;
        Ok(())
    }

    /// Deletes every object below `prefix`. Gives how many there were.
    ///
    /// # Errors
    /// [`ObjectError`]; some may be gone by then.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<usize, ObjectError> {
        let found = self.list(prefix).await?;
        let count = found.len();
        stream::iter(found)
            .map(|object| async move { self.delete(&object.key).await })
            .buffer_unordered(DELETES_AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(count)
    }

    /// Deletes every object below `prefix`, however many there are, while it lists them: who is cut
    /// off has deleted what was listed by then.
    ///
    /// # Errors
    /// [`ObjectError`]; some may be gone by then, and the same call deletes the rest.
    pub async fn delete_all(&self, prefix: &str) -> Result<(), ObjectError> {
        self.pages(prefix)
            .map_ok(|listed| self.delete_listed(prefix, listed))
            .try_buffer_unordered(BATCHES_AT_ONCE)
            .try_collect()
            .await
    }

    /// Deletes a page of a listing: `DeleteObjects` takes as many as one has, a thousand
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html>).
    async fn delete_listed(&self, prefix: &str, listed: Vec<Listed>) -> Result<(), ObjectError> {
        const OPERATION: &str = "DeleteObjects";
        if listed.is_empty() {
            return Ok(());
        }
        let failed = |source: BoxError| ObjectError::Unavailable {
            operation: OPERATION,
            key: prefix.to_owned(),
            source,
        };
        let objects = listed
            .into_iter()
            .map(|object| ObjectIdentifier::builder().key(object.key).build())
            .collect::<Result<_, _>>();
        let objects = objects.map_err(|error| failed(error.into()))?;
        let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build();
        let delete = delete.map_err(|error| failed(error.into()))?;
        let answer = self
            .client
            .delete_objects()
            .bucket(&self.bucket)
            .delete(delete)
            .send()
            .await
            .map_err(|error| ObjectError::from_sdk(OPERATION, prefix, error))?;
        // Each object has an answer of its own.
        match answer.errors().first() {
            None => Ok(()),
            Some(error) => {
                let code = error.code().unwrap_or_default();
                let source = format!("{}: {code}", error.key().unwrap_or_default()).into();
                let (operation, key) = (OPERATION, prefix.to_owned());
                Err(match code {
                    "AccessDenied" => ObjectError::Rejected { operation, key, source },
                    _ => ObjectError::Unavailable { operation, key, source },
                })
            }
        }
    }

    /// Copies an object within the bucket, of 5 GB at most; `false` when there is no such object.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn copy(&self, from: &str, to: &str) -> Result<bool, ObjectError> {
        let source = format!("{}/{}", self.bucket, utf8_percent_encode(from, SOURCE));
        let answer =
            self.client.copy_object().bucket(&self.bucket).key(to).copy_source(source).send().await;
        match answer {
            Ok(_) => Ok(true),
            // No error of CopyObject's own, but S3's all the same.
            Err(SdkError::ServiceError(answer)) if answer.err().code() == Some("NoSuchKey") => {
                Ok(false)
            }
            Err(error) => Err(ObjectError::from_sdk("CopyObject", from, error)),
        }
    }

    /// A URL by which anybody can download the object for `expiry` (at most [`MAX_EXPIRY`]). The
    /// object is not looked at.
    ///
    /// # Errors
    /// [`ObjectError`] when our own credentials cannot be had.
    pub async fn presign_get(
        &self,
        key: &str,
        expiry: Duration,
        download: Download,
    ) -> Result<String, ObjectError> {
        let config = PresigningConfig::expires_in(expiry.min(MAX_EXPIRY)).map_err(|error| {
            ObjectError::Rejected {
                operation: "GetObject",
                key: key.to_owned(),
                source: error.into(),
            }
        })?;
        let request = self
            .presigner
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .set_response_content_type(download.content_type)
            .set_response_content_disposition(download.disposition)
            .presigned(config)
            .await
            .map_err(|error| ObjectError::from_sdk("GetObject", key, error))?;
        Ok(request.uri().to_owned())
    }
}

/// An ETag without its quotes, as S3's events have it.
pub(crate) fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

/// A body that breaks off is S3 not answering.
pub(crate) async fn read(key: &str, body: ByteStream) -> Result<Bytes, ObjectError> {
    match body.collect().await {
        Ok(content) => Ok(content.into_bytes()),
        Err(error) => Err(ObjectError::Unavailable {
            operation: "GetObject",
            key: key.to_owned(),
            source: error.into(),
        }),
    }
}
