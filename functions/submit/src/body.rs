//! Reads a RunRequest and its attachments from a request's body.

use std::collections::BTreeMap;

use axum::{
    BoxError,
    body::{Body, BodyDataStream},
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, header};
use multer::{Constraints, Field, Multipart, SizeLimit};
use percent_encoding::percent_decode;
use stepwes_core::{
    ApiError,
    attachment::AttachmentName,
    request::{FIELDS, RunRequest},
};

use crate::{
    Limits,
    submission::{ReceivedAttachment, too_many_attachments},
};

/// The name of the parts that are attachments.
const ATTACHMENT: &str = "workflow_attachment";

/// What the parts' own headers may take beside their content, in bytes.
const HEADERS_ALLOWANCE: u64 = 1024 * 1024;

/// How much of a refused body is still read, in bytes: most clients send all of it before they
/// look at the answer, and would see a broken connection instead of the reason.
const DRAIN_LIMIT: u64 = 64 * 1024 * 1024;

/// The least that the form's parser is given at once, in bytes.
const PIECE: usize = 64 * 1024;

/// A request that has been read, not yet held against the service.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// The RunRequest.
    pub request: RunRequest,
    /// What came with it.
    pub attachments: Vec<ReceivedAttachment>,
}

/// Reads `multipart/form-data` (WES 1.1, `RunWorkflow`) or `application/json`. Fields that WES does
/// not know are ignored, so that clients of later versions are served.
///
/// # Errors
/// 415 for another content type, 413 for more than the limits, 400 for what cannot be read.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
) -> Result<Submission, ApiError> {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut stream = body.into_data_stream();
    let read = match essence.as_str() {
        // Nothing is unpacked here, so that no small body becomes a large one.
        _ if let Some(coding) = coding(headers) => Err(ApiError::UnsupportedMediaType(format!(
            "the body is packed (Content-Encoding: {coding:?}), which is not read here; send it as it is"
        ))),
        "multipart/form-data" => match multer::parse_boundary(content_type) {
            Ok(boundary) => read_form(in_pieces(&mut stream), boundary, limits).await,
            Err(_) => Err(ApiError::BadRequest(
                "the Content-Type multipart/form-data has no boundary".to_owned(),
            )),
        },
        "application/json" => read_json(&mut stream, limits).await,
        "" => Err(ApiError::BadRequest(
            "the request has no Content-Type, and so no RunRequest; send multipart/form-data, or application/json when there are no attachments".to_owned(),
        )),
        _ => Err(ApiError::UnsupportedMediaType(format!(
            "the Content-Type {content_type:?} is not read here; send multipart/form-data, or application/json when there are no attachments"
        ))),
    };
    if read.is_err() {
        drain(&mut stream).await;
    }
    read
}

/// How a body is packed, if it is.
fn coding(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.find(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

async fn drain(stream: &mut BodyDataStream) {
    let mut left = DRAIN_LIMIT;
    while let Some(Ok(chunk)) = stream.next().await {
        left = left.saturating_sub(chunk.len() as u64);
        if left == 0 {
            break;
        }
    }
}

fn request_too_large(limits: &Limits) -> ApiError {
    let bytes = limits.max_request_bytes;
    let tenths = bytes / 100_000;
    ApiError::PayloadTooLarge(format!(
        "the request's attachments and fields are over {bytes} bytes ({}.{} MB), the most that this service takes; put large files where the engine can fetch them, and name them by URL in workflow_params",
        tenths / 10,
        tenths % 10
    ))
}

fn fields_too_large(limits: &Limits) -> ApiError {
    ApiError::PayloadTooLarge(format!(
        "the request's fields, attachments aside, are over {} bytes; put large values into an attachment and name it in workflow_params",
        limits.max_field_bytes
    ))
}

async fn read_json(stream: &mut BodyDataStream, limits: &Limits) -> Result<Submission, ApiError> {
    let mut text = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|error| ApiError::BadRequest(format!("the body broke off: {error}")))?;
        if (text.len() + chunk.len()) as u64 > limits.max_field_bytes {
            return Err(fields_too_large(limits));
        }
        text.extend_from_slice(&chunk);
    }
    Ok(Submission { request: RunRequest::from_json(&text)?, attachments: Vec::new() })
}

/// The body in pieces of [`PIECE`] bytes at least, however small they come: for each piece the
/// parser looks through all that it has not made a part of, so bytes that come one by one would
/// keep it busy for many minutes.
fn in_pieces<S, E>(stream: S) -> impl Stream<Item = Result<Bytes, E>> + Send
where
    S: Stream<Item = Result<Bytes, E>> + Unpin + Send,
    E: Send,
{
    stream::unfold(stream.fuse(), |mut stream| async {
        let mut piece = BytesMut::new();
        while piece.len() < PIECE {
            match stream.next().await {
                Some(Ok(chunk)) => piece.extend_from_slice(&chunk),
                Some(Err(error)) => return Some((Err(error), stream)),
                None if piece.is_empty() => return None,
                None => break,
            }
        }
        Some((Ok(piece.freeze()), stream))
    })
}

/// Reads a form.
pub(crate) async fn read_form<S, E>(
    stream: S,
    boundary: String,
    limits: &Limits,
) -> Result<Submission, ApiError>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: Into<BoxError>,
{
    let whole = limits.max_request_bytes.saturating_add(HEADERS_ALLOWANCE);
    let constraints = Constraints::new().size_limit(SizeLimit::new().whole_stream(whole));
    let mut form = Multipart::with_constraints(stream, boundary, constraints);
    let mut budget = Budget { limits, all: 0, fields: 0 };
    let mut fields = BTreeMap::new();
    let mut attachments = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|error| malformed(&error, limits))? {
        match field.name().map(str::to_owned) {
            Some(name) if name == ATTACHMENT => {
                if attachments.len() == limits.max_attachments {
                    return Err(too_many_attachments(limits));
                }
                let filename = field.file_name().map(str::to_owned).or_else(|| extended(&field));
                let name = AttachmentName::parse(filename.as_deref(), attachments.len() + 1)?;
                let content = budget.take(field, Kind::Attachment).await?;
                attachments.push(ReceivedAttachment { name, content });
            }
            Some(name) if FIELDS.contains(&name.as_str()) => {
                let text = budget.take(field, Kind::Field).await?;
                let text = String::from_utf8(text.into())
                    .map_err(|_| ApiError::BadRequest(format!("{name} is not UTF-8")))?;
                if fields.insert(name.clone(), text).is_some() {
                    return Err(ApiError::BadRequest(format!(
                        "{name} is there more than once; send it once"
                    )));
                }
            }
            _ => {
                budget.take(field, Kind::Unknown).await?;
            }
        }
    }
    Ok(Submission { request: RunRequest::from_form(fields)?, attachments })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Attachment,
    Field,
    /// Read, since it is in the way, and not kept.
    Unknown,
}

/// How much has been read.
struct Budget<'a> {
    limits: &'a Limits,
    all: u64,
    fields: u64,
}

impl Budget<'_> {
    async fn take(&mut self, mut field: Field<'_>, kind: Kind) -> Result<Bytes, ApiError> {
        let mut content = BytesMut::new();
        while let Some(chunk) =
            field.chunk().await.map_err(|error| malformed(&error, self.limits))?
        {
            let size = chunk.len() as u64;
            self.all += size;
            if self.all > self.limits.max_request_bytes {
                return Err(request_too_large(self.limits));
            }
            if kind == Kind::Field {
                self.fields += size;
                if self.fields > self.limits.max_field_bytes {
                    return Err(fields_too_large(self.limits));
                }
            }
            if kind != Kind::Unknown {
                content.extend_from_slice(&chunk);
            }
        }
        Ok(content.freeze())
    }
}

fn malformed(error: &multer::Error, limits: &Limits) -> ApiError {
    match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => {
            request_too_large(limits)
        }
        other => ApiError::BadRequest(format!("the multipart body is malformed: {other}")),
    }
}

/// The `filename*` of RFC 8187, which some HTTP libraries send instead of `filename` when a name is
/// not ASCII.
fn extended(field: &Field<'_>) -> Option<String> {
    let disposition = field.headers().get(header::CONTENT_DISPOSITION)?.to_str().ok()?;
    let value = disposition.split(';').find_map(|part| part.trim().strip_prefix("filename*="))?;
    let mut parts = value.splitn(3, '\'');
    let charset = parts.next()?;
    let encoded = parts.nth(1)?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    percent_decode(encoded.as_bytes()).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn a_body_of_single_bytes_reaches_the_parser_in_pieces() {
        let bytes = Bytes::from(vec![b'x'; 2 * PIECE + 1]);
        let single = (0..bytes.len()).map(|at| Ok::<_, Infallible>(bytes.slice(at..=at)));
        let pieces: Vec<_> = in_pieces(stream::iter(single)).collect().await;
        let sizes: Vec<_> = pieces.iter().flatten().map(Bytes::len).collect();
        assert_eq!(sizes, [PIECE, PIECE, 1]);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_told_so() {
        let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err("broken")]);
        let pieces: Vec<_> = in_pieces(broken).collect().await;
        assert_eq!(pieces, [Err("broken")]);
    }
}
