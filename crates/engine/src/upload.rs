//! Uploads from disk: hashed ahead of what is sent, so that S3 refuses what is not what was hashed, and
//! large files in parts, some at once.
//!
//! What was hashed a moment ago is read again from the system's cache when it is sent. So a part can be
//! sent again alone, many can be under way, and none of it is held in memory.

use std::{
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use aws_sdk_s3::{
    primitives::ByteStream,
    types::{
        ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
    },
};
use aws_smithy_types::base64;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sha1::{Digest as _, Sha1};
use tokio::{
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
};

use crate::{
    body,
    bucket::{Bucket, Fault, Uploaded, classify},
    error::chain,
    reachable,
    tree::Version,
};

/// Files above this size, in bytes, go up in parts of it.
const PART: u64 = 16 * 1024 * 1024;

/// Files up to this size, in bytes, are read into memory: handing each step to another thread takes
/// longer than the step.
const SMALL: u64 = 256 * 1024;

/// The most parts that S3 takes.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const MAX_PARTS: u64 = 10_000;

/// How much is hashed at once, in bytes.
const PIECE: usize = 256 * 1024;

/// How many files and parts are sent at once, in all.
pub(crate) const AT_ONCE: usize = 16;

/// How many parts of one file are sent at once.
const PARTS_AT_ONCE: usize = 8;

/// As many sends as there may be at once.
pub(crate) fn transfers() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}

/// The CRC-64/NVME of some bytes as S3 writes it. S3 computes it as well, of parts and of the whole,
/// and refuses what differs.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html>
fn checksum(crc: &Crc) -> String {
    base64::encode(crc.finalize().to_be_bytes())
}

fn new_crc() -> Crc {
    Crc::new(CrcAlgorithm::Crc64Nvme)
}

/// What a whole file was hashed to.
struct Hashed {
    sha1: Sha1,
    checksum: String,
}

/// A part that was hashed and is to be sent.
struct Part {
    number: i32,
    offset: u64,
    length: u64,
    checksum: String,
}

impl Bucket {
    /// Uploads the file at `path`. Its hash is that of what S3 has.
    ///
    /// # Errors
    /// [`Fault`]; a file that is changed meanwhile is a local one.
    pub(crate) async fn upload(
        &self,
        key: &str,
        path: &Path,
        content_type: Option<&str>,
    ) -> Result<Uploaded, Fault> {
        let size = Version::of(path).map_err(Fault::Local)?.size;
        let sha1 = if size > PART {
            self.upload_parts(key, path, size, content_type).await?
        } else {
            self.upload_whole(key, path, size, content_type).await?
        };
        Ok(Uploaded { size, sha1: hex::encode(sha1.finalize()) })
    }

    async fn upload_whole(
        &self,
        key: &str,
        path: &Path,
        size: u64,
        content_type: Option<&str>,
    ) -> Result<Sha1, Fault> {
        let before = Version::of(path).map_err(Fault::Local)?;
        let (hashed, content) = if size <= SMALL {
            let content = read(path, size).map_err(Fault::Local)?;
            (hash_bytes(&content), Some(content))
        } else {
            let own = path.to_owned();
            let hashed = spawn_blocking(move || hash_parts(&own, size, size, |_| true)).await;
            (joined(hashed)?, None)
        };
        self.patiently(key, || async {
            let _sending = self.transfers.acquire().await;
            let (body, outcome) = match &content {
                Some(content) => (ByteStream::from(content.clone()), None),
                None => {
                    let (body, outcome) = body::part(path.to_owned(), 0, size);
                    (body, Some(outcome))
                }
            };
            let sent = self
                .client
                .put_object()
                .bucket(&self.name)
                .key(key)
                .set_content_type(content_type.map(str::to_owned))
                .checksum_crc64_nvme(&hashed.checksum)
                .body(body)
                .send()
                .await;
            settle(sent.map_err(|error| classify(&error)), outcome, path, before)
        })
        .await?;
        Ok(hashed.sha1)
    }

    async fn upload_parts(
        &self,
        key: &str,
        path: &Path,
        size: u64,
        content_type: Option<&str>,
    ) -> Result<Sha1, Fault> {
        let begun = self
            .patiently(key, || async {
                self.client
                    .create_multipart_upload()
                    .bucket(&self.name)
                    .key(key)
                    .set_content_type(content_type.map(str::to_owned))
                    .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
                    .checksum_type(ChecksumType::FullObject)
                    .send()
                    .await
                    .map_err(|error| classify(&error))
            })
            .await?;
        let upload = begun.upload_id().unwrap_or_default();
        let sent = self.send_parts(key, path, size, upload).await;
        if sent.is_err() {
            // Should this fail too, the bucket's lifecycle rule clears the parts away.
            let abort = self.client.abort_multipart_upload().bucket(&self.name).key(key);
            if let Err(error) = abort.upload_id(upload).send().await {
                tracing::warn!("{key}: the parts of a failed upload stay: {}", chain(&error));
            }
        }
        sent
    }

    async fn send_parts(
        &self,
        key: &str,
        path: &Path,
        size: u64,
        upload: &str,
    ) -> Result<Sha1, Fault> {
        let before = Version::of(path).map_err(Fault::Local)?;
        // One part waits, another is being hashed: further ahead it might not be in the cache any
        // more when it is sent.
        let (hashed, coming) = mpsc::channel(1);
        let own = path.to_owned();
        let hashing = spawn_blocking(move || {
            hash_parts(&own, size, part_size(size), |part| hashed.blocking_send(part).is_ok())
        });
        let sent = stream::unfold(coming, async |mut coming| Some((coming.recv().await?, coming)))
            .map(|part| self.send_part(key, path, before, upload, part))
            .buffer_unordered(PARTS_AT_ONCE)
            .try_collect::<Vec<_>>()
            .await;
        let hashed = joined(hashing.await)?;
        let mut parts = sent?;
        parts.sort_by_key(CompletedPart::part_number);
        self.complete(key, size, upload, parts, &hashed.checksum).await?;
        Ok(hashed.sha1)
    }

    async fn send_part(
        &self,
        key: &str,
        path: &Path,
        before: Version,
        upload: &str,
        Part { number, offset, length, checksum }: Part,
    ) -> Result<CompletedPart, Fault> {
        let checksum = &checksum;
        let sent = self.patiently(key, || async move {
            let _sending = self.transfers.acquire().await;
            let (body, outcome) = body::part(path.to_owned(), offset, length);
            let sent = self
                .client
                .upload_part()
                .bucket(&self.name)
                .key(key)
                .upload_id(upload)
                .part_number(number)
                .checksum_crc64_nvme(checksum)
                .body(body)
                .send()
                .await;
            settle(sent.map_err(|error| classify(&error)), Some(outcome), path, before)
        });
        let part = sent.await?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(part.e_tag)
            .checksum_crc64_nvme(checksum)
            .build())
    }

    async fn complete(
        &self,
        key: &str,
        size: u64,
        upload: &str,
        parts: Vec<CompletedPart>,
        checksum: &str,
    ) -> Result<(), Fault> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let completed = self.patiently(key, || async {
            self.client
                .complete_multipart_upload()
                .bucket(&self.name)
                .key(key)
                .upload_id(upload)
                .checksum_type(ChecksumType::FullObject)
                .checksum_crc64_nvme(checksum)
                .multipart_upload(parts.clone())
                .send()
                .await
                .map_err(|error| classify(&error))
        });
        match completed.await {
            Ok(_) => Ok(()),
            // An answer that was lost: the upload is gone, for it has been completed.
            Err(Fault::Missing(_)) if self.is_there(key, size, checksum).await? => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    async fn is_there(&self, key: &str, size: u64, checksum: &str) -> Result<bool, Fault> {
        let head = self.patiently(key, || async {
            self.client
                .head_object()
                .bucket(&self.name)
                .key(key)
                .checksum_mode(ChecksumMode::Enabled)
                .send()
                .await
                .map_err(|error| classify(&error))
        });
        match head.await {
            Ok(head) => Ok(head.content_length().and_then(|length| u64::try_from(length).ok())
                == Some(size)
                && head.checksum_crc64_nvme() == Some(checksum)),
            Err(Fault::Missing(_)) => Ok(false),
            Err(fault) => Err(fault),
        }
    }
}

/// Joins what S3 said with what became of the reading, and of the file.
fn settle<T>(
    sent: Result<T, Fault>,
    outcome: Option<body::Outcome>,
    path: &Path,
    before: Version,
) -> Result<T, Fault> {
    if let Some(error) = outcome.and_then(|outcome| outcome.take()) {
        return Err(Fault::Local(error));
    }
    match sent {
        Err(Fault::Refused(text)) if text.starts_with("S3 says BadDigest") => {
            if Version::of(path).ok() == Some(before) {
                // Something between here and there has changed it.
                Err(Fault::Passing(text))
            } else {
                Err(Fault::Local(changed()))
            }
        }
        sent => sent,
    }
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it was changed while it was uploaded")
}

fn joined(hashed: Result<io::Result<Hashed>, tokio::task::JoinError>) -> Result<Hashed, Fault> {
    match hashed {
        Ok(hashed) => hashed.map_err(Fault::Local),
        Err(error) => Err(Fault::Passing(format!("hashing: {error}"))),
    }
}

fn hash_bytes(content: &[u8]) -> Hashed {
    let mut crc = new_crc();
    crc.update(content);
    Hashed { sha1: Sha1::new_with_prefix(content), checksum: checksum(&crc) }
}

fn read(path: &Path, size: u64) -> io::Result<Bytes> {
    let mut content = Vec::new();
    reachable::open(path)?.take(size).read_to_end(&mut content)?;
    if content.len() as u64 == size { Ok(content.into()) } else { Err(shorter()) }
}

fn shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was uploaded")
}

/// Hashes `size` bytes of a file and each of its parts, which `done` gets in turn; it says whether
/// there is any need to go on.
fn hash_parts(
    path: &Path,
    size: u64,
    part: u64,
    mut done: impl FnMut(Part) -> bool,
) -> io::Result<Hashed> {
    let mut file = reachable::open(path)?;
    let mut sha1 = Sha1::new();
    let mut whole = new_crc();
    let mut piece = vec![0; PIECE];
    let (mut offset, mut number) = (0, 1);
    while offset < size {
        let length = part.min(size - offset);
        let mut crc = new_crc();
        let mut left = length;
        while left > 0 {
            let wanted = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            let count = file.read(&mut piece[..wanted])?;
            if count == 0 {
                return Err(shorter());
            }
            sha1.update(&piece[..count]);
            whole.update(&piece[..count]);
            crc.update(&piece[..count]);
            left -= count as u64;
        }
        if !done(Part { number, offset, length, checksum: checksum(&crc) }) {
            break;
        }
        offset += length;
        number += 1;
    }
    Ok(Hashed { sha1, checksum: checksum(&whole) })
}

/// The size of the parts of a file of `size` bytes.
fn part_size(size: u64) -> u64 {
    PART.max(size.div_ceil(MAX_PARTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_16_mib_until_there_would_be_too_many() {
        assert_eq!(part_size(PART + 1), PART);
        let huge = 5 << 40;
        assert!(part_size(huge) * MAX_PARTS >= huge);
        assert!(part_size(huge) * (MAX_PARTS - 1) < huge);
    }

    #[test]
    fn a_file_and_its_parts_are_hashed_in_one_reading() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let content: Vec<u8> = (0..700_000u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(file.path(), &content).expect("written");
        let mut parts = Vec::new();
        let keep = |part: Part| {
            parts.push((part.number, part.offset, part.length, part.checksum));
            true
        };
        let hashed = hash_parts(file.path(), 700_000, 300_000, keep).expect("hashed");
        assert_eq!(hashed.sha1.finalize(), Sha1::digest(&content));
        assert_eq!(hashed.checksum, hash_bytes(&content).checksum);
        let part = |number, offset: usize, length: usize| {
            let checksum = hash_bytes(&content[offset..offset + length]).checksum;
            (number, offset as u64, length as u64, checksum)
        };
        let expected = [part(1, 0, 300_000), part(2, 300_000, 300_000), part(3, 600_000, 100_000)];
        assert_eq!(parts, expected);
        // The value of the CRC catalogue.
        assert_eq!(hash_bytes(b"123456789").checksum, "rosUhgp5mIg=");
    }

    #[test]
    fn a_file_that_is_shorter_than_it_was_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "12345").expect("written");
        assert!(hash_parts(file.path(), 6, 6, |_| true).is_err());
        assert!(read(file.path(), 6).is_err());
        assert_eq!(&read(file.path(), 5).expect("read")[..], b"12345");
    }
}
