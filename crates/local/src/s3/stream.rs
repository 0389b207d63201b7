//! Giving a file out, in pieces read on threads that may block.

use super::store::CHUNK;
use bytes::Bytes;
use futures::Stream;
use s3s::StdError;
use s3s::stream::{ByteStream, RemainingLength};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::{JoinHandle, spawn_blocking};

/// A range of a file as a body; one piece is in memory at a time.
#[derive(Debug)]
pub(super) struct FileStream {
    file: Arc<File>,
    range: Range<u64>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileStream {
    pub(super) fn new(file: File, range: Range<u64>) -> Self {
        Self { file: Arc::new(file), range, reading: None }
    }
}

impl Stream for FileStream {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.range.is_empty() {
            return Poll::Ready(None);
        }
        let (file, range) = (Arc::clone(&self.file), self.range.clone());
        let reading =
            self.reading.get_or_insert_with(|| spawn_blocking(move || read_piece(&file, range)));
        let piece = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let piece = match piece {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Poll::Ready(Some(Err(Box::new(error)))),
            Err(error) => return Poll::Ready(Some(Err(Box::new(error)))),
        };
        self.range.start += piece.len() as u64;
        Poll::Ready(Some(Ok(piece)))
    }
}

impl ByteStream for FileStream {
    fn remaining_length(&self) -> RemainingLength {
        let left = self.range.end.saturating_sub(self.range.start);
        usize::try_from(left)
            .map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

/// Reads the beginning of a range, at most one piece of it.
pub(super) fn read_piece(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let left = range.end.saturating_sub(range.start);
    let mut piece = vec![0; usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK))];
    file.read_exact_at(&mut piece, range.start)?;
    Ok(piece.into())
}
