//! Which version of an object there is, as HEAD and GET tell it.

use aws_sdk_s3::{
    error::SdkError,
    operation::{get_object::GetObjectError, head_object::HeadObjectError},
    primitives::DateTime,
};
use bytes::Bytes;

use crate::objects::{ObjectError, Objects, read, unquoted};

/// The version id of objects in buckets without versioning.
const NO_VERSION: &str = "null";

/// What tells the versions of an object apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Its version id, in a bucket with versioning.
    pub version_id: Option<String>,
    /// Its ETag, without quotes.
    pub etag: String,
    /// When it was created, in seconds since 1970.
    pub last_modified: i64,
}

impl ObjectVersion {
    fn of(
        version_id: Option<String>,
        etag: Option<&str>,
        last_modified: Option<&DateTime>,
    ) -> Self {
        Self {
            version_id: version_id.filter(|id| id != NO_VERSION),
            etag: etag.map(unquoted).unwrap_or_default(),
            last_modified: last_modified.map_or(0, DateTime::secs),
        }
    }

    /// A text that is another for another version: the version id, else ETag and time. A bucket
    /// without versioning cannot tell the same content written twice within a second apart.
    #[must_use]
    pub fn identity(&self) -> String {
        match &self.version_id {
            Some(id) => id.clone(),
            None => format!("{} {}", self.etag, self.last_modified),
        }
    }
}

/// What reading an object came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// There is none.
    Missing,
    /// It is larger than asked for; it was not read.
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// It was read.
    Found {
        /// Its content.
        content: Bytes,
        /// Which version of it that is.
        version: ObjectVersion,
    },
}

impl Objects {
    /// Which version of an object there is; `None` when there is no such object.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn version(&self, key: &str) -> Result<Option<ObjectVersion>, ObjectError> {
        let answer = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        match answer {
            Ok(head) => Ok(Some(ObjectVersion::of(
                head.version_id,
                head.e_tag.as_deref(),
                head.last_modified.as_ref(),
            ))),
            Err(SdkError::ServiceError(answer))
                if matches!(answer.err(), HeadObjectError::NotFound(_)) =>
            {
                Ok(None)
            }
            Err(error) => Err(ObjectError::from_sdk("HeadObject", key, error)),
        }
    }

    /// Reads an object unless it has more than `max` bytes.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn get_limited(&self, key: &str, max: u64) -> Result<Read, ObjectError> {
        let answer = self.client.get_object().bucket(&self.bucket).key(key).send().await;
        let object = match answer {
            Ok(object) => object,
            Err(SdkError::ServiceError(answer))
                if matches!(answer.err(), GetObjectError::NoSuchKey(_)) =>
            {
                return Ok(Read::Missing);
            }
            Err(error) => return Err(ObjectError::from_sdk("GetObject", key, error)),
        };
        let size = object.content_length().and_then(|size| u64::try_from(size).ok());
        if let Some(size) = size.filter(|size| *size > max) {
            return Ok(Read::TooLarge { size });
        }
        let version = ObjectVersion::of(
            object.version_id,
            object.e_tag.as_deref(),
            object.last_modified.as_ref(),
        );
        Ok(Read::Found { content: read(key, object.body).await?, version })
    }
}
