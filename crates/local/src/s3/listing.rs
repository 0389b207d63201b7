//! Operations that list: objects, in both versions of the protocol, and buckets.

use super::checksum::StoredChecksum;
use super::object::checksum_type;
use super::ops::{Operations, refuse, size, timestamp};
use super::walk::{After, Page, Query, list};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TOKEN;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use std::fs;

/// The most keys of a page, and how many there are when none is asked for.
const MOST_KEYS: i32 = 1000;
/// What `encoding-type=url` leaves as it is.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'/');

/// How texts are written into the answer.
#[derive(Clone, Copy)]
struct Encoding {
    url: bool,
}

impl Encoding {
    fn of(given: Option<&EncodingType>) -> S3Result<Self> {
        match given.map(EncodingType::as_str) {
            None => Ok(Self { url: false }),
            Some(EncodingType::URL) => Ok(Self { url: true }),
            Some(other) => {
                Err(s3_error!(InvalidArgument, "The encoding type {other} is not \"url\"."))
            }
        }
    }

    fn write(self, text: &str) -> String {
        if self.url { utf8_percent_encode(text, PLAIN).to_string() } else { text.to_owned() }
    }

    fn write_given(self, text: Option<&String>) -> Option<String> {
        text.map(|text| self.write(text))
    }

    fn objects(self, page: &Page) -> S3Result<Vec<Object>> {
        page.objects
            .iter()
            .map(|object| {
                let checksum: Option<&StoredChecksum> = object.checksum.as_ref();
                Ok(Object {
                    key: Some(self.write(&object.key)),
                    size: Some(size(object.size)?),
                    e_tag: Some(ETag::Strong(object.etag.clone())),
                    last_modified: Some(timestamp(object.modified)),
                    storage_class: Some(ObjectStorageClass::from_static(
                        ObjectStorageClass::STANDARD,
                    )),
                    checksum_algorithm: checksum
                        .map(|c| vec![ChecksumAlgorithm::from_static(c.algorithm.name())]),
                    checksum_type: checksum_type(checksum),
                    ..Object::default()
                })
            })
            .collect()
    }

    fn prefixes(self, page: &Page) -> Vec<CommonPrefix> {
        page.common_prefixes
            .iter()
            .map(|prefix| CommonPrefix { prefix: Some(self.write(prefix)) })
            .collect()
    }
}

fn max_keys(given: Option<i32>) -> S3Result<i32> {
    let most = given.unwrap_or(MOST_KEYS);
    if most < 0 {
        return Err(s3_error!(InvalidArgument, "max-keys must not be negative."));
    }
    Ok(most.min(MOST_KEYS))
}

impl Operations {
    async fn page(
        &self,
        bucket: &str,
        prefix: Option<String>,
        delimiter: Option<String>,
        after: After,
        max_keys: i32,
    ) -> S3Result<Page> {
        self.bucket(bucket)?;
        let query = Query {
            bucket: bucket.to_owned(),
            prefix: prefix.unwrap_or_default(),
            delimiter,
            after,
            limit: usize::try_from(max_keys).unwrap_or_default(),
        };
        self.blocking(move |store| list(store, &query)).await
    }

    pub(super) async fn list_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        refuse!(input, expected_bucket_owner, optional_object_attributes, request_payer);
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let max_keys = max_keys(input.max_keys)?;
        let after = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => TOKEN
                .decode(token)
                .ok()
                .and_then(|text| String::from_utf8(text).ok())
                .and_then(|text| After::from_token(&text))
                .ok_or_else(|| {
                    s3_error!(InvalidArgument, "The continuation token provided is incorrect.")
                })?,
            (None, Some(key)) => After::Key(key.clone()),
            (None, None) => After::Nothing,
        };
        let page = self
            .page(&input.bucket, input.prefix.clone(), input.delimiter.clone(), after, max_keys)
            .await?;
        let contents = encoding.objects(&page)?;
        let common_prefixes = encoding.prefixes(&page);
        let count = contents.len() + common_prefixes.len();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(encoding.write(&input.prefix.unwrap_or_default())),
            delimiter: encoding.write_given(input.delimiter.as_ref()),
            start_after: encoding.write_given(input.start_after.as_ref()),
            max_keys: Some(max_keys),
            key_count: i32::try_from(count).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page
                .next
                .and_then(|after| after.token())
                .map(|text| TOKEN.encode(text)),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            encoding_type: input.encoding_type,
            request_charged: None,
        }))
    }

    pub(super) async fn list_v1(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        refuse!(input, expected_bucket_owner, optional_object_attributes, request_payer);
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let max_keys = max_keys(input.max_keys)?;
        let after = input
            .marker
            .clone()
            .filter(|marker| !marker.is_empty())
            .map_or(After::Nothing, After::Key);
        let page = self
            .page(&input.bucket, input.prefix.clone(), input.delimiter.clone(), after, max_keys)
            .await?;
        // S3 gives a marker only with a delimiter; without, it is the last key.
        let next_marker = match &page.next {
            Some(After::Key(last) | After::Prefix(last)) if input.delimiter.is_some() => {
                Some(encoding.write(last))
            }
            _ => None,
        };
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(encoding.write(&input.prefix.unwrap_or_default())),
            marker: Some(encoding.write(&input.marker.unwrap_or_default())),
            delimiter: encoding.write_given(input.delimiter.as_ref()),
            max_keys: Some(max_keys),
            is_truncated: Some(page.next.is_some()),
            next_marker,
            contents: Some(encoding.objects(&page)?),
            common_prefixes: Some(encoding.prefixes(&page)),
            encoding_type: input.encoding_type,
            request_charged: None,
        }))
    }

    pub(super) async fn buckets(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let input = request.input;
        refuse!(input, bucket_region, continuation_token, max_buckets);
        let prefix = input.prefix.clone().unwrap_or_default();
        let buckets = self
            .blocking(move |store| {
                Ok(store
                    .buckets()
                    .filter(|(name, _)| name.starts_with(&prefix))
                    .map(|(name, folder)| Bucket {
                        name: Some(name.to_owned()),
                        creation_date: fs::metadata(folder)
                            .and_then(|folder| folder.created().or_else(|_| folder.modified()))
                            .ok()
                            .map(timestamp),
                        bucket_region: None,
                    })
                    .collect())
            })
            .await?;
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets),
            prefix: input.prefix,
            ..ListBucketsOutput::default()
        }))
    }
}
