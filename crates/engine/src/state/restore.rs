//! Brings a saved state back.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Component, Path, PathBuf},
};

use futures::{StreamExt as _, TryStreamExt as _};
use nix::{
    fcntl::AT_FDCWD,
    sys::{
        stat::{UtimensatFlags, utimensat},
        time::TimeSpec,
    },
};
use stepwes_core::{
    keys,
    saved::{FileTime, Manifest, SavedFile},
};

use super::SMALL;
use crate::{
    bucket::{Bucket, Fault},
    error::Failure,
};

/// How many pieces are on their way at once.
const AT_ONCE: usize = 4;

/// Puts everything that the manifest names below `root`, where nothing but what was staged is, with
/// its times and permissions.
///
/// # Errors
/// [`Failure`]; a piece that is gone, or is not what the manifest says, is the service's.
pub(crate) async fn restore(
    bucket: &Bucket,
    manifest: &Manifest,
    root: &Path,
) -> Result<(), Failure> {
    let local = |error: io::Error| Failure::local("bringing saved state back", &error);
    for path in paths(manifest) {
        if !is_below(path) {
            return Err(Failure::Service(format!("the saved state names {path:?}")));
        }
    }
    for folder in &manifest.folders {
        fs::create_dir_all(root.join(&folder.path)).map_err(local)?;
    }
    let mut pieces: BTreeMap<u64, Vec<&SavedFile>> = BTreeMap::new();
    for file in &manifest.files {
        pieces.entry(file.piece).or_default().push(file);
    }
    // Owned, as what is awaited side by side has to be.
    let pieces: Vec<(u64, Vec<SavedFile>)> = pieces
        .into_iter()
        .map(|(piece, files)| (piece, files.into_iter().cloned().collect()))
        .collect();
    futures::stream::iter(pieces)
        .map(|(piece, files)| async move {
            let key = keys::state_piece(manifest.run_id, manifest.attempt, piece);
            bring(bucket, &key, &files, root).await
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    // Links after all files, so that nothing is written through one; times last of all, those of a
    // folder after those of what is in it.
    for link in &manifest.links {
        let path = root.join(&link.path);
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path).map_err(local)?;
        }
        symlink(&link.target, &path).map_err(local)?;
        set_times(&path, link.modified).map_err(local)?;
    }
    for folder in manifest.folders.iter().rev() {
        let path = root.join(&folder.path);
        // Never closed to us, who have to remove it.
        let mode = Permissions::from_mode(folder.mode | 0o700);
        fs::set_permissions(&path, mode).map_err(local)?;
        set_times(&path, folder.modified).map_err(local)?;
    }
    Ok(())
}

fn paths(manifest: &Manifest) -> impl Iterator<Item = &str> {
    let folders = manifest.folders.iter().map(|folder| folder.path.as_str());
    let files = manifest.files.iter().map(|file| file.path.as_str());
    let links = manifest.links.iter().map(|link| link.path.as_str());
    folders.chain(files).chain(links)
}

/// Whether a path leads nowhere but down.
fn is_below(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Brings one piece, and makes the files of it.
async fn bring(
    bucket: &Bucket,
    key: &str,
    files: &[SavedFile],
    root: &Path,
) -> Result<(), Failure> {
    let doing = "bringing saved state back";
    let torn = || Failure::Service(format!("{doing}: {key} is not what was saved"));
    let of_store = |fault: Fault| fault.of_service(doing);
    let local = |error: io::Error| Failure::local(doing, &error);
    if let [file] = files
        && file.size > SMALL
    {
        let path = fresh(root, file).map_err(local)?;
        let size = bucket.download(None, key, &path, file.size).await.map_err(of_store)?;
        return if size == file.size { finished(&path, file).map_err(local) } else { Err(torn()) };
    }
    let pack = bucket.get(key).await.map_err(of_store)?;
    for file in files {
        let begin = usize::try_from(file.offset).map_err(|_| torn())?;
        let size = usize::try_from(file.size).map_err(|_| torn())?;
        let content = begin.checked_add(size).and_then(|end| pack.get(begin..end));
        let content = content.ok_or_else(torn)?;
        let path = fresh(root, file).map_err(local)?;
        let mut made = fs::OpenOptions::new();
        let written = made
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut made| made.write_all(content));
        written.map_err(local)?;
        finished(&path, file).map_err(local)?;
    }
    Ok(())
}

/// The path of a file that is to be made, where there is none any more: one that was staged had been
/// changed since.
fn fresh(root: &Path, file: &SavedFile) -> io::Result<PathBuf> {
    let path = root.join(&file.path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(path),
    }
}

fn finished(path: &Path, file: &SavedFile) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(file.mode))?;
    set_times(path, file.modified)
}

/// Sets the time at which a file, a folder or a link itself was last modified.
pub(super) fn set_times(path: &Path, modified: FileTime) -> io::Result<()> {
    let time = TimeSpec::new(modified.0, modified.1);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}
