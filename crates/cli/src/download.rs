//! Downloads of output files: in parallel, verified, and never outside the folder asked for.

use std::{
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sha1::{Digest as _, Sha1};
use stepwes_core::wes::OutputEntry;
use tokio::io::AsyncWriteExt as _;

use crate::client::Client;

/// How many files are downloaded at once.
const PARALLEL: usize = 8;

/// How often each file is tried.
const TRIES: u32 = 3;

/// How long to wait before the next try.
const PAUSE: Duration = Duration::from_secs(1);

/// Downloads `files` into `outdir`; `done` is told of each file's bytes. A file is there whole or
/// not at all.
pub(crate) async fn download(
    client: &Client,
    files: &[OutputEntry],
    outdir: &Path,
    done: impl Fn(u64) + Send + Sync + 'static,
) -> anyhow::Result<()> {
    tokio::fs::create_dir_all(outdir)
        .await
        .with_context(|| format!("{} cannot be made", outdir.display()))?;
    let done = Arc::new(done);
    stream::iter(files.iter().cloned())
        .map(|file| {
            let client = client.clone();
            let done = Arc::clone(&done);
            let target = target(outdir, &file.path);
            async move {
                one(&client, &file, &target?)
                    .await
                    .with_context(|| format!("{:?} cannot be downloaded", file.path))?;
                done(file.size);
                anyhow::Ok(())
            }
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

async fn one(client: &Client, file: &OutputEntry, target: &Path) -> anyhow::Result<()> {
    if let Some(folder) = target.parent() {
        tokio::fs::create_dir_all(folder)
            .await
            .with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let part = Part::beside(target);
    for _ in 1..TRIES {
        if fetch(client, file, &part.0).await.is_ok() {
            return part.become_whole(target).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
    fetch(client, file, &part.0).await?;
    part.become_whole(target).await
}

/// A file that is not whole yet; removed when it never is, also by an error of another file or an
/// interrupt.
struct Part(PathBuf);

impl Part {
    /// In the folder of `target`, by a name that no output has: short, and used once.
    fn beside(target: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(target.with_file_name(format!(".stepwes-{}-{number}.part", std::process::id())))
    }

    async fn become_whole(self, target: &Path) -> anyhow::Result<()> {
        tokio::fs::rename(&self.0, target)
            .await
            .with_context(|| format!("{} cannot be written", target.display()))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // There is none when it has become whole, or has never begun.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn fetch(client: &Client, file: &OutputEntry, part: &Path) -> anyhow::Result<()> {
    let response = client.download(&file.url).await?;
    // At once: one that is made in the background could come after its removal.
    let out = std::fs::File::create(part)
        .with_context(|| format!("{} cannot be written", part.display()))?;
    let mut out = tokio::fs::File::from_std(out);
    let mut hash = Sha1::new();
    let mut size = 0u64;
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.try_next().await.map_err(reqwest::Error::without_url)? {
        hash.update(&chunk);
        size += chunk.len() as u64;
        out.write_all(&chunk)
            .await
            .with_context(|| format!("{} cannot be written", part.display()))?;
    }
    out.flush().await.with_context(|| format!("{} cannot be written", part.display()))?;
    anyhow::ensure!(size == file.size, "{size} bytes came instead of {}", file.size);
    let checksum = format!("sha1${}", hex::encode(hash.finalize()));
    anyhow::ensure!(
        checksum == file.checksum,
        "its checksum is {checksum} instead of {}",
        file.checksum
    );
    Ok(())
}

/// Where a file goes: the server's word is not trusted to stay below `outdir`.
pub(crate) fn target(outdir: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let below = Path::new(path);
    let safe =
        !path.is_empty() && below.components().all(|part| matches!(part, Component::Normal(_)));
    anyhow::ensure!(
        safe,
        "the server names the output {path:?}, which would lie outside {}",
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
}
