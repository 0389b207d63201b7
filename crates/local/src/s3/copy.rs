//! The operation that copies an object.

use super::access::caller;
use super::checksum::{Algorithm, StoredChecksum, set_checksum};
use super::error::{IoContext as _, StoreError, StoreResult};
use super::meta::{Headers, Meta};
use super::object::{Conditions, checksum_type, given_headers, only_standard, user_metadata};
use super::ops::{Operations, not_supported, refuse, timestamp};
use super::store::{Object, Precondition, Store};
use super::stream::read_piece;
use super::temp::TempFile;
use super::upload::Writer;
use http::header;
use s3s::checksum::ChecksumHasher;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use std::path::Path;

impl Operations {
    pub(super) async fn copy(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = request.input;
        refuse!(
            input,
            acl,
            bucket_key_enabled,
            copy_source_sse_customer_algorithm,
            copy_source_sse_customer_key,
            copy_source_sse_customer_key_md5,
            expected_bucket_owner,
            expected_source_bucket_owner,
            grant_full_control,
            grant_read,
            grant_read_acp,
            grant_write_acp,
            object_lock_legal_hold_status,
            object_lock_mode,
            object_lock_retain_until_date,
            request_payer,
            sse_customer_algorithm,
            sse_customer_key,
            sse_customer_key_md5,
            ssekms_encryption_context,
            ssekms_key_id,
            server_side_encryption,
            tagging,
            tagging_directive,
            website_redirect_location,
        );
        only_standard(input.storage_class.as_ref())?;
        for condition in [header::IF_MATCH, header::IF_NONE_MATCH] {
            // s3s does not hand these on.
            if request.headers.contains_key(&condition) {
                return Err(not_supported(condition.as_str()));
            }
        }
        let CopySource::Bucket { bucket: from_bucket, key: from_key, version_id: None } =
            &input.copy_source
        else {
            return Err(s3_error!(
                NotImplemented,
                "x-amz-copy-source must be <bucket>/<key>, without a version or access point."
            ));
        };
        self.bucket(&input.bucket)?;
        let replace = match input.metadata_directive.as_ref().map(MetadataDirective::as_str) {
            None | Some(MetadataDirective::COPY) => false,
            Some(MetadataDirective::REPLACE) => true,
            Some(other) => {
                return Err(s3_error!(
                    InvalidArgument,
                    "The metadata directive {other} is neither COPY nor REPLACE."
                ));
            }
        };
        let itself = **from_bucket == *input.bucket && **from_key == *input.key;
        if itself && !replace {
            return Err(s3_error!(
                InvalidRequest,
                "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata."
            ));
        }
        let replaced = if replace {
            Some((given_headers!(input), user_metadata(input.metadata)?))
        } else {
            None
        };
        let algorithm = input
            .checksum_algorithm
            .map(|algorithm| Algorithm::from_name(algorithm.as_str()))
            .transpose()?;
        let Some(source) = self.open(from_bucket, from_key).await? else {
            return Err(caller(&request.extensions).missing(from_bucket));
        };
        Conditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        }
        .check(&source, || Ok(StoreError::PreconditionFailed.into()))?;
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let committed = self
            .blocking(move |store| {
                let (file, mut meta) = copy_file(store, source, algorithm)?;
                if let Some((headers, user)) = replaced {
                    meta.headers = headers;
                    meta.user = user;
                }
                store.commit(&bucket, &key, file, meta, &Precondition::default())
            })
            .await?;
        self.created(&input.bucket, &input.key, &committed);
        let mut result = CopyObjectResult {
            e_tag: Some(ETag::Strong(committed.meta.etag)),
            last_modified: Some(timestamp(committed.stamp.modified())),
            checksum_type: checksum_type(committed.meta.checksum.as_ref()),
            ..CopyObjectResult::default()
        };
        set_checksum!(result, &committed.meta.checksum);
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            ..CopyObjectOutput::default()
        }))
    }
}

/// Copies the bytes; reads them only when something must be computed anew.
fn copy_file(
    store: &Store,
    mut source: Object,
    algorithm: Option<Algorithm>,
) -> StoreResult<(TempFile, Meta)> {
    let mut meta = source.meta;
    meta.upload_id = None;
    let kept = meta.checksum.take();
    let composite = kept.as_ref().is_some_and(|checksum| checksum.composite);
    let algorithm = algorithm.or(kept.as_ref().map(|checksum| checksum.algorithm));
    let same_algorithm = kept.as_ref().map(|checksum| checksum.algorithm) == algorithm;
    // A copy is one piece: the ETag and checksum of parts would not be its own.
    if !meta.etag.contains('-') && !composite && same_algorithm {
        let file = store.stage()?;
        file.append(&mut source.file).context("copy to", file.path())?;
        meta.checksum = kept;
        return Ok((file, meta));
    }
    let hasher = algorithm.map_or_else(ChecksumHasher::default, Algorithm::hasher);
    let mut writer = Writer::new(store, hasher)?;
    let mut position = 0;
    while position < source.stamp.size {
        let piece = read_piece(&source.file, position..source.stamp.size)
            .context("read", Path::new("an object"))?;
        position += piece.len() as u64;
        writer.write(&piece)?;
    }
    let (file, md5, computed) = writer.finish();
    meta.etag = hex::encode(md5);
    meta.checksum = algorithm.and_then(|algorithm| {
        Some(StoredChecksum { algorithm, value: algorithm.value_of(computed)?, composite: false })
    });
    Ok((file, meta))
}
