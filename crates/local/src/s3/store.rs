//! The folder that holds the buckets: finding, replacing and removing objects in it.
//!
//! ```text
//! <root>/<bucket>/…            the objects, see `names`
//! <root>/.meta/<bucket>/…      their descriptions, see `meta`
//! <root>/.tmp/put/…            files being written; swept when the store opens
//! <root>/.tmp/journal/…        what may not have reached the disk yet, see `journal`
//! <root>/.tmp/uploads/<id>/…   multipart uploads; they outlive a restart, for seven days
//! ```
//!
//! Everything here blocks and belongs on a thread that may. What creates, moves or removes names
//! holds one lock for those few system calls (never while data is copied), so that folders made for
//! one object are not removed with another, and conditional writes have one winner. Reading takes
//! no lock unless what it saw does not fit together.
//!
//! Symbolic links are not followed: what lies behind one is outside of the folder.
//!
//! What is acknowledged survives `kill -9`, whatever it is. Of a power cut, the promise is that what
//! is there is whole and what refers to something finds it: an object is on the disk, as a file or in
//! the journal, before its writer is told, and so before a row of the databases can speak of it. Lost
//! may be: the databases' last transactions (`synchronous = NORMAL`), descriptions of large objects
//! beyond what is computed again (content type, user metadata, given checksums), uploads that are not
//! completed; deleted objects may be back.

use super::OpenError;
use super::error::{IoContext as _, StoreError, StoreResult, absent};
use super::journal::{self, Described, Journal, Position, Record};
use super::meta::{Meta, Sidecar, Stamp, Version, sidecar_place, stamp_apart};
use super::names::{KeyPath, beside, key_path};
use super::temp::TempFile;
use md5::{Digest as _, Md5};
use s3s::dto::ETagCondition;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file changed this recently may change again without its time or size changing.
const SETTLED: Duration = Duration::from_secs(2);
/// Sizes of the pieces in which files are read.
pub(super) const CHUNK: usize = 128 * 1024;

/// The folder that holds the buckets.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    buckets: BTreeMap<String, PathBuf>,
    /// None where the folder is only looked at.
    journal: Option<Arc<Journal>>,
    /// Held while names change; the newest modification time given to an object.
    tree: Mutex<SystemTime>,
}

/// An object that was found: its open file, and what is known of it.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) file: File,
    pub(super) stamp: Stamp,
    pub(super) meta: Meta,
}

/// An object that was written.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub(super) stamp: Stamp,
    pub(super) meta: Meta,
}

/// What must hold of the present object for a write to happen.
#[derive(Debug, Clone, Default)]
pub(super) struct Precondition {
    pub(super) absent: bool,
    pub(super) if_match: Option<ETagCondition>,
}

impl Store {
    /// Opens the folder, creates what is missing, and removes what a crash left behind.
    pub(super) fn open(root: &Path, buckets: &[&str]) -> Result<Self, OpenError> {
        let in_folder = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Folder { path, source }
        };
        fs::create_dir_all(root).map_err(in_folder(root))?;
        let root = root.canonicalize().map_err(in_folder(root))?;
        let mut folders = BTreeMap::new();
        for bucket in buckets {
            if !s3s::path::check_bucket_name(bucket) {
                return Err(OpenError::BucketName((*bucket).to_owned()));
            }
            let folder = root.join(bucket);
            fs::create_dir_all(&folder).map_err(in_folder(&folder))?;
            if !fs::symlink_metadata(&folder).map_err(in_folder(&folder))?.is_dir() {
                return Err(OpenError::Link(folder));
            }
            folders.insert((*bucket).to_owned(), folder);
        }
        let temporary = root.join(".tmp");
        let swept = temporary.join("put");
        if swept.exists() {
            fs::remove_dir_all(&swept).map_err(in_folder(&swept))?;
        }
        let kept = temporary.join("journal");
        for folder in [&swept, &temporary.join("uploads"), &kept] {
            fs::create_dir_all(folder).map_err(in_folder(folder))?;
        }
        let (left, by_another_boot) = journal::left(&kept).map_err(in_folder(&kept))?;
        let journal = Journal::begin(&kept, left.clone()).map_err(in_folder(&kept))?;
        let journal = Arc::new(journal);
        let store = Self {
            root,
            buckets: folders,
            journal: Some(Arc::clone(&journal)),
            tree: Mutex::new(UNIX_EPOCH),
        };
        if by_another_boot {
            store.restore(&left).map_err(|error| OpenError::Journal(error.into()))?;
        }
        if !left.is_empty() {
            journal.clear().map_err(in_folder(&kept))?;
        }
        std::thread::Builder::new()
            .name("stepwes-s3-journal".to_owned())
            .spawn(move || journal.clear_until_closed())
            .map_err(in_folder(&kept))?;
        Ok(store)
    }

    /// Makes what the files of a journal tell of, as far as it is not there.
    fn restore(&self, files: &[PathBuf]) -> StoreResult<()> {
        let records = journal::read(files).context("read", &self.root)?;
        for (Record { bucket, key, object }, bytes) in records {
            let Some(Described { stamp, meta }) = object else { continue };
            if !self.buckets.contains_key(&bucket) {
                continue;
            }
            if let Some((object, _)) = self.look(&bucket, &key)? {
                // A later one was put there by hand; every other writer leaves a record.
                if object.stamp.modified() > stamp.modified() {
                    continue;
                }
                if object.stamp == stamp
                    && is_of(&object.file, &bytes).context("read", &self.root)?
                {
                    continue;
                }
            }
            tracing::info!(bucket, key, "an object is made again from the journal");
            let staged = self.stage()?;
            staged.write_all(&bytes).context("write", staged.path())?;
            let stamp = staged.stamp(stamp.modified()).context("set the time of", staged.path())?;
            self.settle(&bucket, &key, staged, Version { stamp, meta }, None)?;
        }
        Ok(())
    }

    /// One bucket of a folder, to look at; nothing is made or removed.
    pub(super) fn existing(root: &Path, bucket: &str) -> Self {
        let folders = BTreeMap::from([(bucket.to_owned(), root.join(bucket))]);
        Self {
            root: root.to_owned(),
            buckets: folders,
            journal: None,
            tree: Mutex::new(UNIX_EPOCH),
        }
    }

    /// Where files are written before they become objects.
    pub(super) fn puts(&self) -> PathBuf {
        self.root.join(".tmp/put")
    }

    /// Where multipart uploads are kept.
    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join(".tmp/uploads")
    }

    /// The folder of a bucket, when there is such a bucket.
    pub(super) fn bucket(&self, name: &str) -> Option<&Path> {
        self.buckets.get(name).map(PathBuf::as_path)
    }

    /// The buckets' names and folders.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.buckets.iter().map(|(name, folder)| (name.as_str(), folder.as_path()))
    }

    fn folder(&self, bucket: &str) -> PathBuf {
        self.root.join(bucket)
    }

    fn lock(&self) -> MutexGuard<'_, SystemTime> {
        // The guarded work leaves no half-done state in memory, so a panic in it spoils nothing.
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new file to write to.
    pub(super) fn stage(&self) -> StoreResult<TempFile> {
        let folder = self.puts();
        TempFile::create(&folder).context("create a file in", &folder)
    }

    /// Finds an object, describing it afresh when it has no description or another one's.
    pub(super) fn find(&self, bucket: &str, key: &str) -> StoreResult<Option<Object>> {
        if let Some((object, true)) = self.look(bucket, key)? {
            return Ok(Some(object));
        }
        // Absent or not described: that may be a write seen halfway. Under the lock it is not.
        let found = {
            let _tree = self.lock();
            self.look(bucket, key)?
        };
        match found {
            None => Ok(None),
            Some((object, true)) => Ok(Some(object)),
            Some((mut object, false)) => {
                self.describe(&mut object, key)?;
                if let Err(error) = self.keep_description(bucket, key, &object) {
                    // It only saves work: a folder that can be read but not written still serves.
                    tracing::warn!(%error, bucket, "cannot keep the description of an object");
                }
                Ok(Some(object))
            }
        }
    }

    /// Whether, right now, the object has a file; cheaper than [`Store::find`].
    fn place(&self, bucket: &str, path: &KeyPath) -> StoreResult<Option<PathBuf>> {
        let mut place = self.folder(bucket);
        for folder in &path.folders {
            place.push(folder);
            match absent(fs::symlink_metadata(&place)).context("look at", &place)? {
                Some(found) if found.is_dir() => {}
                _ => return Ok(None),
            }
        }
        for name in [path.name.clone(), beside(&path.name)] {
            let file = place.join(name);
            let found = absent(fs::symlink_metadata(&file)).context("look at", &file)?;
            if found.is_some_and(|found| found.is_file()) {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Finds an object and says whether its description fits.
    fn look(&self, bucket: &str, key: &str) -> StoreResult<Option<(Object, bool)>> {
        let Some(place) = self.place(bucket, &key_path(key))? else {
            return Ok(None);
        };
        // The flags guard against what may have taken the file's place since it was looked at.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&place);
        let Some(file) = absent(opened).context("open", &place)? else {
            return Ok(None);
        };
        let found = file.metadata().context("look at", &place)?;
        if !found.is_file() {
            return Ok(None);
        }
        let stamp = Stamp::of(&found);
        let known = self.sidecar(bucket, key)?;
        let version = known.as_ref().and_then(|sidecar| sidecar.version(stamp));
        let object =
            Object { file, stamp, meta: version.map(|v| v.meta.clone()).unwrap_or_default() };
        Ok(Some((object, version.is_some())))
    }

    /// Computes what can be known of a file that came without a description.
    fn describe(&self, object: &mut Object, key: &str) -> StoreResult<()> {
        let at = Path::new(key);
        for _ in 0..3 {
            let etag = hex::encode(md5_of(&object.file).context("read", at)?);
            let after = object.file.metadata().context("look at", at)?;
            let stamp = Stamp::of(&after);
            if stamp == object.stamp {
                object.meta = Meta { etag, ..Meta::default() };
                return Ok(());
            }
            // Somebody is writing to it: the checksum must be that of what will be served.
            object.stamp = stamp;
        }
        Err(StoreError::Changing)
    }

    /// Saves computing a description again, once the file has settled.
    fn keep_description(&self, bucket: &str, key: &str, object: &Object) -> StoreResult<()> {
        if object.stamp.modified().elapsed().unwrap_or_default() < SETTLED {
            return Ok(());
        }
        let _tree = self.lock();
        if self.present(bucket, &key_path(key))? != Some(object.stamp) {
            return Ok(());
        }
        let version = Version { stamp: object.stamp, meta: object.meta.clone() };
        self.write_sidecar(bucket, key, vec![version])
    }

    /// The stamp of the object's file as it is now.
    pub(super) fn present(&self, bucket: &str, path: &KeyPath) -> StoreResult<Option<Stamp>> {
        let Some(place) = self.place(bucket, path)? else {
            return Ok(None);
        };
        let found = absent(fs::symlink_metadata(&place)).context("look at", &place)?;
        Ok(found.as_ref().map(Stamp::of))
    }

    /// Makes a written file the object of a key.
    ///
    /// # Errors
    /// [`StoreError::PreconditionFailed`] or [`StoreError::NoSuchKey`] when `precondition` does not
    /// hold; then, as after every error, the key has the object it had.
    pub(super) fn commit(
        &self,
        bucket: &str,
        key: &str,
        staged: TempFile,
        meta: Meta,
        precondition: &Precondition,
    ) -> StoreResult<Committed> {
        let path = key_path(key);
        let bytes = staged.content(journal::MOST_BYTES).context("read", staged.path())?;
        if bytes.is_none() {
            // Before the lock: others need not wait for the disk.
            staged.sync().context("write", staged.path())?;
        }
        let mut newest = self.lock();
        self.check(bucket, key, precondition)?;
        let modified = SystemTime::now().max(*newest + Duration::from_nanos(1));
        *newest = modified;
        let old = self.present(bucket, &path)?;
        let stamp = stamp_apart(old, modified, |time| staged.stamp(time))
            .context("set the time of", staged.path())?;
        let object = bytes.as_ref().map(|_| Described { stamp, meta: meta.clone() });
        let position = self.record(bucket, key, object, bytes.as_deref().unwrap_or_default())?;
        let version = Version { stamp, meta: meta.clone() };
        let (folder, made) = match self.settle(bucket, key, staged, version, old) {
            Ok(placed) => placed,
            Err(error) => {
                // The key has what it had, so the journal must not say otherwise.
                self.record(bucket, key, None, &[])?;
                return Err(error);
            }
        };
        drop(newest);
        if bytes.is_none() {
            let mut changed = folder;
            for _ in 0..=made {
                // Gone again, its object is gone too.
                absent(File::open(&changed).and_then(|folder| folder.sync_all()))
                    .context("write", &changed)?;
                changed.pop();
            }
        }
        self.journal()?.wait(position).context("write the journal of", &self.root)?;
        Ok(Committed { stamp, meta })
    }

    fn record(
        &self,
        bucket: &str,
        key: &str,
        object: Option<Described>,
        bytes: &[u8],
    ) -> StoreResult<Position> {
        let record = Record { bucket: bucket.to_owned(), key: key.to_owned(), object };
        self.journal()?.append(&record, bytes).context("write the journal of", &self.root)
    }

    fn journal(&self) -> StoreResult<&Journal> {
        let none = || io::Error::other("the folder is only looked at");
        self.journal.as_deref().ok_or_else(none).context("write the journal of", &self.root)
    }

    /// Moves a file to its place and describes it. Gives its folder, and how many were made for it.
    fn settle(
        &self,
        bucket: &str,
        key: &str,
        staged: TempFile,
        version: Version,
        old: Option<Stamp>,
    ) -> StoreResult<(PathBuf, usize)> {
        // The description first: the old file keeps its own until the new file takes its place.
        let mut versions = Vec::with_capacity(2);
        if let Some(old) = old {
            let known = self.sidecar(bucket, key)?;
            versions.extend(known.as_ref().and_then(|k| k.version(old)).cloned());
        }
        versions.push(version);
        self.write_sidecar(bucket, key, versions)?;
        let path = key_path(key);
        let (folder, made) = self.make_folders(bucket, &path.folders)?;
        if let Err(error) = self.put_in_place(staged, &folder, &path.name) {
            self.prune(bucket, folder);
            return Err(error);
        }
        Ok((folder, made))
    }

    fn check(&self, bucket: &str, key: &str, precondition: &Precondition) -> StoreResult<()> {
        if precondition.absent && self.place(bucket, &key_path(key))?.is_some() {
            return Err(StoreError::PreconditionFailed);
        }
        let Some(condition) = &precondition.if_match else {
            return Ok(());
        };
        let Some((mut object, described)) = self.look(bucket, key)? else {
            return Err(StoreError::NoSuchKey);
        };
        if !described {
            self.describe(&mut object, key)?;
        }
        if matches(condition, &object.meta.etag) {
            Ok(())
        } else {
            Err(StoreError::PreconditionFailed)
        }
    }

    /// Makes the folders of a key; a file in the way is an object, and moves beside its folder.
    /// Gives the last one, and how many were made.
    fn make_folders(&self, bucket: &str, names: &[String]) -> StoreResult<(PathBuf, usize)> {
        let mut folder = self.folder(bucket);
        let mut made = 0;
        for name in names {
            let parent = folder.clone();
            folder.push(name);
            match absent(fs::symlink_metadata(&folder)).context("look at", &folder)? {
                Some(found) if found.is_dir() => continue,
                Some(found) if found.is_file() => {
                    fs::rename(&folder, parent.join(beside(name))).context("move", &folder)?;
                }
                _ => {}
            }
            if let Err(source) = fs::create_dir(&folder) {
                self.prune(bucket, parent);
                return Err(StoreError::Io { action: "create the folder", path: folder, source });
            }
            made += 1;
        }
        Ok((folder, made))
    }

    fn put_in_place(&self, staged: TempFile, folder: &Path, name: &str) -> StoreResult<()> {
        let plain = folder.join(name);
        let other = folder.join(beside(name));
        let is_folder = absent(fs::symlink_metadata(&plain))
            .context("look at", &plain)?
            .is_some_and(|found| found.is_dir());
        // An empty folder holds no object, so it may give way to one.
        if is_folder && fs::remove_dir(&plain).is_err() {
            return staged.rename(&other).context("move a file to", &other);
        }
        staged.rename(&plain).context("move a file to", &plain)?;
        // Reading prefers the plain file, so a crash before this line changes nothing.
        absent(fs::remove_file(&other)).context("remove", &other)?;
        Ok(())
    }

    /// Removes an object, and the folders that are empty without it. Absent is fine.
    pub(super) fn delete(
        &self,
        bucket: &str,
        key: &str,
        precondition: &Precondition,
    ) -> StoreResult<()> {
        let _tree = self.lock();
        self.check(bucket, key, precondition)?;
        self.remove(bucket, key)
    }

    /// Removes an object that was last written before then; whether there was one. What is written
    /// meanwhile stays.
    pub(super) fn expire(&self, bucket: &str, key: &str, before: SystemTime) -> StoreResult<bool> {
        let _tree = self.lock();
        match self.present(bucket, &key_path(key))? {
            Some(stamp) if stamp.modified() < before => {
                self.remove(bucket, key)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Removes an object while names are locked.
    fn remove(&self, bucket: &str, key: &str) -> StoreResult<()> {
        let path = key_path(key);
        // Not waited for: whether it has reached the disk makes no difference to what is promised.
        self.record(bucket, key, None, &[])?;
        if let Some(place) = self.place(bucket, &path)? {
            let folder = place.parent().unwrap_or(&place);
            let other = folder.join(beside(&path.name));
            if place != other {
                // An older file that a crash left must not come back when the newer one goes.
                absent(fs::remove_file(&other)).context("remove", &other)?;
            }
            fs::remove_file(&place).context("remove", &place)?;
            self.prune(bucket, folder.to_owned());
        }
        let sidecar = self.sidecar_path(bucket, key).1;
        absent(fs::remove_file(&sidecar)).context("remove", &sidecar)?;
        Ok(())
    }

    /// Removes a folder and those around it as far as they are empty, the bucket's never.
    fn prune(&self, bucket: &str, mut folder: PathBuf) {
        let top = self.folder(bucket);
        while folder != top && folder.starts_with(&top) {
            // Not empty, or already gone: either way there is no more to do.
            if fs::remove_dir(&folder).is_err() || !folder.pop() {
                return;
            }
        }
    }

    /// The names in a folder, each with whether it is a folder; empty when there is none. Files
    /// moving beside folders, as [`Store::commit`] does it, are seen before or after.
    pub(super) fn entries(
        &self,
        bucket: &str,
        names: &[String],
    ) -> StoreResult<Vec<(OsString, bool)>> {
        let mut folder = self.folder(bucket);
        folder.extend(names);
        let folder = folder.as_path();
        let _tree = self.lock();
        let Some(listing) = absent(fs::read_dir(folder)).context("list", folder)? else {
            return Ok(Vec::new());
        };
        let mut entries = Vec::new();
        for entry in listing {
            let entry = entry.context("list", folder)?;
            let kind = entry.file_type().context("look at", folder)?;
            if kind.is_dir() || kind.is_file() {
                entries.push((entry.file_name(), kind.is_dir()));
            }
        }
        Ok(entries)
    }

    /// Whether the folders on the way to a place in a bucket are folders, and no links.
    pub(super) fn is_folder(&self, bucket: &str, names: &[String]) -> StoreResult<bool> {
        let mut folder = self.folder(bucket);
        for name in names {
            folder.push(name);
            match absent(fs::symlink_metadata(&folder)).context("look at", &folder)? {
                Some(found) if found.is_dir() => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Folder and path of a key's description.
    fn sidecar_path(&self, bucket: &str, key: &str) -> (PathBuf, PathBuf) {
        let all = self.root.join(".meta").join(bucket);
        let (folder, place) = sidecar_place(key);
        (all.join(folder), all.join(place))
    }

    fn sidecar(&self, bucket: &str, key: &str) -> StoreResult<Option<Sidecar>> {
        let path = self.sidecar_path(bucket, key).1;
        let content = absent(fs::read(&path)).context("read", &path)?;
        // A description that cannot be read (a power cut may leave it empty) is as good as none.
        Ok(content.and_then(|content| serde_json::from_slice(&content).ok()))
    }

    fn write_sidecar(&self, bucket: &str, key: &str, versions: Vec<Version>) -> StoreResult<()> {
        let (folder, path) = self.sidecar_path(bucket, key);
        let sidecar = Sidecar { key: key.to_owned(), versions };
        let content =
            serde_json::to_vec(&sidecar).map_err(io::Error::from).context("describe", &path)?;
        let staged = self.stage()?;
        staged.write_all(&content).context("write", staged.path())?;
        fs::create_dir_all(&folder).context("create the folder", &folder)?;
        staged.rename(&path).context("move a file to", &path)
    }
}

/// Whether an `If-Match` condition holds for an ETag.
pub(super) fn matches(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(wanted) => wanted.as_strong() == Some(etag),
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(journal) = &self.journal {
            journal.close();
        }
    }
}

/// Whether a file has these bytes, and no more.
fn is_of(file: &File, bytes: &[u8]) -> io::Result<bool> {
    let mut content = vec![0; bytes.len()];
    match file.read_exact_at(&mut content, 0) {
        Ok(()) => Ok(content == bytes && file.metadata()?.len() == bytes.len() as u64),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn md5_of(file: &File) -> io::Result<[u8; 16]> {
    let mut hasher = Md5::new();
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(&buffer[..read]);
        offset += read as u64;
    }
}
