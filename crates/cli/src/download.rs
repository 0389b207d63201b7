//! Downloads of a run's files: in parallel, verified, never outside the folder asked for, and going on
//! where an earlier download was cut off.

use std::{
    fs::{self, File, TryLockError},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Response, StatusCode, header};
use sha1::{Digest as _, Sha1};
use stepwes_core::wes::{AttachmentEntry, OutputEntry};
use tokio::task::spawn_blocking;

use crate::{client::Client, ui::hint};

/// How many files are downloaded at once.
pub(crate) const PARALLEL: usize = 8;

/// How often each file is tried without getting any further.
const TRIES: u32 = 3;

/// How long to wait before the next try.
const PAUSE: Duration = Duration::from_secs(1);

/// Files up to this size, in bytes, are held in memory, and downloaded anew when they were cut off.
pub(crate) const SMALL: u64 = 1024 * 1024;

/// A file on the server.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Where it goes, below the folder asked for.
    pub(crate) path: String,
    /// Where it is.
    pub(crate) url: String,
    /// Its size in bytes, where the server tells.
    pub(crate) size: Option<u64>,
    /// `sha1$…`, where the server tells.
    pub(crate) checksum: Option<String>,
}

impl From<&OutputEntry> for Item {
    fn from(file: &OutputEntry) -> Self {
        Self {
            path: file.path.clone(),
            url: file.url.clone(),
            size: Some(file.size),
            checksum: Some(file.checksum.clone()),
        }
    }
}

impl From<&AttachmentEntry> for Item {
    fn from(file: &AttachmentEntry) -> Self {
        Self {
            path: file.name.clone(),
            url: file.url.clone(),
            size: Some(file.size),
            checksum: None,
        }
    }
}

impl Item {
    /// Whether it is held in memory.
    pub(crate) fn is_small(&self) -> bool {
        self.size.is_some_and(|size| size <= SMALL)
    }

    /// What is wrong with `size` bytes of that hash, as its content.
    fn check(&self, size: u64, hash: Sha1) -> anyhow::Result<()> {
        if let Some(expected) = self.size {
            anyhow::ensure!(size == expected, "{size} bytes came instead of {expected}");
        }
        if let Some(expected) = &self.checksum {
            let checksum = format!("sha1${}", hex::encode(hash.finalize()));
            anyhow::ensure!(
                checksum == *expected,
                "its checksum is {checksum} instead of {expected}"
            );
        }
        Ok(())
    }
}

/// Downloads files into `outdir`. A file is there whole or not at all; one that is there already is
/// left as it is, and of a large one that was cut off the rest is downloaded.
///
/// # Errors
/// Naming the first file that cannot be had.
pub(crate) async fn download(client: &Client, files: &[Item], outdir: &Path) -> anyhow::Result<()> {
    tokio::fs::create_dir_all(outdir)
        .await
        .with_context(|| format!("{} cannot be made", outdir.display()))?;
    stream::iter(files)
        .map(|file| async move {
            let target = target(outdir, &file.path)?;
            one(client, file, &target)
                .await
                .with_context(|| format!("{:?} cannot be downloaded", file.path))
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}

async fn one(client: &Client, file: &Item, target: &Path) -> anyhow::Result<()> {
    if let Some(folder) = target.parent() {
        tokio::fs::create_dir_all(folder)
            .await
            .with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    if is_there(file, target).await? {
        return Ok(());
    }
    let unwritable = || format!("{} cannot be written", target.display());
    let mut part = Part::open(file, target)?;
    if file.is_small() {
        let content = small(client, file).await?;
        part.file.write_all(&content).with_context(unwritable)?;
    } else {
        part.download(client, file).await?;
    }
    part.become_whole(target).with_context(unwritable)
}

/// Whether the file has been downloaded before.
async fn is_there(file: &Item, target: &Path) -> anyhow::Result<bool> {
    let (Some(size), Some(_)) = (file.size, &file.checksum) else { return Ok(false) };
    let Ok(found) = fs::symlink_metadata(target) else { return Ok(false) };
    if !found.is_file() || found.len() != size {
        return Ok(false);
    }
    let Ok(mut there) = File::open(target) else { return Ok(false) };
    let hash = spawn_blocking(move || hash(&mut there)).await?;
    Ok(hash.is_ok_and(|hash| file.check(size, hash).is_ok()))
}

/// The whole content of a small file.
///
/// # Errors
/// When it cannot be had, or is not what the server says that it is.
pub(crate) async fn small(client: &Client, file: &Item) -> anyhow::Result<Bytes> {
    let mut tries = 1;
    loop {
        let got = async {
            let response = client.download(&file.url).await?;
            let content = response.bytes().await.map_err(reqwest::Error::without_url)?;
            file.check(content.len() as u64, Sha1::new().chain_update(&content))?;
            anyhow::Ok(content)
        };
        match got.await {
            Ok(content) => return Ok(content),
            Err(error) if tries == TRIES => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
        tries += 1;
    }
}

/// Where the bytes of a download go.
pub(crate) trait Sink {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they cannot be written: the download ends.
    fn take(&mut self, bytes: Bytes) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Downloads what is behind `have` bytes of a file that hash to `hash`, into `sink`. A download that
/// breaks off goes on where it did, as long as it gets further.
///
/// # Errors
/// When the file cannot be had, is not what the server says that it is, or cannot be written.
pub(crate) async fn stream_into(
    client: &Client,
    file: &Item,
    mut have: u64,
    mut hash: Sha1,
    sink: &mut impl Sink,
) -> anyhow::Result<()> {
    let mut tries = 1;
    // What the server says of the whole, for files of which the list does not tell.
    let mut total = file.size;
    while total.is_none_or(|total| have < total) {
        let before = have;
        let got = async {
            let response = client.download_from(&file.url, have).await?;
            let Some(answer) = Answer::of(&response, have)? else { return anyhow::Ok(None) };
            let mut chunks = response.bytes_stream();
            let mut gathered = Vec::new();
            let mut size = 0;
            while let Some(chunk) = chunks.next().await {
                let chunk = match chunk {
                    Ok(chunk) => chunk,
                    // What came before counts.
                    Err(error) => {
                        flush(&mut gathered, &mut size, &mut have, &mut hash, sink).await?;
                        return Err(error.without_url().into());
                    }
                };
                size += chunk.len();
                gathered.push(chunk);
                if size as u64 >= SMALL {
                    flush(&mut gathered, &mut size, &mut have, &mut hash, sink).await?;
                }
            }
            flush(&mut gathered, &mut size, &mut have, &mut hash, sink).await?;
            Ok(Some(answer.total.unwrap_or(have)))
        };
        match got.await {
            Ok(None) => break,
            Ok(Some(whole)) => total = total.or(Some(whole)),
            Err(error) if error.is::<SinkError>() => return Err(error),
            Err(error) if have == before && tries == TRIES => return Err(error),
            Err(_) => {}
        }
        if have > before {
            tries = 1;
        } else {
            anyhow::ensure!(tries < TRIES, "no more than {have} bytes came");
            tries += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
    file.check(have, hash)
}

/// What an answer to a request from some offset on holds.
struct Answer {
    /// The size of the whole file, when the answer tells.
    total: Option<u64>,
}

impl Answer {
    /// `None` when there is nothing behind that offset.
    fn of(response: &Response, offset: u64) -> anyhow::Result<Option<Self>> {
        let range = response.headers().get(header::CONTENT_RANGE);
        let range = range.and_then(|value| value.to_str().ok()?.strip_prefix("bytes "));
        match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NO_CONTENT => Ok(None),
            StatusCode::PARTIAL_CONTENT => {
                let (range, total) = range.and_then(|range| range.split_once('/')).unzip();
                let start = range.and_then(|range| range.split('-').next()?.parse::<u64>().ok());
                anyhow::ensure!(
                    start.is_none_or(|start| start == offset),
                    "the server answers another range than asked for"
                );
                Ok(Some(Self { total: total.and_then(|total| total.parse().ok()) }))
            }
            _ => {
                anyhow::ensure!(offset == 0, "the server does not know ranges");
                Ok(Some(Self { total: None }))
            }
        }
    }
}

/// Marks what went wrong where the bytes go, and not where they come from.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct SinkError(anyhow::Error);

async fn flush(
    gathered: &mut Vec<Bytes>,
    size: &mut usize,
    have: &mut u64,
    hash: &mut Sha1,
    sink: &mut impl Sink,
) -> anyhow::Result<()> {
    let mut bytes = Vec::with_capacity(*size);
    for chunk in gathered.drain(..) {
        bytes.extend_from_slice(&chunk);
    }
    *size = 0;
    if bytes.is_empty() {
        return Ok(());
    }
    hash.update(&bytes);
    let count = bytes.len() as u64;
    sink.take(bytes.into()).await.map_err(SinkError)?;
    *have += count;
    Ok(())
}

/// A file that is not whole yet. What is left of a small one is removed; a large one stays, so that
/// the next download goes on with it.
struct Part {
    path: PathBuf,
    file: File,
    keep: bool,
}

impl Part {
    /// In the folder of `target`, by a short name that the same file has the next time, and no other.
    fn open(file: &Item, target: &Path) -> anyhow::Result<Self> {
        let checksum = file.checksum.as_deref().unwrap_or_default();
        let name = Sha1::digest(format!("{}\0{checksum}", file.path));
        let path = target.with_file_name(format!(".stepwes-{}.part", hex::encode(&name[..10])));
        loop {
            let file =
                File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.with_context(|| format!("{} cannot be written", path.display()))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(hint(
                        format!("another download is writing {}", target.display()),
                        "wait for it, or choose another folder",
                    ));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error)
                        .with_context(|| format!("{} cannot be locked", path.display()));
                }
            }
            // Whoever held the lock before may have made it whole in between.
            let now = fs::metadata(&path).ok().map(|found| found.ino());
            if now == Some(file.metadata()?.ino()) {
                return Ok(Self { path, file, keep: false });
            }
        }
    }

    async fn download(&mut self, client: &Client, item: &Item) -> anyhow::Result<()> {
        let have = self.file.metadata()?.len();
        // Without a checksum nobody knows whether it is a part of the same file.
        let is_part = item.checksum.is_some() && item.size.is_some_and(|size| have <= size);
        let (have, hash) = if is_part {
            let mut file = self.file.try_clone()?;
            (have, spawn_blocking(move || hash(&mut file)).await??)
        } else {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            (0, Sha1::new())
        };
        self.keep = item.checksum.is_some();
        let mut sink = FileSink(self.file.try_clone()?);
        let done = stream_into(client, item, have, hash, &mut sink).await;
        let size = self.file.metadata()?.len();
        if done.is_err() && item.size.is_none_or(|whole| size >= whole) {
            // All came, and it is wrong.
            self.keep = false;
        }
        done
    }

    fn become_whole(mut self, target: &Path) -> std::io::Result<()> {
        fs::rename(&self.path, target)?;
        self.keep = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let is_large = self.file.metadata().is_ok_and(|found| found.len() >= SMALL);
        if !self.keep || !is_large {
            // There is none any more when it has become whole.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes behind what is there.
struct FileSink(File);

impl Sink for FileSink {
    async fn take(&mut self, bytes: Bytes) -> anyhow::Result<()> {
        let mut file = self.0.try_clone()?;
        spawn_blocking(move || file.write_all(&bytes)).await?.context("it cannot be written")
    }
}

/// The hash of a file from its beginning to its end, which is then where it is read and written.
fn hash(file: &mut File) -> std::io::Result<Sha1> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha1::new();
    let mut piece = vec![0; 256 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash),
            count => hash.update(&piece[..count]),
        }
    }
}

/// Where a file goes: the server's word is not trusted to stay below `outdir`.
pub(crate) fn target(outdir: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let below = Path::new(path);
    let safe =
        !path.is_empty() && below.components().all(|part| matches!(part, Component::Normal(_)));
    anyhow::ensure!(
        safe,
        "the server names the file {path:?}, which would lie outside {}",
        outdir.display()
    );
    Ok(outdir.join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_leaves_the_folder() {
        let outdir = Path::new("/out");
        assert_eq!(target(outdir, "a/b c.txt").expect("good"), Path::new("/out/a/b c.txt"));
        for bad in ["", "/etc/passwd", "../x", "a/../../x"] {
            assert!(target(outdir, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_downloads_do_not_write_the_same_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("x");
        let item = Item { path: "x".to_owned(), url: String::new(), size: Some(1), checksum: None };
        let first = Part::open(&item, &target).expect("opened");
        let error = Part::open(&item, &target).err().expect("locked");
        assert!(error.to_string().contains("another download"), "{error}");
        first.become_whole(&target).expect("renamed");
        Part::open(&item, &target).expect("opened again");
        let left: Vec<_> = fs::read_dir(folder.path()).expect("listed").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
