//! Operations on multipart uploads.

use super::checksum::{Algorithm, given_checksums, set_checksum};
use super::meta::Headers;
use super::multipart::{Completion, Upload, WantedPart};
use super::object::{
    checksum_type, given_headers, only_standard, user_metadata, write_precondition,
};
use super::ops::{Operations, refuse, size, timestamp};
use super::upload::{Expectation, receive};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

/// The most parts of a page, and how many there are when none is asked for.
const MOST_PARTS: i32 = 1000;

impl Operations {
    pub(super) async fn create_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        refuse!(
            input,
            acl,
            bucket_key_enabled,
            expected_bucket_owner,
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
            website_redirect_location,
        );
        only_standard(input.storage_class.as_ref())?;
        self.bucket(&input.bucket)?;
        let algorithm = input
            .checksum_algorithm
            .as_ref()
            .map(|algorithm| Algorithm::from_name(algorithm.as_str()))
            .transpose()?;
        let full_object = full_object(algorithm, input.checksum_type.as_ref())?;
        let upload = Upload {
            bucket: input.bucket.clone(),
            key: input.key.clone(),
            headers: given_headers!(input),
            user: user_metadata(input.metadata)?,
            algorithm,
            full_object,
        };
        let id = self.with_uploads(move |uploads| uploads.create(&upload)).await?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: algorithm.map(|_| {
                ChecksumType::from_static(if full_object {
                    ChecksumType::FULL_OBJECT
                } else {
                    ChecksumType::COMPOSITE
                })
            }),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    pub(super) async fn put_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        refuse!(
            input,
            expected_bucket_owner,
            request_payer,
            sse_customer_algorithm,
            sse_customer_key,
            sse_customer_key_md5,
        );
        self.bucket(&input.bucket)?;
        let number = input.part_number;
        if !(1..=10_000).contains(&number) {
            return Err(s3_error!(
                InvalidArgument,
                "Part number must be an integer between 1 and 10000, inclusive."
            ));
        }
        let (bucket, key, id) = (input.bucket, input.key, input.upload_id);
        let upload_id = id.clone();
        let upload =
            self.with_uploads(move |uploads| uploads.get(&bucket, &key, &upload_id)).await?;
        let expectation = Expectation::read(
            &request.headers,
            input.content_length,
            input.content_md5.as_deref(),
            request.trailing_headers,
        )?;
        if let (Some(of_upload), Some(of_part)) = (upload.algorithm, expectation.algorithm())
            && of_upload != of_part
        {
            return Err(s3_error!(
                InvalidRequest,
                "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                of_upload.name(),
                of_part.name()
            ));
        }
        let part = receive(&self.store, input.body, expectation).await?;
        let mut output = UploadPartOutput {
            e_tag: Some(ETag::Strong(part.md5.clone())),
            ..UploadPartOutput::default()
        };
        set_checksum!(output, &part.checksum);
        self.with_uploads(move |uploads| uploads.put_part(&id, number, part)).await?;
        Ok(S3Response::new(output))
    }

    pub(super) async fn complete_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        refuse!(
            input,
            expected_bucket_owner,
            request_payer,
            sse_customer_algorithm,
            sse_customer_key,
            sse_customer_key_md5,
        );
        self.bucket(&input.bucket)?;
        let listed = input.multipart_upload.and_then(|upload| upload.parts);
        let parts = listed
            .unwrap_or_default()
            .into_iter()
            .map(|part| match (part.part_number, &part.e_tag) {
                (Some(number), Some(etag)) => Ok(WantedPart {
                    number,
                    etag: etag.value().to_owned(),
                    given: given_checksums!(part),
                }),
                _ => Err(s3_error!(
                    MalformedXML,
                    "Every part must be named by its PartNumber and ETag."
                )),
            })
            .collect::<S3Result<Vec<_>>>()?;
        let given = given_checksums!(input);
        let wanted = Completion {
            id: input.upload_id,
            bucket: input.bucket.clone(),
            key: input.key.clone(),
            parts,
            size: input.mpu_object_size,
            given,
            precondition: write_precondition(input.if_match, input.if_none_match)?,
        };
        let committed = self.with_uploads(move |uploads| uploads.complete(&wanted)).await?;
        self.created(&input.bucket, &input.key, &committed);
        let mut output = CompleteMultipartUploadOutput {
            e_tag: Some(ETag::Strong(committed.meta.etag)),
            checksum_type: checksum_type(committed.meta.checksum.as_ref()),
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            ..CompleteMultipartUploadOutput::default()
        };
        set_checksum!(output, &committed.meta.checksum);
        Ok(S3Response::new(output))
    }

    pub(super) async fn abort_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        refuse!(input, expected_bucket_owner, if_match_initiated_time, request_payer);
        self.bucket(&input.bucket)?;
        self.with_uploads(move |uploads| {
            uploads.abort(&input.bucket, &input.key, &input.upload_id)
        })
        .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    pub(super) async fn parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        refuse!(
            input,
            expected_bucket_owner,
            request_payer,
            sse_customer_algorithm,
            sse_customer_key,
            sse_customer_key_md5,
        );
        self.bucket(&input.bucket)?;
        let max_parts = input.max_parts.unwrap_or(MOST_PARTS).clamp(0, MOST_PARTS);
        let marker = input.part_number_marker.unwrap_or(0);
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
        let (upload, mut parts) = self
            .with_uploads(move |uploads| {
                let upload = uploads.get(&bucket, &key, &id)?;
                Ok((upload, uploads.parts(&id)?))
            })
            .await?;
        parts.retain(|part| part.number > marker);
        let most = usize::try_from(max_parts).unwrap_or_default();
        let truncated = parts.len() > most;
        parts.truncate(most);
        let next = parts.last().map(|part| part.number);
        let parts = parts
            .into_iter()
            .map(|part| {
                let mut listed = Part {
                    part_number: Some(part.number),
                    e_tag: Some(ETag::Strong(part.md5)),
                    size: Some(size(part.size)?),
                    last_modified: Some(timestamp(part.modified)),
                    ..Part::default()
                };
                set_checksum!(listed, &part.checksum);
                Ok(listed)
            })
            .collect::<S3Result<Vec<_>>>()?;
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: Some(max_parts),
            part_number_marker: Some(marker),
            next_part_number_marker: next.filter(|_| truncated),
            is_truncated: Some(truncated),
            parts: Some(parts),
            checksum_algorithm: upload
                .algorithm
                .map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name())),
            ..ListPartsOutput::default()
        }))
    }
}

/// Whether the object's checksum is that of all bytes; not every algorithm can be either
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>).
fn full_object(algorithm: Option<Algorithm>, kind: Option<&ChecksumType>) -> S3Result<bool> {
    let Some(algorithm) = algorithm else {
        return match kind {
            None => Ok(false),
            Some(_) => Err(s3_error!(
                InvalidRequest,
                "x-amz-checksum-type needs x-amz-checksum-algorithm."
            )),
        };
    };
    match (algorithm, kind.map(ChecksumType::as_str)) {
        (Algorithm::Crc64Nvme, None | Some(ChecksumType::FULL_OBJECT))
        | (Algorithm::Crc32 | Algorithm::Crc32c, Some(ChecksumType::FULL_OBJECT)) => Ok(true),
        (Algorithm::Crc64Nvme, _) => {
            Err(s3_error!(InvalidRequest, "A checksum of CRC64NVME must be FULL_OBJECT."))
        }
        (_, None | Some(ChecksumType::COMPOSITE)) => Ok(false),
        _ => {
            Err(s3_error!(InvalidRequest, "A checksum of {} must be COMPOSITE.", algorithm.name()))
        }
    }
}
