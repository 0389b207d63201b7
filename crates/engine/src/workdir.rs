//! The folder that one attempt works in, fresh and gone afterwards.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use stepwes_core::RunId;
use tracing::warn;

/// An attempt's working folder; readable by its owner alone.
#[derive(Debug)]
pub(crate) struct WorkDir {
    root: PathBuf,
}

impl WorkDir {
    /// Makes the folder, and those in it, below `parent`.
    ///
    /// # Errors
    /// When `parent` cannot be written.
    pub(crate) fn create(parent: &Path, run: RunId, attempt: u32) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        // Without symbolic links, since engines name files by their real paths.
        let parent = parent.canonicalize()?;
        // A task whose host died may have left the attempt's folder behind.
        let root = parent.join(format!("stepwes-{run}-{attempt}-{}", std::process::id()));
        if root.exists() {
            remove(&root)?;
        }
        let work = Self { root };
        let mut folder = DirBuilder::new();
        folder.mode(0o700);
        folder.create(&work.root)?;
        for path in [
            work.execution(),
            work.outputs(),
            work.logs(),
            work.state(),
            work.temporary(),
            work.home(),
            work.sandbox(),
        ] {
            folder.create(path)?;
        }
        Ok(work)
    }

    /// The whole folder, an absolute path without symbolic links.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the request's files are and the engine starts (Toil's `execution`).
    pub(crate) fn execution(&self) -> PathBuf {
        self.root.join("execution")
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
        let first = WorkDir::create(parent.path(), run_id(), 1).expect("made");
        fs::write(first.execution().join("old"), "x").expect("written");
        let again = WorkDir::create(parent.path(), run_id(), 1).expect("made again");
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
        assert!(WorkDir::create(file.path(), run_id(), 1).is_err());
    }
}
