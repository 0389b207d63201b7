//! What must hold of a submission's body, however it is cut into pieces.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures::stream;
use stepwes_core::{ApiError, request::RunRequest};

use crate::{Limits, Submission, body::read_form};

/// Panics when something does not hold for an input.
pub type Property = fn(&[u8]);

/// The properties by their names.
pub const TARGETS: &[(&str, Property)] = &[("multipart", multipart), ("form", form)];

const LIMITS: Limits = Limits {
    max_request_bytes: 1024,
    max_field_bytes: 512,
    max_attachments: 4,
    max_tags: 4,
    max_tag_bytes: 64,
    max_url_bytes: 64,
};

/// The boundary of every body here.
const BOUNDARY: &str = "x";

/// The size of pieces, in one byte (0 for all at once), and a form's body: it reads the same in
/// pieces, and what is accepted is within the limits. Of a body that is too large and broken the one
/// is told or the other: sizes are counted as bytes come, and an end is missed at the end.
pub fn multipart(input: &[u8]) {
    let Some((size, body)) = input.split_first() else { return };
    let read = |size| match read_in_pieces(body, size, &LIMITS) {
        Ok(submission) => Ok(submission),
        Err(error) => Err(error.status()),
    };
    let whole = read(0);
    let pieces = read(usize::from(*size));
    if body.len() as u64 > LIMITS.max_field_bytes {
        assert_eq!(pieces.as_ref().ok(), whole.as_ref().ok());
    } else {
        assert_eq!(pieces, whole);
    }
    for read in [pieces, whole] {
        match read {
            Err(status) => assert!(matches!(status, 400 | 413), "{status}"),
            Ok(Submission { attachments, .. }) => {
                let bytes: usize = attachments.iter().map(|file| file.content.len()).sum();
                assert!(bytes as u64 <= LIMITS.max_request_bytes);
                assert!(attachments.len() <= LIMITS.max_attachments);
            }
        }
    }
}

/// Reads a body that comes in pieces of `size`, and after each one makes the reader wait.
fn read_in_pieces(body: &[u8], size: usize, limits: &Limits) -> Result<Submission, ApiError> {
    let size = if size == 0 { body.len().max(1) } else { size };
    let mut pieces = body.chunks(size).map(Bytes::copy_from_slice);
    let mut waits = false;
    let stream = stream::poll_fn(move |_| {
        waits = !waits;
        if waits { Poll::Pending } else { Poll::Ready(pieces.next().map(Ok::<_, Infallible>)) }
    });
    let mut reading = pin!(read_form(stream, BOUNDARY.to_owned(), limits));
    loop {
        if let Poll::Ready(done) = reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
}

/// Names and contents of files, 0xFF between them, of which a form is made as browsers make one:
/// they are read as they were.
pub fn form(input: &[u8]) {
    let mut pieces = input.split(|byte| *byte == 0xff);
    let mut body = Vec::new();
    let mut part = |disposition: &str, content: &[u8]| {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    };
    let url = String::from_utf8_lossy(pieces.next().unwrap_or_default()).into_owned();
    let fields =
        [("workflow_type", "CWL"), ("workflow_type_version", "v1.2"), ("workflow_url", &url)];
    for (name, value) in fields {
        part(&format!("name=\"{name}\""), value.as_bytes());
    }
    let mut files = Vec::new();
    while let (Some(name), Some(content)) = (pieces.next(), pieces.next()) {
        let name = String::from_utf8_lossy(name);
        // What clients escape, each in its own way, since no header can have it.
        if name.contains(|c: char| matches!(c, '"' | '\\') || c.is_ascii_control()) {
            return;
        }
        part(&format!("name=\"workflow_attachment\"; filename=\"{name}\""), content);
        files.push((name.into_owned(), content));
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    let delimiter = format!("\r\n--{BOUNDARY}");
    let is_delimited = |content: &[u8]| {
        content.windows(delimiter.len()).any(|window| window == delimiter.as_bytes())
    };
    if is_delimited(url.as_bytes()) || files.iter().any(|(_, content)| is_delimited(content)) {
        return;
    }
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let limits = Limits { max_attachments: usize::MAX, ..Limits::default() };
    match read_in_pieces(&body, 0, &limits) {
        Err(error) => assert!(
            RunRequest::from_form(BTreeMap::from(fields)).is_err()
                || files.iter().any(|(name, _)| !is_attachment(name)),
            "{error}"
        ),
        Ok(submission) => {
            assert_eq!(RunRequest::from_form(BTreeMap::from(fields)), Ok(submission.request));
            assert_eq!(submission.attachments.len(), files.len());
            for (read, (name, content)) in submission.attachments.iter().zip(&files) {
                let parts: Vec<_> =
                    name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
                assert_eq!(read.name.as_str(), parts.join("/"));
                assert_eq!(read.content, *content);
            }
        }
    }
}

fn is_attachment(name: &str) -> bool {
    stepwes_core::attachment::AttachmentName::parse(Some(name), 1).is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_property_holds_on_its_corpus_and_on_changes_of_it() {
        stepwes_fuzz::check_all(super::TARGETS);
    }
}
