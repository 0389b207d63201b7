//! A run's files as one zip archive, written while they come in: nothing is kept on the disk beside it.
//!
//! What is in it is not compressed; most outputs are already, and a reader can seek in those.

use std::{
    fs::File,
    io::{BufWriter, Seek, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use sha1::{Digest as _, Sha1};
use tokio::sync::mpsc;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{
    client::Client,
    download::{Item, PARALLEL, Sink, small, stream_into, target},
};

/// How many pieces wait for the disk.
const WAITING: usize = 4;

/// What the archive's writer is told.
enum Piece {
    /// A file begins; its path, and its size when that is known.
    Begin(String, Option<u64>),
    /// The next bytes of it.
    Bytes(Bytes),
}

/// Writes `files` into the new archive `archive`, after `own`, which are given with their content.
/// Small files are fetched ahead, some at once; a large one goes on where it was cut off. The archive
/// is there whole or not at all.
///
/// # Errors
/// Naming the file that cannot be had, or the archive when it cannot be written.
pub(crate) async fn archive(
    client: &Client,
    own: Vec<(String, Bytes)>,
    files: &[Item],
    archive: &Path,
) -> anyhow::Result<()> {
    let part = Part::beside(archive);
    let file =
        File::create(&part.0).with_context(|| format!("{} cannot be written", part.0.display()))?;
    let (pieces, coming) = mpsc::channel(WAITING);
    let writer = tokio::task::spawn_blocking(move || write(BufWriter::new(file), coming));
    let sent = send(client, own, files, pieces).await;
    let written = writer.await?;
    // Nobody takes pieces any more when the writer has failed: that is the reason then.
    written.with_context(|| format!("{} cannot be written", archive.display()))?;
    sent?;
    std::fs::rename(&part.0, archive)
        .with_context(|| format!("{} cannot be written", archive.display()))
}

async fn send(
    client: &Client,
    own: Vec<(String, Bytes)>,
    files: &[Item],
    pieces: mpsc::Sender<Piece>,
) -> anyhow::Result<()> {
    let mut sink = Pieces(pieces);
    for (path, content) in own {
        sink.begin(&path, Some(content.len() as u64)).await?;
        sink.take(content).await?;
    }
    let mut coming = stream::iter(files)
        .map(|file| async move {
            let content = if file.is_small() { Some(small(client, file).await) } else { None };
            (file, content)
        })
        .buffered(PARALLEL);
    while let Some((file, content)) = coming.next().await {
        // What it would be outside of a folder, it would be where it is unpacked.
        target(Path::new("the archive"), &file.path)?;
        let cannot = || format!("{:?} cannot be downloaded", file.path);
        match content {
            Some(content) => {
                let content = content.with_context(cannot)?;
                sink.begin(&file.path, file.size).await?;
                sink.take(content).await?;
            }
            None => {
                sink.begin(&file.path, file.size).await?;
                stream_into(client, file, 0, Sha1::new(), &mut sink).await.with_context(cannot)?;
            }
        }
    }
    Ok(())
}

struct Pieces(mpsc::Sender<Piece>);

impl Pieces {
    async fn begin(&mut self, path: &str, size: Option<u64>) -> anyhow::Result<()> {
        self.send(Piece::Begin(path.to_owned(), size)).await
    }

    async fn send(&mut self, piece: Piece) -> anyhow::Result<()> {
        self.0.send(piece).await.context("the archive is not written any more")
    }
}

impl Sink for Pieces {
    async fn take(&mut self, bytes: Bytes) -> anyhow::Result<()> {
        self.send(Piece::Bytes(bytes)).await
    }
}

/// Writes pieces until nobody sends any more.
fn write(file: impl Write + Seek, mut coming: mpsc::Receiver<Piece>) -> anyhow::Result<()> {
    let mut archive = ZipWriter::new(file);
    while let Some(piece) = coming.blocking_recv() {
        match piece {
            Piece::Begin(path, size) => {
                let options = SimpleFileOptions::default()
                    .compression_method(CompressionMethod::Stored)
                    .unix_permissions(0o644)
                    .large_file(size.is_none_or(|size| size >= u64::from(u32::MAX)));
                archive.start_file(path, options)?;
            }
            Piece::Bytes(bytes) => archive.write_all(&bytes)?,
        }
    }
    archive.finish()?.flush()?;
    Ok(())
}

/// An archive that is not whole yet; removed when it never is.
struct Part(PathBuf);

impl Part {
    fn beside(archive: &Path) -> Self {
        Self(archive.with_file_name(format!(".stepwes-{}.zip.part", std::process::id())))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // There is none when it has become whole.
        let _ = std::fs::remove_file(&self.0);
    }
}
