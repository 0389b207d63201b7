//! The runs bucket: small objects and downloads to disk, with patience for a store that is away for a
//! while. Uploads from disk are in `upload`.

use std::{path::Path, sync::Arc, time::Duration};

use aws_config::SdkConfig;
use aws_sdk_s3::{
    Client,
    config::IdentityCache,
    error::{ProvideErrorMetadata, SdkError},
    operation::get_object::GetObjectOutput,
    primitives::ByteStream,
};
use bytes::Bytes;
use stepwes_core::destination::OutputsPlace;
use tokio::{io::AsyncWriteExt as _, sync::Semaphore};

use crate::{
    config::Config,
    error::{Failure, chain},
    report::{ScopedCredentials, with_patience},
    upload,
};

/// Files up to this size, in bytes, are written to the disk in one go: handing each step to another
/// thread takes longer than the step.
const SMALL: u64 = 256 * 1024;

/// The runs bucket, with the run's scoped credentials.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    pub(crate) client: Client,
    pub(crate) name: String,
    patience: Duration,
    /// How many files and parts may be sent at once.
    pub(crate) transfers: Arc<Semaphore>,
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
pub(crate) fn classify<E: ProvideErrorMetadata + std::error::Error + 'static>(
    error: &SdkError<E>,
) -> Fault {
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
            transfers: upload::transfers(),
        }
    }

    /// The bucket that outputs go to.
    pub(crate) fn holding(&self, place: &OutputsPlace) -> Self {
        let name = place.bucket.clone().unwrap_or_else(|| self.name.clone());
        Self { name, ..self.clone() }
    }

    /// Repeats `attempt` while the store is out of reach.
    pub(crate) async fn patiently<T, F>(
        &self,
        what: &str,
        attempt: impl Fn() -> F,
    ) -> Result<T, Fault>
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

    /// Begins to read an object of `bucket` at a byte, once; the caller goes on when it breaks off.
    /// With `tag` it is refused unless the object still has that entity tag.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) async fn begin(
        &self,
        bucket: &str,
        key: &str,
        from: u64,
        tag: Option<&str>,
    ) -> Result<GetObjectOutput, Fault> {
        self.client
            .get_object()
            .bucket(bucket)
            .key(key)
            .set_range((from > 0).then(|| format!("bytes={from}-")))
            .set_if_match(tag.map(str::to_owned))
            .send()
            .await
            .map_err(|error| classify(&error))
    }

    /// The keys of `bucket` that start with `prefix`, those of empty folders left out.
    ///
    /// # Errors
    /// [`Fault`]; more than `most` are refused.
    pub(crate) async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        most: usize,
    ) -> Result<Vec<String>, Fault> {
        let mut keys = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .patiently(prefix, || async {
                    let page = self.client.list_objects_v2().bucket(bucket).prefix(prefix);
                    let page = page.set_start_after(after.clone()).send().await;
                    page.map_err(|error| classify(&error))
                })
                .await?;
            let found: Vec<_> = page.contents().iter().filter_map(|object| object.key()).collect();
            after = found.last().map(|key| (*key).to_owned());
            keys.extend(found.into_iter().filter(|key| !key.ends_with('/')).map(str::to_owned));
            if keys.len() > most {
                return Err(Fault::Refused(format!("there are more than {most} objects in it")));
            }
            if page.is_truncated() != Some(true) || after.is_none() {
                return Ok(keys);
            }
        }
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
            transfers: upload::transfers(),
        }
    }
}
