//! What can go wrong in the store, and how S3 says it.

use s3s::{S3Error, S3ErrorCode};
use std::io;
use std::path::{Path, PathBuf};

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("no object has this key")]
    NoSuchKey,
    #[error("no upload has this id; it was completed, aborted, or never begun")]
    NoSuchUpload,
    #[error("a precondition of the request does not hold")]
    PreconditionFailed,
    #[error(
        "part {0} was not found, or its ETag or checksum is not the one that the upload answered"
    )]
    InvalidPart(i32),
    #[error("the list of parts must be in ascending order of part number")]
    InvalidPartOrder,
    #[error("part {0} is smaller than 5 MiB, which only the last part may be")]
    PartTooSmall(i32),
    #[error("the list of parts is empty")]
    NoParts,
    #[error("the parts have {found} bytes together, not the {expected} of x-amz-mp-object-size")]
    WrongObjectSize { expected: i64, found: u64 },
    #[error("the {0} given is not the one of the parts that were uploaded")]
    WrongChecksum(&'static str),
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another program is writing to the object's file; try again when it is done")]
    Changing,
    #[error("a background task of the store was lost")]
    TaskLost(#[from] tokio::task::JoinError),
}

pub(super) type StoreResult<T> = Result<T, StoreError>;

/// Says what was being done, to which path, when an operation on the file system failed.
pub(super) trait IoContext<T> {
    fn context(self, action: &'static str, path: &Path) -> StoreResult<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> StoreResult<T> {
        self.map_err(|source| StoreError::Io { action, path: path.to_owned(), source })
    }
}

/// Reads "there is none" out of an error of the file system. A name too long for the file system
/// cannot be there either.
pub(super) fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        let code = match &error {
            StoreError::NoSuchKey => S3ErrorCode::NoSuchKey,
            StoreError::NoSuchUpload => S3ErrorCode::NoSuchUpload,
            StoreError::PreconditionFailed => S3ErrorCode::PreconditionFailed,
            StoreError::InvalidPart(_) => S3ErrorCode::InvalidPart,
            StoreError::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
            StoreError::PartTooSmall(_) => S3ErrorCode::EntityTooSmall,
            StoreError::NoParts => S3ErrorCode::MalformedXML,
            StoreError::WrongObjectSize { .. } => S3ErrorCode::InvalidRequest,
            StoreError::WrongChecksum(_) => S3ErrorCode::BadDigest,
            StoreError::Changing => S3ErrorCode::ServiceUnavailable,
            StoreError::Io { source, .. } => return io_error(source.kind(), error),
            StoreError::TaskLost(_) => S3ErrorCode::InternalError,
        };
        S3Error::with_message(code, message)
    }
}

/// The path stays in the log (the source); the caller reads what to do.
fn io_error(kind: io::ErrorKind, error: StoreError) -> S3Error {
    use io::ErrorKind as Kind;
    let (code, message) = match kind {
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => (
            // No code of S3's means this; 507 is not retried by the SDKs, which a 500 would be.
            S3ErrorCode::Custom("InsufficientStorage".into()),
            "The disk of the S3 folder is full, or its quota is used up. Free some space, then try again.",
        ),
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => (
            S3ErrorCode::InternalError,
            "The S3 folder cannot be used: permission denied. Give this user read and write access to all of it.",
        ),
        Kind::InvalidFilename => (
            S3ErrorCode::KeyTooLongError,
            "The key's path is too long for this file system. Put the S3 folder nearer to the root, or shorten the key.",
        ),
        _ => (
            S3ErrorCode::InternalError,
            "The S3 folder could not be read or written. The server's log has the cause.",
        ),
    };
    let full = matches!(code, S3ErrorCode::Custom(_));
    let mut answer = S3Error::with_message(code, message);
    if full {
        answer.set_status_code(http::StatusCode::INSUFFICIENT_STORAGE);
    }
    answer.set_source(Box::new(error));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: io::ErrorKind) -> S3Error {
        Err::<(), _>(io::Error::from(kind))
            .context("write", Path::new("/secret/place"))
            .expect_err("an error")
            .into()
    }

    #[test]
    fn a_full_disk_is_507_and_says_what_to_do() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let error = answer(kind);
            assert_eq!(error.status_code().map(|s| s.as_u16()), Some(507));
            assert!(error.message().is_some_and(|m| m.contains("Free some space")));
        }
    }

    #[test]
    fn no_error_shows_a_path_to_the_caller() {
        for kind in [
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem,
            io::ErrorKind::Other,
            io::ErrorKind::StorageFull,
        ] {
            let error = answer(kind);
            assert!(error.message().is_some_and(|m| !m.contains("secret")));
            assert!(error.source().is_some());
        }
    }
}
