//! What S3 knows of an object besides its bytes, and the small file that keeps it.
//!
//! One file an object, `.meta/<bucket>/<hash of the key>`, apart from the objects so that a person
//! who looks for outputs sees outputs only. It lists versions, each bound to the modification time
//! (unique, set by the store) and size of the file it describes: the new one is written before the
//! new file is renamed into place, and the old one stays until then, so that whichever file a crash
//! leaves has its own description, and a file that was put there or changed by hand has none.

use super::checksum::StoredChecksum;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The type that S3 gives objects which came without one.
pub(super) const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// Everything about an object that its file does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Without quotes: MD5 in hex, or for a multipart upload the MD5 of the MD5s, `-`, the count.
    pub(super) etag: String,
    #[serde(flatten)]
    pub(super) headers: Headers,
    /// `x-amz-meta-*`, names without that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) user: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) checksum: Option<StoredChecksum>,
    /// The multipart upload that made it: completing it again answers the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) upload_id: Option<String>,
}

/// The headers that come back with an object as they came in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Headers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cache_control: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_disposition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_language: Option<String>,
    /// As an HTTP date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<String>,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    seconds: i64,
    nanos: i64,
    pub(super) size: u64,
}

impl Stamp {
    pub(super) fn of(file: &fs::Metadata) -> Self {
        Self { seconds: file.mtime(), nanos: file.mtime_nsec(), size: file.len() }
    }

    /// When the file was modified.
    pub(super) fn modified(self) -> SystemTime {
        let seconds = Duration::from_secs(self.seconds.unsigned_abs());
        let whole = if self.seconds < 0 {
            UNIX_EPOCH.checked_sub(seconds)
        } else {
            UNIX_EPOCH.checked_add(seconds)
        };
        let nanos = Duration::from_nanos(self.nanos.unsigned_abs());
        whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
    }
}

/// Stamps a new file with a time, or a later one where the file system keeps time so coarsely that
/// the file could not be told from the old one.
pub(super) fn stamp_apart(
    old: Option<Stamp>,
    time: SystemTime,
    set: impl Fn(SystemTime) -> io::Result<Stamp>,
) -> io::Result<Stamp> {
    // The coarsest in use, FAT, keeps every other second.
    const COARSEST: Duration = Duration::from_secs(2);
    let stamp = set(time)?;
    if Some(stamp) == old { set(time + COARSEST) } else { Ok(stamp) }
}

/// The content of a description file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Sidecar {
    /// For people only; the file is found by the key's hash.
    pub(super) key: String,
    pub(super) versions: Vec<Version>,
}

/// The description of one state of an object's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) stamp: Stamp,
    pub(super) meta: Meta,
}

impl Sidecar {
    /// The description of the file that has this stamp.
    pub(super) fn version(&self, stamp: Stamp) -> Option<&Version> {
        self.versions.iter().find(|version| version.stamp == stamp)
    }
}

/// Where, below a bucket's folder of descriptions, the one of a key is: folder and file.
pub(super) fn sidecar_place(key: &str) -> (String, PathBuf) {
    let hash = hex::encode(Sha256::digest(key.as_bytes()));
    let (folder, name) = hash.split_at(2);
    let place = PathBuf::from(folder).join(format!("{name}.json"));
    (folder.to_owned(), place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system that keeps every other second.
    fn coarse(time: SystemTime) -> io::Result<Stamp> {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Stamp { seconds: i64::try_from(seconds / 2 * 2).unwrap_or_default(), nanos: 0, size: 3 })
    }

    #[test]
    fn two_versions_differ_even_where_time_is_kept_coarsely() {
        let time = UNIX_EPOCH + Duration::from_millis(10_500);
        let old = stamp_apart(None, time, coarse).expect("a stamp");
        assert_eq!(old.modified(), UNIX_EPOCH + Duration::from_secs(10));
        let soon = time + Duration::from_millis(1);
        let new = stamp_apart(Some(old), soon, coarse).expect("a stamp");
        assert_ne!(old, new);
    }

    #[test]
    fn a_stamp_tells_its_time() {
        let stamp = |seconds, nanos| Stamp { seconds, nanos, size: 0 };
        assert_eq!(stamp(5, 7).modified(), UNIX_EPOCH + Duration::new(5, 7));
        assert_eq!(stamp(-5, 7).modified(), UNIX_EPOCH - Duration::new(4, 999_999_993));
    }
}
