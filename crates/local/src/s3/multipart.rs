//! Multipart uploads: parts are files until the upload is completed, and survive a restart.
//!
//! ```text
//! .tmp/uploads/<id>/upload.json       what the object will be
//! .tmp/uploads/<id>/<number>/<md5>    a part; its name is its ETag, so the two cannot disagree
//! .tmp/uploads/<id>/<number>/<md5>.json
//! ```

use super::checksum::{Algorithm, StoredChecksum};
use super::error::{IoContext as _, StoreError, StoreResult, absent};
use super::meta::{Headers, Meta};
use super::store::{CHUNK, Committed, Precondition, Store};
use super::temp::TempFile;
use super::upload::Received;
use md5::{Digest as _, Md5};
use s3s::checksum::ChecksumHasher;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How long an unfinished upload is kept.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// The least size of every part but the last
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).
const SMALLEST_PART: u64 = 5 * 1024 * 1024;

/// What an upload will become.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Upload {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) headers: Headers,
    pub(super) user: BTreeMap<String, String>,
    pub(super) algorithm: Option<Algorithm>,
    /// Whether the object's checksum is that of all bytes, not of the parts' checksums.
    pub(super) full_object: bool,
}

/// A part that was uploaded.
#[derive(Debug, Clone)]
pub(super) struct UploadedPart {
    pub(super) number: i32,
    pub(super) md5: String,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    pub(super) checksum: Option<StoredChecksum>,
}

/// A part as the request to complete names it.
#[derive(Debug, Clone)]
pub(super) struct WantedPart {
    pub(super) number: i32,
    pub(super) etag: String,
    /// Its checksum, if given.
    pub(super) given: s3s::dto::Checksum,
}

/// The request to complete an upload.
#[derive(Debug, Clone)]
pub(super) struct Completion {
    pub(super) id: String,
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) parts: Vec<WantedPart>,
    pub(super) size: Option<i64>,
    /// The object's checksum, if given.
    pub(super) given: s3s::dto::Checksum,
    pub(super) precondition: Precondition,
}

/// The multipart uploads of a store.
#[derive(Debug)]
pub(super) struct Uploads {
    store: Arc<Store>,
    /// One lock an upload whose parts are being changed, or that is being ended.
    locks: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

impl Uploads {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, locks: Mutex::new(HashMap::new()) }
    }

    /// Removes the uploads that nobody, at `now`, has gone on with for too long.
    pub(super) fn sweep(&self, now: SystemTime) -> StoreResult<()> {
        let all = self.store.uploads();
        for entry in fs::read_dir(&all).context("list", &all)? {
            let entry = entry.context("list", &all)?;
            let folder = entry.path();
            let Some(found) = absent(entry.metadata()).context("look at", &folder)? else {
                continue;
            };
            let modified = found.modified().context("look at", &folder)?;
            if now.duration_since(modified).unwrap_or_default() <= LIFETIME {
                continue;
            }
            let id = entry.file_name().to_string_lossy().into_owned();
            let lock = self.lock_of(&id);
            let removed = {
                let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
                // Completed or aborted just now, it is not there any more.
                if folder.exists() { self.remove(&folder) } else { Ok(()) }
            };
            self.let_go(&id, lock);
            removed?;
        }
        Ok(())
    }

    /// The folder of an upload. Only an id of our own form is ever made a path.
    fn folder(&self, id: &str) -> StoreResult<PathBuf> {
        let ours = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        if ours { Ok(self.store.uploads().join(id)) } else { Err(StoreError::NoSuchUpload) }
    }

    /// Begins an upload and answers its id.
    pub(super) fn create(&self, upload: &Upload) -> StoreResult<String> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let folder = self.folder(&id)?;
        fs::create_dir_all(&folder).context("create the folder", &folder)?;
        self.write_json(&folder.join("upload.json"), upload)?;
        Ok(id)
    }

    /// Reads an upload back; it must be of this key.
    pub(super) fn get(&self, bucket: &str, key: &str, id: &str) -> StoreResult<Upload> {
        let path = self.folder(id)?.join("upload.json");
        let upload: Upload = read_json(&path)?.ok_or(StoreError::NoSuchUpload)?;
        if upload.bucket == bucket && upload.key == key {
            Ok(upload)
        } else {
            Err(StoreError::NoSuchUpload)
        }
    }

    /// Makes a received body a part, in place of an older one of the same number.
    pub(super) fn put_part(&self, id: &str, number: i32, part: Received) -> StoreResult<()> {
        // Before the lock: other parts need not wait for the disk.
        part.file.sync().context("write", part.file.path())?;
        let lock = self.lock_of(id);
        let done = {
            let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.replace_part(id, number, part)
        };
        self.let_go(id, lock);
        done
    }

    fn replace_part(&self, id: &str, number: i32, part: Received) -> StoreResult<()> {
        let upload = self.folder(id)?;
        let folder = upload.join(number.to_string());
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => {
                absent(other)
                    .context("create the folder", &folder)?
                    .ok_or(StoreError::NoSuchUpload)?;
            }
        }
        let place = folder.join(&part.md5);
        self.write_json(&place.with_extension("json"), &part.checksum)?;
        absent(part.file.rename(&place))
            .context("move a file to", &place)?
            .ok_or(StoreError::NoSuchUpload)?;
        let Some(entries) = absent(fs::read_dir(&folder)).context("list", &folder)? else {
            return Err(StoreError::NoSuchUpload);
        };
        for entry in entries {
            let other = entry.context("list", &folder)?.path();
            if other.file_stem() != place.file_stem() {
                absent(fs::remove_file(&other)).context("remove", &other)?;
            }
        }
        Ok(())
    }

    /// The parts uploaded so far, by number.
    pub(super) fn parts(&self, id: &str) -> StoreResult<Vec<UploadedPart>> {
        let upload = self.folder(id)?;
        let mut parts = Vec::new();
        let entries = absent(fs::read_dir(&upload))
            .context("list", &upload)?
            .ok_or(StoreError::NoSuchUpload)?;
        for entry in entries {
            let folder = entry.context("list", &upload)?.path();
            let number = folder.file_name().and_then(|name| name.to_str());
            let Some(number) = number.and_then(|name| name.parse().ok()) else {
                continue;
            };
            let mut newest: Option<UploadedPart> = None;
            let Some(files) = absent(fs::read_dir(&folder)).context("list", &folder)? else {
                continue;
            };
            for file in files {
                let name = file.context("list", &folder)?.file_name();
                let Some(md5) = name.to_str().filter(|name| !name.ends_with(".json")) else {
                    continue;
                };
                if let Some(part) = part(&upload, number, md5)?
                    && newest.as_ref().is_none_or(|n| n.modified < part.modified)
                {
                    newest = Some(part);
                }
            }
            parts.extend(newest);
        }
        parts.sort_unstable_by_key(|part| part.number);
        Ok(parts)
    }

    /// Makes the parts an object. Asked again, it answers as before, as long as the object is that
    /// of this upload.
    pub(super) fn complete(&self, wanted: &Completion) -> StoreResult<Committed> {
        let lock = self.lock_of(&wanted.id);
        let answer = {
            let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
            match self.get(&wanted.bucket, &wanted.key, &wanted.id) {
                Ok(upload) => self.assemble(wanted, upload),
                Err(StoreError::NoSuchUpload) => self.completed_before(wanted),
                Err(error) => Err(error),
            }
        };
        self.let_go(&wanted.id, lock);
        answer
    }

    fn completed_before(&self, wanted: &Completion) -> StoreResult<Committed> {
        match self.store.find(&wanted.bucket, &wanted.key)? {
            Some(object) if object.meta.upload_id.as_ref() == Some(&wanted.id) => {
                Ok(Committed { stamp: object.stamp, meta: object.meta })
            }
            _ => Err(StoreError::NoSuchUpload),
        }
    }

    fn assemble(&self, wanted: &Completion, upload: Upload) -> StoreResult<Committed> {
        let folder = self.folder(&wanted.id)?;
        let parts = check_parts(&folder, wanted)?;
        let staged = self.store.stage()?;
        let mut full = upload
            .full_object
            .then(|| upload.algorithm.map(|algorithm| (algorithm, algorithm.hasher())))
            .flatten();
        let mut md5s = Md5::new();
        for part in &parts {
            let path = part_path(&folder, part.number, &part.md5);
            let mut source = File::open(&path).context("open", &path)?;
            match &mut full {
                // The kernel copies faster, but what it copies cannot be hashed.
                None => staged.append(&mut source).map(drop),
                Some((_, hasher)) => append_hashed(&staged, &mut source, hasher),
            }
            .context("copy", &path)?;
            md5s.update(hex::decode(&part.md5).unwrap_or_default());
        }
        let checksum = match full {
            Some((algorithm, hasher)) => Some(StoredChecksum {
                algorithm,
                value: algorithm.finish(hasher),
                composite: false,
            }),
            None => upload.algorithm.and_then(|algorithm| {
                let values: Option<Vec<&str>> = parts
                    .iter()
                    .map(|part| part.checksum.as_ref())
                    .map(|c| c.filter(|c| c.algorithm == algorithm).map(|c| c.value.as_str()))
                    .collect();
                StoredChecksum::composite(algorithm, values?.into_iter())
            }),
        };
        if let Some(checksum) = &checksum
            && let Some(given) = checksum.algorithm.value_of(wanted.given.clone())
            // Of a composite checksum, the count may be left out.
            && given != checksum.value
            && Some(given.as_str()) != checksum.value.split('-').next()
        {
            return Err(StoreError::WrongChecksum(checksum.algorithm.name()));
        }
        let meta = Meta {
            etag: format!("{}-{}", hex::encode(md5s.finalize()), parts.len()),
            headers: upload.headers,
            user: upload.user,
            checksum,
            upload_id: Some(wanted.id.clone()),
        };
        let committed =
            self.store.commit(&wanted.bucket, &wanted.key, staged, meta, &wanted.precondition)?;
        self.remove(&folder)?;
        Ok(committed)
    }

    /// Removes an upload and its parts.
    pub(super) fn abort(&self, bucket: &str, key: &str, id: &str) -> StoreResult<()> {
        let lock = self.lock_of(id);
        let answer = {
            let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.get(bucket, key, id).and_then(|_| self.remove(&self.folder(id)?))
        };
        self.let_go(id, lock);
        answer
    }

    /// Takes the upload away at once, so that no part can join it, then removes it.
    fn remove(&self, folder: &Path) -> StoreResult<()> {
        let gone = self.store.puts().join(uuid::Uuid::new_v4().simple().to_string());
        fs::rename(folder, &gone).context("move", folder)?;
        fs::remove_dir_all(&gone).context("remove", &gone)
    }

    fn lock_of(&self, id: &str) -> Arc<Mutex<()>> {
        let mut all = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(id.to_owned()).or_default())
    }

    fn let_go(&self, id: &str, lock: Arc<Mutex<()>>) {
        let mut all = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        drop(lock);
        if all.get(id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            all.remove(id);
        }
    }

    fn write_json(&self, path: &Path, value: &impl Serialize) -> StoreResult<()> {
        let content =
            serde_json::to_vec(value).map_err(io::Error::from).context("describe", path)?;
        let staged = self.store.stage()?;
        staged.write_all(&content).context("write", staged.path())?;
        absent(staged.rename(path)).context("move a file to", path)?.ok_or(StoreError::NoSuchUpload)
    }
}

fn part_path(upload: &Path, number: i32, md5: &str) -> PathBuf {
    upload.join(number.to_string()).join(md5)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> StoreResult<Option<T>> {
    let Some(content) = absent(fs::read(path)).context("read", path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&content).map(Some).map_err(io::Error::from).context("read", path)
}

/// The part with this number and MD5, if it is there.
fn part(upload: &Path, number: i32, md5: &str) -> StoreResult<Option<UploadedPart>> {
    let path = part_path(upload, number, md5);
    let Some(found) = absent(fs::symlink_metadata(&path)).context("look at", &path)? else {
        return Ok(None);
    };
    Ok(Some(UploadedPart {
        number,
        md5: md5.to_owned(),
        size: found.len(),
        modified: found.modified().context("look at", &path)?,
        checksum: read_json(&path.with_extension("json"))?.flatten(),
    }))
}

/// Checks the list of parts against what was uploaded.
fn check_parts(upload: &Path, wanted: &Completion) -> StoreResult<Vec<UploadedPart>> {
    if wanted.parts.is_empty() {
        return Err(StoreError::NoParts);
    }
    if !wanted.parts.is_sorted_by(|a, b| a.number < b.number) {
        return Err(StoreError::InvalidPartOrder);
    }
    let mut parts = Vec::with_capacity(wanted.parts.len());
    for asked in &wanted.parts {
        let number = asked.number;
        let etag = &asked.etag;
        let is_md5 = etag.len() == 32 && etag.bytes().all(|b| b.is_ascii_hexdigit());
        let found = if is_md5 { part(upload, number, &etag.to_ascii_lowercase())? } else { None };
        let found = found.ok_or(StoreError::InvalidPart(number))?;
        if let Some(checksum) = &found.checksum
            && let Some(given) = checksum.algorithm.value_of(asked.given.clone())
            && given != checksum.value
        {
            return Err(StoreError::InvalidPart(number));
        }
        parts.push(found);
    }
    for part in &parts[..parts.len() - 1] {
        if part.size < SMALLEST_PART {
            return Err(StoreError::PartTooSmall(part.number));
        }
    }
    let found = parts.iter().map(|part| part.size).sum();
    if let Some(expected) = wanted.size
        && u64::try_from(expected) != Ok(found)
    {
        return Err(StoreError::WrongObjectSize { expected, found });
    }
    Ok(parts)
}

fn append_hashed(
    target: &TempFile,
    source: &mut File,
    hasher: &mut ChecksumHasher,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        hasher.update(&buffer[..read]);
        target.write_all(&buffer[..read])?;
    }
}
