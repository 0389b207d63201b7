//! Where triggers are: the folder of `stepwes serve`, or the runs bucket of a deployed stack.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use stepwes_cloud::{Aws, object_version::Read, objects::Objects};
use stepwes_core::trigger::{Trigger, TriggerError};
use stepwes_local::{
    arn,
    s3::{Present, place_of, present_below},
};

use crate::{args::TriggerPlace, ui::hint};

/// The folder of `stepwes serve` when neither it nor a bucket is named.
const DEFAULT_DIR: &str = ".stepwes";

/// Where the triggers are.
pub(super) enum Place {
    /// The folder of a server, whether one runs there or not: its files are its objects.
    Folder {
        /// As it was named.
        dir: PathBuf,
        /// The files of S3.
        s3: PathBuf,
    },
    /// The runs bucket of a stack.
    Bucket(Objects),
}

impl Place {
    /// The place that the arguments name.
    pub(super) async fn open(place: &TriggerPlace) -> anyhow::Result<Self> {
        if let Some(bucket) = &place.bucket {
            let aws = Aws::from_env().await?;
            return Ok(Self::Bucket(Objects::new(aws.s3(), bucket)));
        }
        let dir = place.dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DIR));
        let s3 = dir.join("s3");
        if s3.join(arn::BUCKET).is_dir() {
            return Ok(Self::Folder { dir, s3 });
        }
        Err(match &place.dir {
            None => hint(
                "no service is named, and there is no .stepwes here",
                "give --dir with the folder of `stepwes serve`, or --bucket with the runs bucket of a deployed stack",
            ),
            Some(dir) => hint(
                format!("{} is no folder of a server", dir.display()),
                format!("`stepwes serve --dir {}` makes it one", dir.display()),
            ),
        })
    }

    /// The runs bucket's name.
    pub(super) fn runs_bucket(&self) -> &str {
        match self {
            Self::Folder { .. } => arn::BUCKET,
            Self::Bucket(objects) => objects.bucket(),
        }
    }

    /// That the service would take the trigger, as far as that can be told from here.
    pub(super) fn check(&self, trigger: &Trigger) -> anyhow::Result<()> {
        self.check_own(trigger).map_err(|error| {
            hint(
                format!("{self} does not take the trigger: {error}"),
                "docs/events.md says which buckets and keys triggers may name",
            )
        })
    }

    /// The same.
    pub(super) fn check_own(&self, trigger: &Trigger) -> Result<(), TriggerError> {
        match self {
            Self::Folder { .. } => trigger.check(&[arn::BUCKET.to_owned()], arn::BUCKET),
            // Which buckets the operator has named, the function knows.
            Self::Bucket(objects) if trigger.bucket == objects.bucket() => trigger.check_prefixes(),
            Self::Bucket(_) => Ok(()),
        }
    }

    /// A key as a person finds it.
    pub(super) fn shown(&self, key: &str) -> String {
        match self {
            Self::Folder { s3, .. } => {
                s3.join(arn::BUCKET).join(place_of(key)).display().to_string()
            }
            Self::Bucket(objects) => objects.url(key),
        }
    }

    /// Writes a file, whole or not at all.
    pub(super) async fn put(&self, key: &str, content: Vec<u8>) -> anyhow::Result<()> {
        match self {
            Self::Folder { s3, .. } => {
                let path = s3.join(arn::BUCKET).join(place_of(key));
                write(s3, &path, &content)
                    .with_context(|| format!("{} cannot be written", path.display()))
            }
            Self::Bucket(objects) => {
                let kind = if key.ends_with(".json") { "application/json" } else { "text/plain" };
                Ok(objects.put_bytes(key, content.into(), kind).await?)
            }
        }
    }

    /// Reads a file; `None` when there is none.
    pub(super) async fn get(&self, key: &str) -> anyhow::Result<Option<Vec<u8>>> {
        match self {
            Self::Folder { s3, .. } => {
                let path = s3.join(arn::BUCKET).join(place_of(key));
                match fs::read(&path) {
                    Ok(content) => Ok(Some(content)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => {
                        Err(error).with_context(|| format!("{} cannot be read", path.display()))
                    }
                }
            }
            Self::Bucket(objects) => match objects.get_limited(key, u64::MAX).await? {
                Read::Found { content, .. } => Ok(Some(content.into())),
                Read::Missing | Read::TooLarge { .. } => Ok(None),
            },
        }
    }

    /// The keys that begin with a prefix, a folder's, in their order.
    pub(super) async fn list(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let mut keys: Vec<String> = match self {
            Self::Folder { s3, .. } => {
                let found = present_below(s3, arn::BUCKET, prefix)
                    .with_context(|| format!("{} cannot be listed", s3.display()))?;
                found.into_iter().map(|Present { key, .. }| key).collect()
            }
            Self::Bucket(objects) => {
                objects.list(prefix).await?.into_iter().map(|object| object.key).collect()
            }
        };
        keys.sort_unstable();
        Ok(keys)
    }

    /// Removes a file, if there is one.
    pub(super) async fn delete(&self, key: &str) -> anyhow::Result<()> {
        match self {
            Self::Folder { s3, .. } => {
                let path = s3.join(arn::BUCKET).join(place_of(key));
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(error).with_context(|| format!("{} cannot be removed", path.display()))
                    }
                    _ => {
                        // Folders that hold nothing are no objects; those that do stay.
                        let _ = path.parent().map(fs::remove_dir);
                        Ok(())
                    }
                }
            }
            Self::Bucket(objects) => Ok(objects.delete(key).await?),
        }
    }

    /// Whether there is an object.
    pub(super) async fn has(&self, bucket: &str, key: &str) -> anyhow::Result<bool> {
        match self {
            Self::Folder { s3, .. } => {
                Ok(bucket == arn::BUCKET && s3.join(bucket).join(place_of(key)).is_file())
            }
            Self::Bucket(objects) => Ok(objects.in_bucket(bucket).version(key).await?.is_some()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { dir, .. } => dir.display().fmt(f),
            Self::Bucket(objects) => write!(f, "the bucket {}", objects.bucket()),
        }
    }
}

/// Writes beside the objects first: what is in their folder is whole.
fn write(s3: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = s3.join(".tmp/put");
    fs::create_dir_all(&folder)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let staged = folder.join(format!("trigger-{}", std::process::id()));
    fs::write(&staged, content)?;
    fs::rename(&staged, path)
}
