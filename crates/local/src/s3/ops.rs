//! The operations, as s3s asks for them; each is done where its kind is.

use super::error::{StoreError, StoreResult};
use super::multipart::Uploads;
use super::store::{Committed, Store};
use super::{CreatedHook, ObjectCreated};
use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::spawn_blocking;

/// Answers the operations that are supported; s3s answers `NotImplemented` to the others.
pub(super) struct Operations {
    pub(super) store: Arc<Store>,
    pub(super) uploads: Arc<Uploads>,
    on_created: Option<CreatedHook>,
}

impl Operations {
    pub(super) fn new(
        store: Arc<Store>,
        uploads: Arc<Uploads>,
        on_created: Option<CreatedHook>,
    ) -> Self {
        Self { store, uploads, on_created }
    }

    /// Refuses a bucket that does not exist.
    pub(super) fn bucket(&self, name: &str) -> S3Result<()> {
        match self.store.bucket(name) {
            Some(_) => Ok(()),
            None => Err(s3_error!(NoSuchBucket, "The specified bucket does not exist.")),
        }
    }

    /// Does work with the store on a thread that may block.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> StoreResult<T> + Send + 'static,
    ) -> S3Result<T> {
        let store = Arc::clone(&self.store);
        let done = spawn_blocking(move || work(&store)).await;
        Ok(done.map_err(StoreError::from)??)
    }

    /// Does work with the multipart uploads on a thread that may block.
    pub(super) async fn with_uploads<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Uploads) -> StoreResult<T> + Send + 'static,
    ) -> S3Result<T> {
        let uploads = Arc::clone(&self.uploads);
        let done = spawn_blocking(move || work(&uploads)).await;
        Ok(done.map_err(StoreError::from)??)
    }

    /// Tells whoever wants to know of a new object.
    pub(super) fn created(&self, bucket: &str, key: &str, committed: &Committed) {
        if let Some(on_created) = &self.on_created {
            on_created(&ObjectCreated {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                size: committed.stamp.size,
                etag: committed.meta.etag.clone(),
            });
        }
    }
}

/// Refuses a request that has one of these parameters: to ignore it would be to pretend.
macro_rules! refuse {
    ($input:expr, $($field:ident),+ $(,)?) => {
        $(
            if $input.$field.is_some() {
                return Err($crate::s3::ops::not_supported(stringify!($field)));
            }
        )+
    };
}
pub(super) use refuse;

pub(super) fn not_supported(parameter: &str) -> S3Error {
    s3_error!(
        NotImplemented,
        "The embedded S3 does not support the parameter {}.",
        parameter.replace('_', "-")
    )
}

/// S3 tells times in whole seconds.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds))
}

pub(super) fn size(bytes: u64) -> S3Result<i64> {
    i64::try_from(bytes).map_err(S3Error::internal_error)
}

type Request<T> = S3Request<T>;
type Answer<T> = S3Result<S3Response<T>>;

#[async_trait::async_trait]
impl S3 for Operations {
    async fn get_object(&self, request: Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        self.get(request).await
    }

    async fn head_object(&self, request: Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        self.head(request).await
    }

    async fn put_object(&self, request: Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        self.put(request).await
    }

    async fn post_object(&self, _: Request<PostObjectInput>) -> Answer<PostObjectOutput> {
        Err(s3_error!(NotImplemented, "Uploads by HTML form are not supported. Use PUT."))
    }

    async fn delete_object(
        &self,
        request: Request<DeleteObjectInput>,
    ) -> Answer<DeleteObjectOutput> {
        self.delete(request).await
    }

    async fn delete_objects(
        &self,
        request: Request<DeleteObjectsInput>,
    ) -> Answer<DeleteObjectsOutput> {
        self.delete_many(request).await
    }

    async fn copy_object(&self, request: Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        self.copy(request).await
    }

    async fn list_objects(&self, request: Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        self.list_v1(request).await
    }

    async fn list_objects_v2(
        &self,
        request: Request<ListObjectsV2Input>,
    ) -> Answer<ListObjectsV2Output> {
        self.list_v2(request).await
    }

    async fn list_buckets(&self, request: Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        self.buckets(request).await
    }

    async fn head_bucket(&self, request: Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        refuse!(request.input, expected_bucket_owner);
        self.bucket(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput {
            bucket_region: request.region.map(|region| region.as_str().to_owned()),
            ..HeadBucketOutput::default()
        }))
    }

    async fn get_bucket_location(
        &self,
        request: Request<GetBucketLocationInput>,
    ) -> Answer<GetBucketLocationOutput> {
        refuse!(request.input, expected_bucket_owner);
        self.bucket(&request.input.bucket)?;
        // The buckets are wherever they are asked for; us-east-1 is told by saying nothing.
        let location = request
            .region
            .filter(|region| region.as_str() != "us-east-1")
            .map(|region| BucketLocationConstraint::from(region.as_str().to_owned()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint: location }))
    }

    async fn create_multipart_upload(
        &self,
        request: Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        self.create_upload(request).await
    }

    async fn upload_part(&self, request: Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        self.put_part(request).await
    }

    async fn complete_multipart_upload(
        &self,
        request: Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        self.complete_upload(request).await
    }

    async fn abort_multipart_upload(
        &self,
        request: Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        self.abort_upload(request).await
    }

    async fn list_parts(&self, request: Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        self.parts(request).await
    }
}
