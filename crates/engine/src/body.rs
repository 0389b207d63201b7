//! A part of a file as an HTTP body, read in small pieces.

use std::{
    io::{self, Seek as _, SeekFrom},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use futures::Stream as _;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt as _, Take};
use tokio_util::io::ReaderStream;

use crate::reachable;

/// How much is read at once, in bytes: what an upload holds in memory.
const PIECE: usize = 128 * 1024;

/// Why a part could not be read, whichever of the SDK's tries it was.
#[derive(Clone, Default)]
pub(crate) struct Outcome(Arc<Mutex<Option<io::Error>>>);

impl Outcome {
    /// The error, if there was one.
    pub(crate) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: io::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// A body of `length` bytes of the file at `path` from `offset` on. Sent again, it is read again.
pub(crate) fn part(path: PathBuf, offset: u64, length: u64) -> (ByteStream, Outcome) {
    let outcome = Outcome::default();
    let shared = outcome.clone();
    let body = SdkBody::retryable(move || {
        SdkBody::from_body_1_x(PartBody {
            source: Source::Closed { path: path.clone(), offset },
            remaining: length,
            outcome: shared.clone(),
        })
    });
    (ByteStream::new(body), outcome)
}

enum Source {
    /// Not yet read: the SDK makes more bodies than it sends.
    Closed {
        path: PathBuf,
        offset: u64,
    },
    Open(ReaderStream<Take<tokio::fs::File>>),
    Done,
}

struct PartBody {
    source: Source,
    remaining: u64,
    outcome: Outcome,
}

impl PartBody {
    fn fail(&mut self, error: io::Error) -> io::Error {
        let copy = io::Error::new(error.kind(), error.to_string());
        self.outcome.set(error);
        self.source = Source::Done;
        copy
    }
}

impl Body for PartBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        if let Source::Closed { path, offset } = &self.source {
            let opened = reachable::open(path).and_then(|mut file| {
                file.seek(SeekFrom::Start(*offset))?;
                Ok(file)
            });
            match opened {
                Ok(file) => {
                    let reader = tokio::fs::File::from_std(file).take(self.remaining);
                    self.source = Source::Open(ReaderStream::with_capacity(reader, PIECE));
                }
                Err(error) => return Poll::Ready(Some(Err(self.fail(error)))),
            }
        }
        let Source::Open(stream) = &mut self.source else { return Poll::Ready(None) };
        match Pin::new(stream).poll_next(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(piece))) => {
                self.remaining = self.remaining.saturating_sub(piece.len() as u64);
                if self.remaining == 0 {
                    // The file need not be open for longer.
                    self.source = Source::Done;
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.fail(error)))),
            Poll::Ready(None) => Poll::Ready(Some(Err(self.fail(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was uploaded",
            ))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), content).expect("written");
        file
    }

    #[tokio::test]
    async fn a_part_can_be_sent_again() {
        let file = file(b"0123456789");
        let (body, outcome) = part(file.path().to_owned(), 3, 5);
        let body = body.into_inner();
        for _ in 0..2 {
            let again = ByteStream::new(body.try_clone().expect("can be sent again"));
            assert_eq!(&again.collect().await.expect("read").into_bytes()[..], b"34567");
        }
        assert!(outcome.take().is_none());
    }

    #[tokio::test]
    async fn a_file_that_shrinks_or_is_gone_is_told_apart_from_the_network() {
        let file = file(b"hello");
        for (path, length) in [(file.path().to_owned(), 6), (file.path().join("gone"), 1)] {
            let (body, outcome) = part(path, 0, length);
            assert!(body.collect().await.is_err());
            assert!(outcome.take().is_some());
        }
    }
}
