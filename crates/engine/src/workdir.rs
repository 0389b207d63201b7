//! The folder that one attempt works in, fresh and gone afterwards.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use stepwes_core::RunId;
use tracing::warn;

/// An attempt's working folder; readable by its owner alone.
///
/// It has the same path for all attempts of a run, and for the runs that go on from it: engines
/// remember absolute paths, and tell by them what has been done.
#[derive(Debug)]
pub(crate) struct WorkDir {
    root: PathBuf,
    /// The folder itself, locked for as long as it is worked in.
    _lock: File,
}

/// The name of the folder of a run that begins.
pub(crate) fn name_of(run: RunId) -> String {
    format!("stepwes-{run}")
}

impl WorkDir {
    /// Makes the folder `name`, and those in it, below `parent`, and `link` to it.
    ///
    /// # Errors
    /// When `parent` cannot be written; [`io::ErrorKind::WouldBlock`] when another task works in the
    /// folder.
    pub(crate) fn create(parent: &Path, name: &str, link: Option<&Path>) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        // Without symbolic links, since engines name files by their real paths.
        let root = parent.canonicalize()?.join(name);
        let work = Self { _lock: lock(&root)?, root };
        if let Some(link) = link {
            // It may have been left by a task that was killed.
            let _ = fs::remove_file(link);
            symlink(&work.root, link)?;
        }
        // A task whose host died may have left something behind.
        for entry in fs::read_dir(&work.root)? {
            let path = entry?.path();
            if fs::symlink_metadata(&path)?.is_dir() {
                remove(&path)?;
            } else {
                fs::remove_file(path)?;
            }
        }
        for path in [
            work.execution(),
            work.inputs(),
            work.outputs(),
            work.logs(),
            work.state(),
            work.temporary(),
            work.home(),
            work.sandbox(),
        ] {
            DirBuilder::new().mode(0o700).create(path)?;
        }
        Ok(work)
    }

    /// Empties the folders of the workflow and of its engine.
    ///
    /// # Errors
    /// As the file system fails.
    pub(crate) fn clear(&self) -> io::Result<()> {
        for path in [self.execution(), self.inputs(), self.state()] {
            remove(&path)?;
            DirBuilder::new().mode(0o700).create(path)?;
        }
        Ok(())
    }

    /// The whole folder, an absolute path without symbolic links.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the request's files are and the engine starts (Toil's `execution`).
    pub(crate) fn execution(&self) -> PathBuf {
        self.root.join("execution")
    }

    /// Where input files are that come from elsewhere.
    pub(crate) fn inputs(&self) -> PathBuf {
        self.root.join("inputs")
    }

    /// Where the engine leaves its outputs.
    pub(crate) fn outputs(&self) -> PathBuf {
        self.root.join("outputs")
    }

    /// Where the engine's standard output and error go.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What the engine keeps for itself while it runs, such as a job store.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// The engine's `TMPDIR`.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// The engine's `HOME`, unless it needs the real one.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// What the engine's sandbox is made of.
    pub(crate) fn sandbox(&self) -> PathBuf {
        self.root.join("sandbox")
    }

    /// Removes everything; what cannot be removed is only logged, for the run is not the worse
    /// for it.
    pub(crate) async fn remove(self) {
        let root = self.root;
        let shown = root.display().to_string();
        match tokio::task::spawn_blocking(move || remove(&root)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("the work folder {shown} could not be removed: {error}"),
            Err(error) => warn!("the work folder {shown} could not be removed: {error}"),
        }
    }
}

/// Makes the folder, or takes it over from a task that is gone.
fn lock(root: &Path) -> io::Result<File> {
    loop {
        match DirBuilder::new().mode(0o700).create(root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let folder = match File::open(root) {
            // Whoever had it has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            folder => folder?,
        };
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let there = fs::symlink_metadata(root);
        if there.is_ok_and(|there| folder.metadata().is_ok_and(|own| own.ino() == there.ino())) {
            return Ok(folder);
        }
    }
}

/// Whether there is no more room where `path` is.
pub(crate) fn disk_is_full(path: &Path) -> bool {
    nix::sys::statvfs::statvfs(path).is_ok_and(|disk| disk.blocks_available() == 0)
}

/// Removes a tree, folders without write permission included. Symbolic links are not followed.
fn remove(root: &Path) -> io::Result<()> {
    if fs::remove_dir_all(root).is_ok() {
        return Ok(());
    }
    open_up(root);
    fs::remove_dir_all(root)
}

/// Gives the owner every right on every folder; what cannot be changed shows when it is removed.
fn open_up(folder: &Path) {
    if fs::set_permissions(folder, Permissions::from_mode(0o700)).is_err() {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_id() -> RunId {
        "01890000-0000-7000-8000-000000000000".parse().expect("a run id")
    }

    #[tokio::test]
    async fn an_attempt_starts_afresh_and_leaves_nothing() {
        let parent = tempfile::tempdir().expect("a folder");
        let create = |link: Option<&Path>| WorkDir::create(parent.path(), &name_of(run_id()), link);
        let first = create(None).expect("made");
        fs::write(first.execution().join("old"), "x").expect("written");
        let root = first.root().to_owned();
        let refused = create(None).expect_err("it is worked in");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        fs::write(root.join("file"), "x").expect("written");
        let elsewhere = tempfile::tempdir().expect("a folder");
        let link = elsewhere.path().join("work");
        symlink("/nowhere", &link).expect("left");
        let again = create(Some(&link)).expect("made again");
        assert_eq!(again.root(), root, "engines remember paths");
        assert_eq!(fs::read_link(&link).expect("a link"), root);
        assert!(!root.join("file").exists());
        assert_eq!(fs::read_dir(again.execution()).expect("listed").count(), 0);
        let closed = again.temporary().join("closed/inner");
        fs::create_dir_all(&closed).expect("made");
        fs::set_permissions(closed.parent().expect("a parent"), Permissions::from_mode(0o500))
            .expect("closed");
        again.remove().await;
        assert_eq!(fs::read_dir(parent.path()).expect("listed").count(), 0);
    }

    #[test]
    fn a_parent_that_cannot_be_written_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(WorkDir::create(file.path(), "name", None).is_err());
    }
}
