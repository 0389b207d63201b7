//! What lies in a bucket's folder at the moment, without reading any of it: how new files are
//! noticed, those that were put there by hand among them.

use super::S3Endpoint;
use super::error::StoreResult;
use super::names::{Name, decode, key_path, prefix_folders};
use super::store::Store;
use std::io;
use std::path::{Path, PathBuf};

/// A file that is an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Its key.
    pub key: String,
    /// A text that is another one when the file is another, or has been written to.
    pub version: String,
}

/// Where, below its bucket's folder, the file of a key is.
#[must_use]
pub fn place_of(key: &str) -> PathBuf {
    let path = key_path(key);
    path.folders.iter().collect::<PathBuf>().join(path.name)
}

/// The objects of a bucket below one folder, whether a server has them or not.
///
/// # Errors
/// When the folder cannot be read.
pub fn present_below(root: &Path, bucket: &str, prefix: &str) -> io::Result<Vec<Present>> {
    let store = Store::existing(root, bucket);
    let start = (prefix.to_owned(), prefix_folders(prefix));
    walk(&store, bucket, start, &[]).map_err(io::Error::other)
}

impl S3Endpoint {
    /// The objects of a bucket but for those below `skipped` folders at its top.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn present(
        &self,
        bucket: &'static str,
        skipped: &'static [&'static str],
    ) -> io::Result<Vec<Present>> {
        self.blocking(move |store| walk(store, bucket, Default::default(), skipped)).await
    }

    /// One object of a bucket, when it is there.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn present_version(
        &self,
        bucket: &'static str,
        key: String,
    ) -> io::Result<Option<String>> {
        self.blocking(move |store| version(store, bucket, &key)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> StoreResult<T> + Send + 'static,
    ) -> io::Result<T> {
        let store = std::sync::Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(io::Error::other)?.map_err(io::Error::other)
    }
}

fn version(store: &Store, bucket: &str, key: &str) -> StoreResult<Option<String>> {
    let stamp = store.present(bucket, &key_path(key))?;
    Ok(stamp.map(|stamp| {
        let time = stamp.modified().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        format!("{:x}-{:x}", time.as_nanos(), stamp.size)
    }))
}

/// Everything below a folder: the beginning of its keys, and the names of the folders that lead
/// there.
pub(super) fn walk(
    store: &Store,
    bucket: &str,
    start: (String, Vec<String>),
    skipped: &[&str],
) -> StoreResult<Vec<Present>> {
    let mut found = Vec::new();
    let mut folders = vec![start];
    while let Some((text, names)) = folders.pop() {
        for (name, is_folder) in store.entries(bucket, &names)? {
            // Keys are UTF-8, so a name that is not belongs to no key.
            let Ok(name) = name.into_string() else { continue };
            match (decode(&name), is_folder) {
                (Some(Name::Whole(part)), true)
                    if !names.is_empty() || !skipped.contains(&part.as_str()) =>
                {
                    let names = names.iter().cloned().chain([name]).collect();
                    folders.push((format!("{text}{part}/"), names));
                }
                (Some(Name::Beginning(part)), true) => {
                    let names = names.iter().cloned().chain([name]).collect();
                    folders.push((format!("{text}{part}"), names));
                }
                (Some(Name::Whole(part) | Name::Beside(part)), false) => {
                    let key = format!("{text}{part}");
                    // Gone again, or under a name that no key has.
                    if let Some(version) = version(store, bucket, &key)? {
                        found.push(Present { key, version });
                    }
                }
                _ => {}
            }
        }
    }
    Ok(found)
}
