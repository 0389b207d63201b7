//! Operations on objects: get, head, put, delete, copy.

use super::access::{caller, denied};
use super::checksum::{Algorithm, StoredChecksum, set_checksum};
use super::error::{IoContext as _, StoreError};
use super::meta::{DEFAULT_CONTENT_TYPE, Headers, Meta};
use super::ops::{Operations, not_supported, refuse, size, timestamp};
use super::store::{CHUNK, Object, Precondition, Store, matches};
use super::stream::{FileStream, read_piece};
use super::upload::{Expectation, receive};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use s3s::dto::*;
use s3s::{Body, S3Error, S3Request, S3Response, S3Result, s3_error};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range as Bytes;
use std::path::Path;

/// The limit of `x-amz-meta-*`, names and values together.
const MOST_USER_METADATA: usize = 2048;
/// The most keys of one `DeleteObjects`.
const MOST_DELETED: usize = 1000;

/// Fills the fields that the answers to GET and HEAD share.
macro_rules! describe {
    ($output:expr, $object:expr, $span:expr, $with_checksum:expr) => {{
        let (object, span): (&Object, &Span) = ($object, $span);
        let headers = &object.meta.headers;
        $output.accept_ranges = Some("bytes".to_owned());
        $output.content_length = Some(size(span.bytes.end - span.bytes.start)?);
        $output.content_range.clone_from(&span.content_range);
        $output.e_tag = Some(ETag::Strong(object.meta.etag.clone()));
        $output.last_modified = Some(timestamp(object.stamp.modified()));
        let content_type = headers.content_type.clone();
        $output.content_type = content_type.or_else(|| Some(DEFAULT_CONTENT_TYPE.to_owned()));
        $output.cache_control.clone_from(&headers.cache_control);
        $output.content_disposition.clone_from(&headers.content_disposition);
        $output.content_encoding.clone_from(&headers.content_encoding);
        $output.content_language.clone_from(&headers.content_language);
        $output.expires = headers
            .expires
            .as_deref()
            .and_then(|date| Timestamp::parse(TimestampFormat::HttpDate, date).ok());
        let user = object.meta.user.clone();
        $output.metadata = Some(user.into_iter().collect::<HashMap<_, _>>());
        if $with_checksum && span.content_range.is_none() {
            set_checksum!($output, &object.meta.checksum);
            $output.checksum_type = checksum_type(object.meta.checksum.as_ref());
        }
    }};
}

/// Collects the headers that come back with an object from the inputs that carry them.
macro_rules! given_headers {
    ($input:expr) => {
        Headers {
            content_type: $input.content_type.clone(),
            cache_control: $input.cache_control.clone(),
            content_disposition: $input.content_disposition.clone(),
            content_encoding: $crate::s3::object::without_framing(
                $input.content_encoding.as_deref(),
            ),
            content_language: $input.content_language.clone(),
            expires: $input.expires.as_ref().map($crate::s3::object::http_date).transpose()?,
        }
    };
}
pub(super) use given_headers;

/// The part of an object that was asked for.
struct Span {
    bytes: Bytes<u64>,
    content_range: Option<String>,
}

impl Span {
    fn of(object: &Object, range: Option<Range>) -> S3Result<Self> {
        let whole = object.stamp.size;
        let Some(range) = range else {
            return Ok(Self { bytes: 0..whole, content_range: None });
        };
        match range.check(whole) {
            Ok(bytes) if !bytes.is_empty() => Ok(Self {
                content_range: Some(format!("bytes {}-{}/{whole}", bytes.start, bytes.end - 1)),
                bytes,
            }),
            _ => {
                let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
                error.set_headers(headers(&[
                    (header::CONTENT_TYPE, "application/xml"),
                    (header::CONTENT_RANGE, &format!("bytes */{whole}")),
                ])?);
                Err(error)
            }
        }
    }
}

/// The conditions of a GET, a HEAD, or the source of a copy.
pub(super) struct Conditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

impl Conditions {
    /// In the order of RFC 9110, section 13.2.2. `unchanged` is the answer when the caller has it.
    pub(super) fn check(
        &self,
        object: &Object,
        unchanged: impl FnOnce() -> S3Result<S3Error>,
    ) -> S3Result<()> {
        let etag = &object.meta.etag;
        let modified = timestamp(object.stamp.modified());
        let failed = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => !matches(condition, etag),
            (None, Some(since)) => modified > *since,
            (None, None) => false,
        };
        if failed {
            return Err(StoreError::PreconditionFailed.into());
        }
        let has_it = match (&self.if_none_match, &self.if_modified_since) {
            (Some(ETagCondition::Any), _) => true,
            // Weak comparison: a client may have weakened it.
            (Some(ETagCondition::ETag(known)), _) => known.value() == etag,
            (None, Some(since)) => modified <= *since,
            (None, None) => false,
        };
        if has_it { Err(unchanged()?) } else { Ok(()) }
    }

    fn check_read(&self, object: &Object) -> S3Result<()> {
        self.check(object, || {
            let mut error = S3Error::new(s3s::S3ErrorCode::NotModified);
            let date = http_date(&timestamp(object.stamp.modified()))?;
            error.set_headers(headers(&[
                (header::ETAG, &format!("\"{}\"", object.meta.etag)),
                (header::LAST_MODIFIED, &date),
            ])?);
            Ok(error)
        })
    }
}

impl Operations {
    pub(super) async fn open(&self, bucket: &str, key: &str) -> S3Result<Option<Object>> {
        self.bucket(bucket)?;
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.blocking(move |store| store.find(&bucket, &key)).await
    }

    pub(super) async fn get(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        refuse!(
            input,
            part_number,
            version_id,
            sse_customer_algorithm,
            sse_customer_key,
            sse_customer_key_md5,
            expected_bucket_owner,
            request_payer,
        );
        let Some(object) = self.open(&input.bucket, &input.key).await? else {
            return Err(caller(&request.extensions).missing(&input.bucket));
        };
        Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        }
        .check_read(&object)?;
        let span = Span::of(&object, input.range)?;
        let mut output = GetObjectOutput::default();
        describe!(output, &object, &span, input.checksum_mode.is_some());
        let length = span.bytes.end - span.bytes.start;
        output.body = Some(if length <= CHUNK as u64 {
            let bytes = span.bytes;
            let piece = self
                .blocking(move |_| {
                    read_piece(&object.file, bytes).context("read", Path::new("an object"))
                })
                .await?;
            StreamingBlob::from(Body::from(piece))
        } else {
            StreamingBlob::new(FileStream::new(object.file, span.bytes))
        });
        Ok(S3Response::new(output))
    }

    pub(super) async fn head(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        refuse!(
            input,
            part_number,
            version_id,
            sse_customer_algorithm,
            sse_customer_key,
            sse_customer_key_md5,
            expected_bucket_owner,
            request_payer,
        );
        let Some(object) = self.open(&input.bucket, &input.key).await? else {
            return Err(caller(&request.extensions).missing(&input.bucket));
        };
        Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        }
        .check_read(&object)?;
        let span = Span::of(&object, input.range)?;
        let mut output = HeadObjectOutput::default();
        describe!(output, &object, &span, input.checksum_mode.is_some());
        // s3s overrides the headers of a GET by itself, those of a HEAD not.
        let override_with = |value: &mut Option<String>, given: Option<String>| {
            if given.is_some() {
                *value = given;
            }
        };
        override_with(&mut output.content_type, input.response_content_type);
        override_with(&mut output.cache_control, input.response_cache_control);
        override_with(&mut output.content_encoding, input.response_content_encoding);
        override_with(&mut output.content_language, input.response_content_language);
        override_with(&mut output.content_disposition, input.response_content_disposition);
        output.expires = input.response_expires.or(output.expires);
        let partial = output.content_range.is_some();
        let mut response = S3Response::new(output);
        if partial {
            response.status = Some(StatusCode::PARTIAL_CONTENT);
        }
        Ok(response)
    }

    pub(super) async fn put(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
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
            write_offset_bytes,
        );
        only_standard(input.storage_class.as_ref())?;
        self.bucket(&input.bucket)?;
        let precondition = write_precondition(input.if_match, input.if_none_match)?;
        let user = user_metadata(input.metadata)?;
        let headers = given_headers!(input);
        let expectation = Expectation::read(
            &request.headers,
            input.content_length,
            input.content_md5.as_deref(),
            request.trailing_headers,
        )?;
        let received = receive(&self.store, input.body, expectation).await?;
        let meta = Meta {
            etag: received.md5,
            headers,
            user,
            checksum: received.checksum,
            upload_id: None,
        };
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let committed = self
            .blocking(move |store| store.commit(&bucket, &key, received.file, meta, &precondition))
            .await?;
        self.created(&input.bucket, &input.key, &committed);
        let mut output = PutObjectOutput {
            e_tag: Some(ETag::Strong(committed.meta.etag)),
            checksum_type: checksum_type(committed.meta.checksum.as_ref()),
            ..PutObjectOutput::default()
        };
        set_checksum!(output, &committed.meta.checksum);
        Ok(S3Response::new(output))
    }

    pub(super) async fn delete(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        refuse!(
            input,
            bypass_governance_retention,
            expected_bucket_owner,
            if_match_last_modified_time,
            if_match_size,
            mfa,
            request_payer,
            version_id,
        );
        self.bucket(&input.bucket)?;
        let precondition = Precondition { absent: false, if_match: input.if_match };
        self.blocking(move |store| store.delete(&input.bucket, &input.key, &precondition)).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    pub(super) async fn delete_many(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let caller = caller(&request.extensions);
        let input = request.input;
        refuse!(input, bypass_governance_retention, expected_bucket_owner, mfa, request_payer,);
        self.bucket(&input.bucket)?;
        let Delete { objects, quiet } = input.delete;
        if objects.is_empty() || objects.len() > MOST_DELETED {
            return Err(s3_error!(
                MalformedXML,
                "The list of keys to delete must have 1 to {MOST_DELETED} of them."
            ));
        }
        let bucket = input.bucket;
        let output = self
            .blocking(move |store| {
                let mut output = DeleteObjectsOutput::default();
                let deleted = output.deleted.get_or_insert_default();
                let errors = output.errors.get_or_insert_default();
                for object in objects {
                    let key = object.key.clone();
                    let may = caller.may("s3:DeleteObject", &bucket, Some(&key));
                    let done = if may {
                        delete_listed(store, &bucket, object)
                    } else {
                        Err(denied("s3:DeleteObject"))
                    };
                    match done {
                        Ok(()) if quiet == Some(true) => {}
                        Ok(()) => deleted
                            .push(DeletedObject { key: Some(key), ..DeletedObject::default() }),
                        Err(error) => errors.push(Error {
                            code: Some(error.code().as_str().to_owned()),
                            key: Some(key),
                            message: error.message().map(str::to_owned),
                            version_id: None,
                        }),
                    }
                }
                Ok(output)
            })
            .await?;
        Ok(S3Response::new(output))
    }
}

fn delete_listed(store: &Store, bucket: &str, object: ObjectIdentifier) -> S3Result<()> {
    refuse!(object, version_id, last_modified_time, size);
    if object.key.is_empty() || !s3s::path::check_key(&object.key) {
        return Err(s3_error!(KeyTooLongError, "A key has 1 to 1,024 bytes of UTF-8."));
    }
    let precondition =
        Precondition { absent: false, if_match: object.e_tag.map(ETagCondition::ETag) };
    Ok(store.delete(bucket, &object.key, &precondition)?)
}

/// The conditions of a write. S3 knows `If-None-Match: *` only.
pub(super) fn write_precondition(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<Precondition> {
    match if_none_match {
        Some(ETagCondition::ETag(_)) => {
            Err(s3_error!(NotImplemented, "If-None-Match of a write must be *."))
        }
        other => Ok(Precondition { absent: other.is_some(), if_match }),
    }
}

pub(super) fn user_metadata(given: Option<Metadata>) -> S3Result<BTreeMap<String, String>> {
    let user: BTreeMap<String, String> = given.unwrap_or_default().into_iter().collect();
    let size: usize = user.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MOST_USER_METADATA {
        return Err(s3_error!(
            MetadataTooLarge,
            "The user metadata has {size} bytes; {MOST_USER_METADATA} are allowed."
        ));
    }
    Ok(user)
}

pub(super) fn only_standard(class: Option<&StorageClass>) -> S3Result<()> {
    match class {
        Some(class) if class.as_str() != StorageClass::STANDARD => {
            Err(not_supported("storage_class"))
        }
        _ => Ok(()),
    }
}

/// `aws-chunked` says how the body came, not what the object is.
pub(super) fn without_framing(content_encoding: Option<&str>) -> Option<String> {
    let kept: Vec<&str> = content_encoding?
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

pub(super) fn http_date(time: &Timestamp) -> S3Result<String> {
    let mut text = Vec::new();
    time.format(TimestampFormat::HttpDate, &mut text).map_err(S3Error::internal_error)?;
    String::from_utf8(text).map_err(S3Error::internal_error)
}

pub(super) fn checksum_type(checksum: Option<&StoredChecksum>) -> Option<ChecksumType> {
    checksum.map(|checksum| ChecksumType::from_static(checksum.kind()))
}

fn headers(pairs: &[(header::HeaderName, &str)]) -> S3Result<HeaderMap> {
    pairs
        .iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_str(value).map_err(S3Error::internal_error)?;
            Ok((name.clone(), value))
        })
        .collect()
}
